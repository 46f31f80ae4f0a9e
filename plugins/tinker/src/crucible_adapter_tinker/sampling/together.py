"""Many requests at a time, and what comes of each."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from itertools import islice
from typing import Any, TypeAlias

from crucible_kitchen import AdapterError, Unavailable

from ..failures import translated

Ask: TypeAlias = Callable[[], Any]
"""Sends a request; returns the SDK's future of the answer."""

LOOK_AFTER = 15.0
"""Seconds without an answer after which the server is asked whether it is still there."""


def together(
    what: str,
    asks: Sequence[Ask],
    most: int,
    check_reachable: Callable[[], None],
    lost_after: float,
) -> list[Any | AdapterError]:
    """Return the answer to each request, or its error, in order.

    Args:
        what: failed, if one did.
        asks: the requests.
        most: how many are in flight at a time.
        check_reachable: raises `AdapterError` if the server cannot be reached.
        lost_after: seconds for which it may be so: then all that is not answered fails.
    """
    results: list[Any | AdapterError] = [None] * len(asks)
    waiting = iter(enumerate(asks))
    pending: dict[Future[Any], int] = {}
    lost_since = None
    try:
        while True:
            for index, ask in islice(waiting, most - len(pending)):
                pending[_sent(ask)] = index
            if not pending:
                return results
            patience = min(LOOK_AFTER, lost_after)
            done = wait(pending, timeout=patience, return_when=FIRST_COMPLETED).done
            for future in done:
                results[pending.pop(future)] = _outcome(what, future)
            if done:
                lost_since = None
                continue
            try:
                check_reachable()
                lost_since = None
            except AdapterError as error:
                lost_since = lost_since or time.monotonic()
                if time.monotonic() - lost_since > lost_after:
                    failure = Unavailable(
                        f"the server has been out of reach for {lost_after:g} s: {error}"
                    )
                    for index in _unanswered(pending, waiting):
                        results[index] = failure
                    return results
    finally:
        for future in pending:  # the caller was interrupted, or the server is lost
            future.cancel()


def _sent(ask: Ask) -> Future[Any]:
    """Send a request; return the future of the answer, one that failed if it could not be sent."""
    try:
        answer = ask()
    except Exception as error:
        failed: Future[Any] = Future()
        failed.set_exception(error)
        return failed
    # Newer SDKs (0.38) wrap that of `concurrent.futures`.
    return answer.future() if hasattr(answer, "future") else answer  # type: ignore[no-any-return]


def _outcome(what: str, future: Future[Any]) -> Any | AdapterError:
    try:
        return future.result()
    except BaseException as error:
        return translated(what, error)


def _unanswered(
    pending: dict[Future[Any], int], waiting: Iterator[tuple[int, Ask]]
) -> Iterator[int]:
    yield from pending.values()
    for index, _ in waiting:
        yield index
