"""A checkpoint on its way: what a run was when it was submitted, and whether it is durable."""

from __future__ import annotations

import contextvars
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass

from ...events import Span
from ..standing import Standing


@dataclass(frozen=True, slots=True, eq=False)
class Saving:
    """A checkpoint that was submitted, with everything that belongs to its moment.

    Args:
        step: how many optimizer steps it holds.
        keep: how many of the last checkpoints to keep.
        metrics: the last value of every metric.
        standing: what the evaluations have shown.
        span: the span of saving it.
        reference: ends when it is durable.
    """

    step: int
    keep: int
    metrics: Mapping[str, float]
    standing: Standing
    span: Span
    reference: Future[str]


def known(reference: str) -> Future[str]:
    """Return the future of a checkpoint that is durable already."""
    future: Future[str] = Future()
    future.set_result(reference)
    return future


def awaited(wait: Callable[[], str]) -> Future[str]:
    """Wait for a checkpoint in a thread, so that a training loop can ask whether it is durable.

    Asking the client itself would be a failed call, an `AdapterTimeout`, each time that it is not.
    """
    future: Future[str] = Future()

    def work() -> None:
        try:
            future.set_result(wait())
        except BaseException as error:
            future.set_exception(error)

    context = contextvars.copy_context()  # the call belongs to the span of the checkpoint
    name = "crucible-checkpoint"
    threading.Thread(target=context.run, args=(work,), name=name, daemon=True).start()
    return future
