"""How many calls `limit` lets through, when, and in which order."""

from __future__ import annotations

import gc
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
from crucible_adapter_compose import limit, retry, turns
from crucible_kitchen import (
    AdapterOptions,
    AdapterTimeout,
    BlobStore,
    ConfigurationError,
    NotFound,
    OptimStepResult,
    TrainingClient,
    Unavailable,
    hookimpl,
)

import kitchen_noop

Bind = Callable[..., Any]
NOOP = {"use": kitchen_noop.blob_store, "latency_scale": 0}


class Gate:
    """A blob store in front of a noop that holds every call until `let_go`."""

    class Options(AdapterOptions):
        inner: BlobStore

    def __init__(self) -> None:
        self.inside = 0
        self.most = 0
        self.entered: list[str] = []
        self.changed = threading.Condition()
        self._go = threading.Semaphore(0)

    @hookimpl
    def around(self, call: Any) -> Any:
        with self.changed:
            self.inside += 1
            self.most = max(self.most, self.inside)
            self.entered.append(call.arguments.get("path", ""))
            self.changed.notify_all()
        self._go.acquire()
        try:
            return call()
        finally:
            with self.changed:
                self.inside -= 1

    def let_go(self, count: int = 1) -> None:
        self._go.release(count)

    def wait_until(self, entered: int) -> None:
        with self.changed:
            assert self.changed.wait_for(lambda: len(self.entered) >= entered, timeout=30)


def started(target: Callable[[], Any]) -> threading.Thread:
    thread = threading.Thread(target=target, daemon=True)
    thread.start()
    return thread


def waiting(store: Any) -> int:
    """How many calls wait for a slot."""
    made = limit._limits.peek(store.options)
    return 0 if made is None or made[0] is None else len(made[0]._waiting)


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.001)


@pytest.fixture
def gate() -> Gate:
    return Gate()


@pytest.fixture
def gated(bind: Bind, gate: Gate) -> Callable[..., Any]:
    def make(**options: Any) -> Any:
        return bind("blob_store", limit.blob_store, inner={"use": gate, "inner": NOOP}, **options)

    return make


def test_no_more_calls_than_the_limit_are_inside_at_once(gated: Any, gate: Gate) -> None:
    store = gated(concurrency=3)
    with ThreadPoolExecutor(12) as pool:
        calls = [pool.submit(store.exists, f"{n}") for n in range(60)]
        gate.wait_until(entered=3)
        until(lambda: waiting(store) == 9)
        gate.let_go(60)
        assert [call.result() for call in calls] == [False] * 60
    assert gate.most == 3


def test_those_that_wait_are_let_in_in_the_order_in_which_they_came(gated: Any, gate: Gate) -> None:
    store = gated(concurrency=1)
    threads = []
    for number in range(8):
        threads.append(started(partial(store.exists, f"{number}")))
        until(lambda: waiting(store) == number)  # noqa: B023
        gate.wait_until(entered=1)
    for number in range(8):
        gate.let_go()
        if number < 7:
            gate.wait_until(entered=number + 2)
    for thread in threads:
        thread.join()
    assert gate.entered == [f"{n}" for n in range(8)]


def test_a_failed_call_gives_its_place_back(bind: Bind) -> None:
    store = bind("blob_store", limit.blob_store, inner=NOOP, concurrency=1)
    for _ in range(3):
        with pytest.raises(NotFound):
            store.read("a")
    assert store.exists("a") is False


# --- streams ---


@pytest.fixture
def alone(bind: Bind) -> Any:
    """A store that lets one call through at a time, with two blobs of three pieces."""
    store = bind("blob_store", limit.blob_store, inner=NOOP, concurrency=1)
    store.write("a", b"123")
    store.write("b", b"456")
    return store


def test_a_stream_is_a_call_until_it_ends(alone: Any) -> None:
    stream = alone.stream("a", chunk_size=1)
    assert next(stream) == b"1"
    other = started(lambda: alone.exists("a"))
    until(lambda: waiting(alone) == 1)
    assert list(stream) == [b"2", b"3"]
    other.join(30)
    assert not other.is_alive()


@pytest.mark.parametrize("leave", ["closed", "forgotten", "failed"])
def test_a_stream_that_is_left_early_gives_its_place_back(alone: Any, leave: str) -> None:
    stream = alone.stream("nowhere" if leave == "failed" else "a", chunk_size=1)
    other = started(lambda: alone.exists("a"))
    until(lambda: waiting(alone) == 1)
    if leave == "closed":
        stream.close()
    elif leave == "failed":
        with pytest.raises(NotFound):
            next(stream)
    else:
        del stream
        gc.collect()
    other.join(30)
    assert not other.is_alive()


def test_a_stream_may_be_closed_by_another_thread(alone: Any) -> None:
    stream = alone.stream("a")
    started(stream.close).join(30)
    other = started(lambda: alone.exists("a"))
    other.join(30)
    assert not other.is_alive()


def test_a_call_inside_a_call_does_not_wait_for_itself(alone: Any) -> None:
    alone.write("copy", alone.stream("a", chunk_size=1))
    for piece in alone.stream("a", chunk_size=1):
        alone.write(f"piece {piece!r}", piece)

    def pieces() -> Iterator[bytes]:
        yield alone.read("a")
        yield from alone.stream("b")

    alone.write("both", pieces())
    assert alone.read("copy") == b"123"
    assert alone.read("both") == b"123456"


# --- rate ---


