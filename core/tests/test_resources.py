"""Resources: one for each options object, made once, and again after a fork."""

from __future__ import annotations

import gc
import os
import signal
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor

import pytest
from crucible_kitchen import AdapterOptions, resource


class Options(AdapterOptions):
    tags: list[str] = []  # noqa: RUF012
    """A list does not hash, so the options would not hash either."""


class Engine:
    def __init__(self) -> None:
        self.pid = os.getpid()


@resource
def engine(opts: Options) -> Engine:
    """An engine."""
    return Engine()


def test_equal_options_share_nothing() -> None:
    one, two = Options(), Options()
    assert one == two
    assert engine(one) is not engine(two)
    assert engine(one) is engine(one)


def test_threads_make_it_once() -> None:
    opts, calls, barrier = Options(), [], threading.Barrier(16)
    second = threading.Event()

    @resource
    def slow(opts: Options) -> object:
        calls.append(1)
        # Time for another thread to come in, if it could.
        second.set() if len(calls) > 1 else second.wait(0.1)
        return object()

    def use() -> object:
        barrier.wait()
        return slow(opts)

    with ThreadPoolExecutor(16) as pool:
        got = [f.result() for f in [pool.submit(use) for _ in range(16)]]
    assert len(set(map(id, got))) == len(calls) == 1


def test_a_resource_may_use_another() -> None:
    @resource
    def wrapper(opts: Options) -> tuple[Engine]:
        return (engine(opts),)

    opts = Options()
    assert wrapper(opts)[0] is engine(opts)


def test_pop_takes_it_out_and_the_next_use_makes_another() -> None:
    opts = Options()
    assert engine.pop(opts) is None
    first = engine(opts)
    assert engine.peek(opts) is first
    assert engine.pop(opts) is first
    assert engine(opts) is not first


def test_it_goes_when_its_options_go() -> None:
    opts = Options()
    gone = weakref.ref(engine(opts))
    del opts
    gc.collect()
    assert gone() is None


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
def test_a_forked_child_makes_its_own() -> None:
    opts = Options()
    parent = engine(opts)
    child = os.fork()
    if child == 0:
        fresh = engine(opts) is not parent and engine(opts).pid == os.getpid()
        os._exit(0 if fresh else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert engine(opts) is parent


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
def test_a_child_forked_while_another_thread_makes_one_does_not_wait_for_it() -> None:
    making, forked = threading.Event(), threading.Event()
    parent = os.getpid()

    @resource
    def slow(opts: Options) -> int:
        if os.getpid() == parent:
            making.set()
            assert forked.wait(60)
        return os.getpid()

    opts = Options()
    thread = threading.Thread(target=slow, args=[opts])
    thread.start()
    assert making.wait(60)
    child = os.fork()
    if child == 0:
        signal.alarm(20)  # ends the child where it would wait for ever
        os._exit(0 if slow(opts) == os.getpid() else 1)
    status = os.waitpid(child, 0)[1]
    forked.set()
    thread.join()
    assert os.waitstatus_to_exitcode(status) == 0


def test_it_keeps_the_name_and_documentation_of_its_function() -> None:
    name: str = vars(engine)["__name__"]
    assert (name, engine.__doc__) == ("engine", "An engine.")
