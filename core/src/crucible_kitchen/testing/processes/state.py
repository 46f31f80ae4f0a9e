"""What every thread of a process shares, and no call may change."""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np


def left_alone(function: Callable[..., Any], *arguments: Any) -> dict[str, Any]:
    """Call `function(*arguments)`; return what it has changed of what all threads share.

    Returns:
        For the umask and the working directory what was before and is after it; for a generator
        that it has seeded, with what. Libraries may draw from these generators; seeded, every
        program that uses them would repeat itself.
    """
    before = _places()
    with (
        mock.patch.object(random, "seed", wraps=random.seed) as seed,
        mock.patch.object(np.random, "seed", wraps=np.random.seed) as legacy,
    ):
        function(*arguments)
    after = _places()
    changed: dict[str, Any] = {
        name: (before[name], after[name]) for name in before if before[name] != after[name]
    }
    for name, seeded in (("random.seed", seed), ("numpy.random.seed", legacy)):
        if given := [each.args for each in seeded.call_args_list if each.args not in ((), (None,))]:
            changed[name] = given
    return changed


def _places() -> dict[str, Any]:
    umask = os.umask(0o077)
    os.umask(umask)
    return {"the umask": oct(umask), "the working directory": str(Path.cwd())}
