"""Weights that a training client publishes for the completers of the same process."""

from __future__ import annotations

import threading
import uuid
from dataclasses import dataclass
from typing import Any

from crucible_kitchen import NotFound

PREFIX = "tinker-live:"


@dataclass(frozen=True, eq=False)
class Live:
    """Weights to sample from.

    Args:
        sampler: the SDK's client that samples from them; None where `path` is all there is.
        path: a checkpoint on the server, of the same weights.
    """

    sampler: Any = None
    path: str = ""


_published: dict[str, Live] = {}
_lock = threading.Lock()


def publish(weights: Live) -> str:
    """Offer weights; return a reference never used before."""
    reference = f"{PREFIX}{uuid.uuid4().hex}"
    with _lock:
        _published[reference] = weights
    return reference


def withdraw(reference: str | None) -> None:
    """Unpublish weights. Samplers already using them may finish."""
    with _lock:
        _published.pop(reference or "", None)


def find(reference: str) -> Live:
    """Return published weights.

    Raises:
        NotFound: they were withdrawn, or published in another process.
    """
    with _lock:
        if reference in _published:
            return _published[reference]
    raise NotFound(
        f"no weights {reference!r}: they are valid in the process that saved them, until its "
        "session saves the next ones or is closed; save them with a name to keep them"
    )
