"""Checkpoints that are written while training goes on."""

from __future__ import annotations

import functools
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

from ..devices import use_threads
from ..worker import Worker
from .snapshots import Snapshot

T = TypeVar("T")


class CheckpointWriter:
    """Writes a session's checkpoints, one at a time. All but `close` is for the thread that trains,
    which must call `detach` before it changes a weight or a moment.
    """

    def __init__(self) -> None:
        # It copies a chunk at a time, and training needs the other processors.
        self._worker = Worker(functools.partial(use_threads, 1))
        self._current: tuple[Snapshot, Future[str]] | None = None

    def start(self, tensors: Snapshot, save: Callable[[], str]) -> Future[str]:
        """Have a checkpoint written; wait for the one before, so that at most one is copied.

        Args:
            tensors: what is written.
            save: writes it, and returns its reference.

        Raises:
            SessionClosed: the writer was closed.
        """
        self.wait()
        written = self._worker.submit(save, "inquiry")
        written.add_done_callback(lambda _: tensors.release())
        self._current = tensors, written
        return written

    def detach(self) -> None:
        """Copy what is not written yet, since it is about to change."""
        if self._current is not None:
            self._current[0].detach()

    def wait(self) -> None:
        """Wait until nothing is being written. A failure is that of the checkpoint's future."""
        if self._current is not None:
            self._current[1].exception()
            self._current = None

    def close(self) -> None:
        """Wait for the checkpoint that is being written, and end the thread."""
        self._worker.close()


def chained(outer: Future[Future[T]]) -> Future[T]:
    """Return the future of what the result of another one waits for."""
    chain: Future[T] = Future()
    chain.set_running_or_notify_cancel()  # like the others, it cannot be cancelled

    def finish(inner: Future[T]) -> None:
        if error := inner.exception():
            chain.set_exception(error)
        else:
            chain.set_result(inner.result())

    def follow(outer: Future[Future[T]]) -> None:
        if error := outer.exception():
            chain.set_exception(error)
        else:
            outer.result().add_done_callback(finish)

    outer.add_done_callback(follow)
    return chain
