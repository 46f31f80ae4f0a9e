"""Repeat what failed for a moment, where the contract allows it.

A call is repeated when the error says that this may help (`retryable`) and the call is repeatable,
or the error says that nothing was done (`no_effect`). So an optimizer step that may have been
applied is never sent again.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Generic

from crucible_kitchen import (
    AdapterError,
    AdapterOptions,
    AdapterTimeout,
    BlobStore,
    Call,
    Completer,
    DatasetStore,
    HubClient,
    MetricsStore,
    RateLimited,
    Stream,
    TrainingClient,
    hookimpl,
)
from pydantic import Field

from .batches import ask_again, places
from .wrapper import PortT, Wrapper


class RetryOptions(AdapterOptions, Generic[PortT]):
    inner: PortT
    """Where the calls go."""
    max_attempts: int = Field(default=5, ge=1)
    """How often a call is made at most, the first time included."""
    wait: float = Field(default=0.5, ge=0, allow_inf_nan=False)
    """Seconds before the second attempt, and up to as many again by chance. Doubles with each
    attempt; where the backend said how long to wait, it is not less than that."""
    max_wait: float = Field(default=30.0, ge=0, allow_inf_nan=False)
    """Longest wait in seconds that the doubling leads to."""
    deadline: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    """Seconds from the beginning of a call after which no attempt begins."""


class Retry(Wrapper):
    """Repeat what failed for a moment, where the contract allows it.

    A call is repeated when its error is retryable and the call is repeatable, or the error says
    that nothing was done: an optimizer step that may have been applied is never sent again. A
    stream that fails before its first item is started again; one of a dataset store continues at
    its row. Of a batch of completions only the failed ones are asked for again. When attempts or
    time are used up, the last error is raised.
    """

    @hookimpl
    def around(self, opts: RetryOptions[Any], call: Call) -> Any:
        began = time.monotonic()
        try:
            result = call()
        except AdapterError as error:
            result = _repeat(opts, call, began, error, _again(opts, call, began))
        if isinstance(result, Stream):
            return RetriedStream(opts, call, result)
        if call.name == "complete_batch" and places(result, _retryable):
            return _repeat_items(opts, call, began, result)
        return result


def _repeat(
    opts: RetryOptions[Any],
    call: Call,
    began: float,
    error: AdapterError,
    again: Callable[[], Any],
) -> Any:
    """Make further attempts until one succeeds.

    Args:
        opts: how often, and when.
        call: the call whose first attempt failed.
        began: when, in seconds of `time.monotonic`.
        error: what the first attempt failed with.
        again: makes an attempt.

    Raises:
        AdapterTimeout: the time that the caller gave would be over before the next attempt.
        AdapterError: the last attempt's, if it is not to be repeated, or attempts are used up.
    """
    for attempt in range(1, opts.max_attempts):
        if not _helps(call, error):
            raise error
        pause = _pause(opts, attempt, [error])
        passed = time.monotonic() - began + pause
        if (timeout := _timeout(call)) is not None and passed >= timeout:
            raise AdapterTimeout(
                f"no answer within {timeout} s; the last attempt failed: {error.reason}"
            ) from error
        if opts.deadline is not None and passed >= opts.deadline:
            raise error
        time.sleep(pause)
        try:
            return again()
        except AdapterError as failure:
            error = failure
    raise error


def _repeat_items(
    opts: RetryOptions[Any], call: Call, began: float, results: list[Any]
) -> list[Any]:
    """Ask again for the items of a batch that failed for a moment."""
    for attempt in range(1, opts.max_attempts):
        failed = places(results, _retryable)
        if not failed:
            break
        pause = _pause(opts, attempt, [results[k] for k in failed])
        if opts.deadline is not None and time.monotonic() - began + pause >= opts.deadline:
            break
        time.sleep(pause)
        results = ask_again(call, opts.inner, results, failed)
    return results


def _pause(opts: RetryOptions[Any], attempt: int, failures: Iterable[AdapterError]) -> float:
    """Return the seconds from a failed attempt, counted from 1, to the next.

    They double with each attempt, and are never less than a backend asked for.
    """
    doubled = opts.wait * 2.0 ** min(attempt - 1, 1000)  # beyond, a float overflows
    backoff = min(doubled + _JITTER.uniform(0, opts.wait), opts.max_wait)
    return max([backoff, *(e.retry_after or 0 for e in failures if isinstance(e, RateLimited))])


def _helps(call: Call, error: AdapterError) -> bool:
    """Say whether a failed call may be made again, and whether that may help."""
    if not (error.retryable and call.repeatable_after(error)):
        return False
    # The time that the caller gave has passed: that is the answer, not a failure.
    return not (isinstance(error, AdapterTimeout) and _timeout(call) is not None)


def _again(opts: RetryOptions[Any], call: Call, began: float) -> Callable[[], Any]:
    """Return the call, with what is left of the time that its caller gives it."""
    if (timeout := _timeout(call)) is None:
        return call
    return lambda: call.on(opts.inner, timeout=max(timeout - (time.monotonic() - began), 0.0))


def _timeout(call: Call) -> float | None:
    """Return how many seconds the caller is willing to wait, where it says."""
    timeout: float | None = call.arguments["timeout"] if call.name == "await_" else None
    return timeout


def _retryable(error: AdapterError) -> bool:
    return error.retryable


_END = object()
_JITTER = random.Random()
"""Its own generator: that of `random` is the program's, which may have seeded it."""


class RetriedStream(Iterator[Any]):
    """A stream that is started again if it fails where nothing is lost and nothing is repeated.

    That is before the first item, since streams are repeatable. Later it holds for a dataset
    store alone: its handles never change, so `skip` leads to the row where it was. A blob may
    have been replaced meanwhile, and a completion may differ.

    Args:
        opts: how to repeat.
        call: the call that started the stream.
        stream: what it returned.
    """

    def __init__(self, opts: RetryOptions[Any], call: Call, stream: Stream[Any]) -> None:
        self._opts = opts
        self._call = call
        self._stream = stream
        self._taken = 0  # items, and of a dataset store rows

    def __next__(self) -> Any:
        began = time.monotonic()
        try:
            item = next(self._stream, _END)
        except AdapterError as error:
            if not self._can_begin_again:
                raise
            item = _repeat(self._opts, self._call, began, error, self._begin_again)
        if item is _END:
            raise StopIteration
        self._taken += len(item) if isinstance(item, list) else 1
        return item

    def close(self) -> None:
        """Free what the stream holds."""
        self._stream.close()

    @property
    def _can_begin_again(self) -> bool:
        return not self._taken or self._call.port == "dataset_store"

    def _begin_again(self) -> Any:
        """Return the next item of a new stream. The old one closed itself when it failed."""
        inner = self._opts.inner
        if self._taken:
            rest = inner.skip(self._call.arguments["handle"], self._taken)
            self._stream = self._call.on(inner, handle=rest)
        else:
            self._stream = self._call()
        return next(self._stream, _END)


training_client = Retry("retry", RetryOptions[TrainingClient])
dataset_store = Retry("retry", RetryOptions[DatasetStore])
blob_store = Retry("retry", RetryOptions[BlobStore])
hub_client = Retry("retry", RetryOptions[HubClient])
metrics_store = Retry("retry", RetryOptions[MetricsStore])
completer = Retry("retry", RetryOptions[Completer])
