"""One thread that runs a session's operations in the order of submission.

The names of this module may be used by any package.
"""

from __future__ import annotations

import atexit
import queue
import threading
import weakref
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias, TypeVar

from crucible_kitchen import SessionClosed, SessionFailed

T = TypeVar("T")

Kind: TypeAlias = Literal["operation", "inquiry", "rescue"]
"""A failed operation fails the worker, a failed inquiry does not, and a rescue runs on a failed
worker and, if it succeeds, revives it."""


@dataclass(frozen=True, slots=True)
class _Job:
    run: Callable[[], Any]
    kind: Kind
    future: Future[Any] = field(default_factory=Future)


class Worker:
    """Runs jobs one by one; after a failure, the jobs behind it are refused.

    Args:
        prepare: called first, in the thread.
    """

    def __init__(self, prepare: Callable[[], None]) -> None:
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._failure: BaseException | None = None
        self._closed = False
        self._lock = threading.Lock()
        # A daemon, so that a forgotten session does not keep the process alive.
        self._thread = threading.Thread(
            target=self._work, args=(prepare,), name="crucible-torch-session", daemon=True
        )
        self._thread.start()
        _alive.add(self)

    def submit(self, run: Callable[[], T], kind: Kind = "operation") -> Future[T]:
        """Queue a job and return the future of its result.

        Raises:
            SessionClosed: the worker was closed.
            SessionFailed: an operation failed.
        """
        job = _Job(run, kind)
        job.future.set_running_or_notify_cancel()  # an operation cannot be cancelled
        with self._lock:
            self.check(kind)
            self._jobs.put(job)
        return job.future

    def close(self) -> None:
        """Drop what is queued, wait for the job that is running, and end the thread."""
        with self._lock:
            if not self._closed:
                self._closed = True
                self._jobs.put(None)
        self._thread.join()

    def check(self, kind: Kind = "operation") -> None:
        """Raise what `submit` would raise at this moment."""
        if self._closed:
            raise SessionClosed("the session was closed; start another")
        if self._failure is not None and kind != "rescue":
            raise SessionFailed(
                f"an earlier operation failed ({type(self._failure).__name__}: {self._failure}); "
                "load a checkpoint to continue, or close the session"
            )

    def _work(self, prepare: Callable[[], None]) -> None:
        prepare()
        while (job := self._jobs.get()) is not None:
            try:
                self.check(job.kind)
            except (SessionClosed, SessionFailed) as refusal:
                job.future.set_exception(refusal)
                continue
            try:
                result = job.run()
            except BaseException as error:
                if job.kind == "operation":
                    self._failure = error
                job.future.set_exception(error)
            else:
                if job.kind == "rescue":
                    self._failure = None
                job.future.set_result(result)
            del job  # or its batch would stay in memory until the next one


_alive: weakref.WeakSet[Worker] = weakref.WeakSet()


@atexit.register
def _close_all() -> None:
    # A daemon thread inside PyTorch while the interpreter is torn down crashes the process.
    for worker in list(_alive):
        worker.close()
