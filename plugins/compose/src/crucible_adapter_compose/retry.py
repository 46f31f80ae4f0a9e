"""Repeat what failed for a moment, where the contract allows it.

A call is repeated when the error says that this may help (`retryable`) and the call is repeatable,
or the error says that nothing was done (`no_effect`). So an optimizer step that may have been
applied is never sent again.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any, Generic

import tenacity
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
    stream that fails before its first item is begun again; one of a dataset store goes on at its
    row. Of a batch of completions only the failed ones are asked for again. When attempts or time
    are used up, the last error passes on.
    """

    @hookimpl
    def around(self, opts: RetryOptions[Any], call: Call) -> Any:
        began = time.monotonic()
        try:
            result = call()
        except AdapterError as error:
            if not _helps(call, error):
                raise
            result = _repeat(opts, call, began, _Attempts(error, _again(opts, call, began)))
        if isinstance(result, Stream):
            return RetriedStream(opts, call, result)
        if call.name == "complete_batch" and places(result, _retryable):
            return _repeat_items(opts, call, began, result)
        return result


def _helps(call: Call, error: BaseException | None) -> bool:
    """Say whether a failed call may be made again, and whether that may help."""
    if not (isinstance(error, AdapterError) and error.retryable and call.repeatable_after(error)):
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


class _Attempts:
    """The attempts of a call, of which the first was made, and failed, before tenacity took over.

    As long as nothing fails, tenacity costs nothing.
    """

    def __init__(self, first: Exception, again: Callable[[], Any]) -> None:
        self._first: Exception | None = first
        self._again = again

    def __call__(self) -> Any:
        if self._first is not None:
            first, self._first = self._first, None
            raise first
        return self._again()


def _repeat(
    opts: RetryOptions[Any], call: Call, began: float, attempts: Callable[[], Any], **more: Any
) -> Any:
    """Make attempts until one succeeds, or its error is not to be repeated, or enough is enough."""
    ways: dict[str, Any] = {
        "retry": tenacity.retry_if_exception(lambda error: _helps(call, error)),
        "retry_error_callback": lambda state: _give_up(opts, call, began, state),
    }
    return tenacity.Retrying(
        **(ways | more), wait=_Wait(opts), stop=_stop(opts, call, began), reraise=True
    )(attempts)


def _give_up(
    opts: RetryOptions[Any], call: Call, began: float, state: tenacity.RetryCallState
) -> None:
    """Raise the last error, or that the caller's time is over if that is why there is no more."""
    assert state.outcome is not None
    error = state.outcome.exception()
    assert isinstance(error, AdapterError)
    if (timeout := _timeout(call)) is not None and state.attempt_number < opts.max_attempts:
        next_one = time.monotonic() - began + state.upcoming_sleep
        if next_one >= timeout:
            raise AdapterTimeout(
                f"no answer within {timeout} s; the last attempt failed: {error.reason}"
            ) from error
    raise error


def _stop(opts: RetryOptions[Any], call: Call, began: float) -> Any:
    stop: Any = tenacity.stop_after_attempt(opts.max_attempts)
    passed = time.monotonic() - began
    for limit in (opts.deadline, _timeout(call)):
        if limit is not None:
            stop |= tenacity.stop_before_delay(limit - passed)
    return stop


class _Wait(tenacity.wait.wait_base):
    """Wait longer each time, and never less than the backend asked for."""

    def __init__(self, opts: RetryOptions[Any]) -> None:
        # Not wait_exponential_jitter: how it is told where to begin differs by version.
        self._longer = tenacity.wait_exponential(multiplier=opts.wait, max=opts.max_wait)
        self._by_chance = tenacity.wait_random(0, opts.wait)
        self._longest = opts.max_wait

    def __call__(self, state: tenacity.RetryCallState) -> float:
        outcome = state.outcome
        assert outcome is not None
        failures = [outcome.exception()] if outcome.failed else outcome.result()
        asked = [e.retry_after for e in failures if isinstance(e, RateLimited) and e.retry_after]
        backoff = min(self._longer(state) + self._by_chance(state), self._longest)
        return max([backoff, *asked])


def _repeat_items(
    opts: RetryOptions[Any], call: Call, began: float, results: list[Any]
) -> list[Any]:
    """Ask again for the items of a batch that failed for a moment."""
    newest: list[Any] | None = None

    def attempt() -> list[Any]:
        nonlocal newest
        if newest is None:
            newest = results
        else:
            newest = ask_again(call, opts.inner, newest, places(newest, _retryable))
        return newest

    found: list[Any] = _repeat(
        opts,
        call,
        began,
        attempt,
        retry=tenacity.retry_if_result(lambda results: bool(places(results, _retryable))),
        retry_error_callback=lambda state: state.outcome and state.outcome.result(),
    )
    return found


_END = object()


class RetriedStream(Iterator[Any]):
    """A stream that is begun again if it fails where nothing is lost and nothing is repeated.

    That is before the first item, since streams are repeatable. Later it is so for a dataset
    store alone: its handles never change, so `skip` leads to the row where it was. A blob may
    have been replaced meanwhile, and a completion may come out otherwise.

    Args:
        opts: how to repeat.
        call: the call that began the stream.
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
            if not (self._can_begin_again and _helps(self._call, error)):
                raise
            item = _repeat(self._opts, self._call, began, _Attempts(error, self._begin_again))
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
