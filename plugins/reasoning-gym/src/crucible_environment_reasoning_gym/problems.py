"""Problems by number. One is made the same in every process, and as if nothing else had been."""

from __future__ import annotations

import contextlib
import copy
import functools
import json
import random
import sys
import threading
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from . import library

if TYPE_CHECKING:
    from reasoning_gym.dataset import ProceduralDataset

BLOCK = 512
"""Problems of one data set of the library, whose seed is the number of the first. Most data sets
are functions of seed + index, but a few make all their problems, or draw their kinds, at once.
"""
_MAKING = threading.Lock()


def problem(
    name: str, config: Mapping[str, Any], number: int
) -> tuple[ProceduralDataset, dict[str, Any]]:
    """Return a data set that scores answers, and the problem of a number as the data set made it:
    `question`, `answer` (None where the library has none) and `metadata`.

    Args:
        name: of the data set.
        config: its settings.
        number: 0 to 2**32 - 1.
    """
    with _MAKING:
        dataset, entry = _made(name, json.dumps(config, sort_keys=True), number)
    return dataset, copy.deepcopy(entry)


# A group of episodes has the same problem, and they are all played at once.
@functools.lru_cache(maxsize=1024)
def _made(name: str, config: str, number: int) -> tuple[ProceduralDataset, dict[str, Any]]:
    block, index = divmod(number, BLOCK)
    # Making bf prints dots, which are not a part of what a command answers.
    with _global_generators(number), contextlib.redirect_stdout(sys.stderr):
        dataset = _dataset(name, config, block)
        return dataset, dataset[index]


@functools.lru_cache(maxsize=8)
def _dataset(name: str, config: str, block: int) -> ProceduralDataset:
    return library.make(name, json.loads(config), block * BLOCK, BLOCK)


@contextlib.contextmanager
def _global_generators(seed: int) -> Iterator[None]:
    """Seed the global random generators, which list_functions draws from, and restore them, since
    pool_matrix seeds NumPy's.
    """
    before, numpy_before = random.getstate(), np.random.get_state()
    random.seed(seed)
    np.random.seed(seed)
    try:
        yield
    finally:
        random.setstate(before)
        np.random.set_state(numpy_before)
