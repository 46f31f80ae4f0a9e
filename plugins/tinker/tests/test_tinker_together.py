"""Many requests at a time: bounded, in order, and none lost with another."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

import pytest
from crucible_adapter_tinker.sampling.together import together
from crucible_kitchen import AdapterError, AdapterTimeout, Unavailable

pytest.importorskip("tinker")


def reachable() -> None:
    """The server answers."""


def unreachable() -> None:
    raise Unavailable("connection refused")


def answered(result: Any) -> Callable[[], Future[Any]]:
    def ask() -> Future[Any]:
        future: Future[Any] = Future()
        future.set_result(result)
        return future

    return ask


def test_answers_come_in_the_order_of_the_requests() -> None:
    futures: list[Future[int]] = [Future() for _ in range(3)]

    def last() -> Future[int]:
        for k in (2, 0, 1):
            futures[k].set_result(k)
        return futures[2]

    asks = [lambda: futures[0], lambda: futures[1], last]
    assert together("it failed", asks, 8, reachable, 60) == [0, 1, 2]


def test_no_more_requests_than_allowed_are_in_flight() -> None:
    total, allowed, most = 20, 3, 0
    sent: list[Future[int]] = []
    arrived: queue.SimpleQueue[Future[int]] = queue.SimpleQueue()

    def ask() -> Future[int]:
        nonlocal most
        sent.append(Future())
        arrived.put(sent[-1])
        most = max(most, sum(not future.done() for future in sent))
        return sent[-1]

    def serve() -> None:
        """Answer one whenever as many are there as may be, or all that are left."""
        here: list[Future[int]] = []
        for answered in range(total):
            while len(here) < min(allowed, total - answered):
                here.append(arrived.get())
            here.pop(0).set_result(0)

    server = threading.Thread(target=serve)
    server.start()
    assert together("it failed", [ask] * total, allowed, reachable, 60) == [0] * total
    server.join()
    assert most == allowed


def test_a_request_that_fails_does_not_lose_the_others() -> None:
    def unsent() -> Future[Any]:
        raise TimeoutError

    failed: Future[Any] = Future()
    failed.set_exception(TimeoutError())
    asks = [answered(1), unsent, lambda: failed, answered(2)]
    first, second, third, fourth = together("it failed", asks, 1, reachable, 60)
    assert (first, fourth) == (1, 2)
    assert isinstance(second, AdapterTimeout)
    assert isinstance(third, AdapterTimeout)


def test_futures_of_newer_sdks_are_waited_for() -> None:
    class Wrapped:
        def future(self) -> Future[Any]:
            return answered(7)()

    assert together("it failed", [Wrapped], 8, reachable, 60) == [7]


def test_a_server_that_is_lost_fails_what_it_has_not_answered() -> None:
    never: Future[Any] = Future()
    asks = [answered(1), lambda: never, answered(2)]
    first, lost, last = together("it failed", asks, 2, unreachable, 0.01)
    assert (first, last) == (1, 2)
    assert isinstance(lost, Unavailable)
    assert "out of reach for 0.01 s: connection refused" in str(lost)
    assert never.cancelled()


def test_an_interrupted_wait_cancels_what_is_in_flight() -> None:
    never: Future[Any] = Future()

    def interrupt() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        together("it failed", [lambda: never], 2, interrupt, 0.01)
    assert never.cancelled()


def test_of_no_requests_there_are_no_answers() -> None:
    results: list[Any | AdapterError] = together("it failed", [], 2, unreachable, 60)
    assert results == []