class Clock:
    """A clock that sleeping advances; `slept` has the times at which sleepers woke."""

    def __init__(self) -> None:
        self.now = 0.0
        self.slept: list[float] = []

    def monotonic(self) -> float:
        return 1000.0 + self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        self.slept.append(self.now)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(turns, "time", clock)
    return clock


def test_calls_are_evenly_spaced(bind: Bind, clock: Clock) -> None:
    store = bind(
        "metrics_store", limit.metrics_store, inner={"use": kitchen_noop.metrics_store}, rate=4
    )
    for step in range(5):
        store.record("run", "x", 1.0, step)
    assert clock.slept == [0.25, 0.5, 0.75, 1.0]


def test_time_that_was_not_used_is_not_credited(clock: Clock) -> None:
    pace = turns.Pace(2.0)
    pace.wait()
    pace.wait()
    assert clock.slept == [0.5]
    clock.now = 100.5
    for _ in range(3):
        pace.wait()
    assert clock.slept[1:] == [101.0, 101.5]


def test_a_rate_holds_under_threads(bind: Bind) -> None:
    store = bind("blob_store", limit.blob_store, inner=NOOP, rate=200)
    began = time.monotonic()
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(store.exists, map(str, range(41))))
    assert time.monotonic() - began >= 40 / 200


def test_a_repetition_behind_a_limit_counts_and_one_before_it_does_not(
    bind: Bind, scripted: Any, clock: Clock
) -> None:
    failing = scripted("blob_store", Unavailable("x"), Unavailable("x")).table
    limited = {"use": limit.blob_store, "rate": 1, "inner": failing}
    bind("blob_store", retry.blob_store, inner=limited, wait=0).exists("a")
    assert clock.slept == [1.0, 2.0]
    clock.slept.clear()
    failing = scripted("blob_store", Unavailable("x"), Unavailable("x")).table
    retried = {"use": retry.blob_store, "wait": 0, "inner": failing}
    bind("blob_store", limit.blob_store, inner=retried, rate=1).exists("a")
    assert clock.slept == []


def test_a_limit_that_limits_nothing_is_a_mistake(bind: Bind) -> None:
    with pytest.raises(ConfigurationError, match="set concurrency, rate, or both"):
        bind("blob_store", limit.blob_store, inner=NOOP)


# --- interruption ---


def test_ctrl_c_while_waiting_leaves_the_queue(monkeypatch: pytest.MonkeyPatch) -> None:
    slots = turns.FairSemaphore(1)
    owner = slots.acquire()
    interrupted = threading.Event()

    class Lock:
        """A lock whose second acquisition, the wait, is interrupted."""

        def __init__(self) -> None:
            self._times = 0

        def acquire(self) -> None:
            self._times += 1
            if self._times == 2:
                raise KeyboardInterrupt

    def wait() -> None:
        try:
            slots.acquire()
        except KeyboardInterrupt:
            interrupted.set()

    here = SimpleNamespace(Lock=Lock, get_ident=threading.get_ident)
    monkeypatch.setattr(turns, "threading", here)
    started(wait).join(30)
    monkeypatch.undo()
    assert interrupted.is_set()
    slots.release(owner)
    other = started(slots.acquire)
    other.join(30)
    assert not other.is_alive()


def test_a_later_thread_does_not_inherit_the_slot_of_a_thread_that_has_ended() -> None:
    slots = turns.FairSemaphore(1)
    owners: list[object] = []
    ended = threading.Thread(target=lambda: owners.append(slots.acquire()))
    ended.start()
    ended.join()  # its number may be given to the next thread
    entered: list[object] = []
    later = [started(lambda: entered.append(slots.acquire())) for _ in range(4)]
    until(lambda: len(slots._waiting) == 4)
    assert entered == []
    slots.release(owners[0])
    until(lambda: len(entered) == 1)
    for _ in later[1:]:
        slots.release(entered[-1])
        count = len(entered)
        until(lambda count=count: len(entered) == count + 1)  # type: ignore[misc]
    assert len(set(map(id, entered))) == 4


class Asleep:
    """A training client that waits until `wakes` is set, or for the timeout."""

    class Options(AdapterOptions):
        inner: TrainingClient

    def __init__(self) -> None:
        self.waits = threading.Event()
        self.wakes = threading.Event()

    @hookimpl
    def await_(self, opts: Any, future: Any, timeout: float | None) -> Any:
        self.waits.set()
        if not self.wakes.wait(timeout):
            raise AdapterTimeout("no result yet")
        return OptimStepResult(None)


def test_waiting_for_a_result_waits_for_no_other_wait(bind: Bind) -> None:
    asleep = Asleep()
    inner = {"use": asleep, "inner": {"use": kitchen_noop.training_client}}
    client = bind("training_client", limit.training_client, inner=inner, concurrency=1)
    first = started(lambda: client.await_(None))
    assert asleep.waits.wait(30)
    with pytest.raises(AdapterTimeout):
        client.await_(None, timeout=0.0)
    asleep.wakes.set()
    first.join(30)


def test_a_slot_that_is_returned_while_another_is_taken_is_handed_on() -> None:
    """As by a stream that the garbage collector closes at any moment: it must not wait."""
    slots = turns.FairSemaphore(1)
    owner = slots.acquire()
    slots._lock.acquire()  # another call is at the desk
    slots.release(owner)
    assert slots._free == 0
    slots._lock.release()
    slots.release(slots.acquire())
    other: list[object] = []
    thread = started(lambda: other.append(slots.acquire()))
    thread.join(30)
    assert len(other) == 1
