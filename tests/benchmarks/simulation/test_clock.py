"""Virtual time is that of the threads that live in it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial

import pytest
from crucible_adapter_compose.turns import FairSemaphore, Pace

from .clock import Stuck, VirtualTime

DAY = 86_400.0


def sleep(seconds: float) -> None:
    time.sleep(seconds)  # looked up when it is called


def after(seconds: float, call: Callable[[], None]) -> None:
    time.sleep(seconds)
    call()


@pytest.fixture
def clock() -> VirtualTime:
    return VirtualTime()


def test_a_day_of_sleep_passes_at_once(clock: VirtualTime) -> None:
    began = time.monotonic()
    clock.run(partial(sleep, DAY))
    assert clock.now == DAY
    assert time.monotonic() - began < 5


def test_threads_sleep_side_by_side(clock: VirtualTime) -> None:
    clock.run(lambda: clock.every([partial(sleep, n) for n in range(100)]))
    assert clock.now == 99


def test_threads_take_turns_in_the_order_of_their_times(clock: VirtualTime) -> None:
    woken: list[tuple[float, int]] = []

    def wake(seconds: int) -> None:
        sleep(seconds % 7)
        woken.append((time.monotonic(), seconds))

    clock.run(lambda: clock.every([partial(wake, n) for n in range(50)]))
    assert woken == sorted(woken, key=lambda each: each[0])
    assert [seconds for _, seconds in woken] == sorted(range(50), key=lambda n: n % 7)


def test_a_wait_with_a_timeout_ends_at_its_time(clock: VirtualTime) -> None:
    assert not clock.run(lambda: threading.Event().wait(DAY))
    assert clock.now == DAY


def test_an_event_wakes_the_thread_that_waits_for_it(clock: VirtualTime) -> None:
    def work() -> float:
        event = threading.Event()
        clock.spawn(partial(after, 60, event.set))
        assert event.wait(DAY)
        return time.monotonic()

    assert clock.run(work) == 60


def test_the_result_of_a_future_is_waited_for_in_virtual_time(clock: VirtualTime) -> None:
    def work() -> str:
        future: Future[str] = Future()
        clock.spawn(partial(after, DAY, partial(future.set_result, "done")))
        return future.result()

    assert clock.run(work) == "done"
    assert clock.now == DAY


def test_a_semaphore_of_compose_admits_as_many_as_it_should(clock: VirtualTime) -> None:
    def work() -> None:
        slots = FairSemaphore(5)

        def hold() -> None:
            owner = slots.acquire()
            time.sleep(10)
            slots.release(owner)

        clock.every([hold] * 20)

    clock.run(work)
    assert clock.now == 40


def test_a_pace_of_compose_is_kept(clock: VirtualTime) -> None:
    def work() -> None:
        pace = Pace(rate=2)
        clock.every([pace.wait] * 11)

    clock.run(work)
    assert clock.now == 5


def test_the_run_ends_when_every_thread_has(clock: VirtualTime) -> None:
    clock.run(lambda: clock.spawn(partial(sleep, DAY)))
    assert clock.now == DAY


def test_an_error_of_a_thread_is_raised(clock: VirtualTime) -> None:
    def fail() -> None:
        raise LookupError("lost")

    with pytest.raises(LookupError, match="lost"):
        clock.run(lambda: clock.every([partial(sleep, 1), fail]))


def test_a_deadlock_is_an_error(clock: VirtualTime) -> None:
    with pytest.raises(Stuck, match="none will release"):
        clock.run(lambda: threading.Event().wait())


def test_other_threads_keep_the_time_of_the_wall(clock: VirtualTime) -> None:
    asked, told = threading.Event(), []

    def elsewhere() -> None:
        asked.wait()
        told.append(time.monotonic())

    thread = threading.Thread(target=elsewhere)
    thread.start()
    before = time.monotonic()

    def work() -> None:
        time.sleep(DAY)
        asked.set()

    clock.run(work)
    thread.join()
    assert before <= told[0] < before + 60


def test_the_functions_of_time_are_put_back(clock: VirtualTime) -> None:
    before = time.sleep, time.monotonic, time.perf_counter, threading.Lock, threading.Thread.start
    with pytest.raises(ZeroDivisionError):
        clock.run(lambda: 1 / 0)
    assert before == (
        time.sleep,
        time.monotonic,
        time.perf_counter,
        threading.Lock,
        threading.Thread.start,
    )
