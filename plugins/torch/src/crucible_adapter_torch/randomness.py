"""PyTorch's own random generators, which the whole process shares."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator

import numpy as np
import torch

_GENERATORS = threading.RLock()


@contextlib.contextmanager
def seeded(seed: int, device: torch.device | None = None) -> Iterator[None]:
    """Seed the generators within the block, one thread at a time, and restore them after it.

    Args:
        seed: any integer; as `in_64_bits` has it.
        device: where numbers are drawn in addition to the CPU.
    """
    cuda = [device] if device is not None and device.type == "cuda" else []
    with _GENERATORS, torch.random.fork_rng(cuda):
        torch.manual_seed(in_64_bits(seed))
        yield


def in_64_bits(seed: int) -> int:
    """Return any integer as a seed for `torch.manual_seed` and NumPy: itself where it has 64 bits.

    A negative one is mixed, for PyTorch and NumPy know none: -1 would be 2**64 - 1. So is one of
    more bits.
    """
    if 0 <= seed < 2**64:
        return seed
    mixed = np.random.SeedSequence([abs(seed), seed < 0])
    return int(mixed.generate_state(1, np.uint64)[0])
