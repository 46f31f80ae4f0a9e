"""The operations of a session: sent in the order of submission, and awaited in it."""

from __future__ import annotations

import concurrent.futures
import queue
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias, TypeVar

from crucible_kitchen import AdapterError, SessionClosed, SessionFailed, Unavailable

from ..failures import translated

T = TypeVar("T")

Kind: TypeAlias = Literal["operation", "inquiry", "rescue"]
"""A failed operation fails the session, a failed inquiry does not, and a rescue is done for a
session that failed and, if it succeeds, revives it."""

LOOK_AFTER = 15.0
"""Seconds without a result after which the server is asked whether it is still there."""


@dataclass(frozen=True)
class _Job:
    what: str
    send: Callable[[], Iterable[Any]] | None
    finish: Callable[[Any], Any]
    kind: Kind
    pending: list[Any] = field(default_factory=list)
    future: Future[Any] = field(default_factory=Future)


class Operations:
    """What was submitted and has no result yet.

    Sent ahead, it keeps the server busy, which works in the order of its queue and goes on after a
    failure; so this tells what is worth nothing. Where what follows a failure does harm, an
    operation is sent as soon as all before it have succeeded.

    Args:
        check_reachable: raises `AdapterError` if the server cannot be reached.
        lost_after: seconds for which it may be so.
        ahead: whether operations are sent while others before them have no result.
        failed: called when an operation has failed.
    """

    def __init__(
        self,
        check_reachable: Callable[[], None],
        lost_after: float,
        ahead: bool,
        failed: Callable[[], None],
    ) -> None:
        self._check_reachable = check_reachable
        self._lost_after = lost_after
        self._ahead = ahead
        self._has_failed = failed
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._unfinished = 0
        self._current: Sequence[Any] = ()
        self._failure: AdapterError | None = None
        self._closed = threading.Event()
        self._lock = threading.Lock()
        # A daemon, so that a forgotten session does not keep the process alive.
        self._thread = threading.Thread(
            target=self._work, name="crucible-tinker-session", daemon=True
        )
        self._thread.start()

    def submit(
        self,
        what: str,
        send: Callable[[], Iterable[Any]],
        finish: Callable[[Any], T],
        kind: Kind = "operation",
    ) -> Future[T]:
        """Send an operation; return the future of its result.

        Args:
            what: failed, if it did.
            send: sends it; gives the SDK's futures, one after each request. Empty for what `finish`
                does itself.
            finish: makes the result, from that of the last of them, after all before.
            kind: what a failure means.

        Raises:
            SessionClosed: the session was closed.
            SessionFailed: an operation failed.
        """
        with self._lock:
            self.check(kind)
            now = self._ahead or not self._unfinished
            sent: list[Any] = []
            try:
                for each in send() if now else ():
                    sent.append(each)  # those before one that raises are kept
            except Exception as error:
                failure = translated(what, error)
                if sent:  # half an operation: the server has what no result will tell
                    _cancel(sent)
                    self._put(_Job(what, None, _raiser(failure), "operation"))
            else:
                job = _Job(what, None if now else send, finish, kind, sent)
                job.future.set_running_or_notify_cancel()  # an operation cannot be cancelled
                self._put(job)
                return job.future
        raise failure

    def _put(self, job: _Job) -> None:
        self._unfinished += 1
        self._jobs.put(job)

    def check(self, kind: Kind = "operation") -> None:
        """Raise what `submit` would raise at this moment."""
        if self._closed.is_set():
            raise SessionClosed("the session was closed; start another")
        if self._failure is not None and kind != "rescue":
            raise SessionFailed(
                f"an earlier operation failed ({type(self._failure).__name__}: {self._failure}); "
                "load a checkpoint to continue, or close the session"
            )

    @property
    def failed(self) -> bool:
        return self._failure is not None

    def close(self) -> None:
        """End the futures of what is queued, and the thread."""
        with self._lock:
            if not self._closed.is_set():
                self._closed.set()
                self._jobs.put(None)
        _cancel(self._current)
        self._thread.join()

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            result: Any = None
            try:
                self.check(job.kind)
                if job.send is not None:
                    job.pending.extend(job.send())
                result = job.finish(self._result(job.pending))
            except (SessionClosed, SessionFailed) as refusal:
                self._end(job)
                job.future.set_exception(refusal)
                continue
            except BaseException as error:
                failure = translated(job.what, error, refusal=AdapterError)
                if self._closed.is_set():
                    failure = SessionClosed("the session was closed before the server had finished")
            else:
                if job.kind == "rescue":
                    self._failure = None
                self._end(job)
                job.future.set_result(result)
                del job, result  # or its batch would stay in memory until the next one
                continue
            if job.kind == "operation":
                self._failure = failure
                self._has_failed()
            self._end(job)
            job.future.set_exception(failure)
            del job, failure

    def _end(self, job: _Job) -> None:
        _cancel(job.pending)
        with self._lock:
            self._unfinished -= 1

    def _result(self, pending: Sequence[Any]) -> Any:
        """Wait for the SDK's futures; return the result of the last."""
        result, lost_since = None, None
        self._current = pending
        for each in pending:
            inner: Future[Any] = each.future()
            while not concurrent.futures.wait([inner], timeout=self._patience()).done:
                try:
                    self._check_reachable()
                    lost_since = None
                except AdapterError as error:
                    lost_since = lost_since or time.monotonic()
                    if time.monotonic() - lost_since > self._lost_after:
                        raise Unavailable(
                            f"the server has been out of reach for {self._lost_after:g} s: {error}"
                        ) from None
            result = inner.result()
        return result

    def _patience(self) -> float:
        return min(LOOK_AFTER, self._lost_after)


def _raiser(failure: AdapterError) -> Callable[[Any], Any]:
    def finish(_: Any) -> Any:
        raise failure

    return finish


def _cancel(pending: Sequence[Any]) -> None:
    """Stop asking for results; the server is not stopped."""
    for each in pending:
        each.future().cancel()
