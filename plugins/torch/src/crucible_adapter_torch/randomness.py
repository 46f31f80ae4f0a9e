"""PyTorch's own random generators, which the whole process shares."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator

import torch

_GENERATORS = threading.RLock()


@contextlib.contextmanager
def seeded(seed: int, device: torch.device | None = None) -> Iterator[None]:
    """Seed the generators within the block, one thread at a time, and restore them after it.

    Args:
        seed: any integer that `torch.manual_seed` takes.
        device: where numbers are drawn in addition to the CPU.
    """
    cuda = [device] if device is not None and device.type == "cuda" else []
    with _GENERATORS, torch.random.fork_rng(cuda):
        torch.manual_seed(seed)
        yield
