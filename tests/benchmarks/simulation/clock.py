"""Virtual time: threads that sleep for hours, run in seconds, and do the same each time.

One thread runs at a time. When it sleeps, or waits for a lock, the thread whose time comes next
goes on, and the clock is set to that time: a discrete-event simulation whose events are the real
calls of real code. Ties are settled by who came first, so equal seeds give equal runs.

Only threads that `run` and `spawn` started, and those that these start, live in this time. Within
`run`, `time.sleep`, `time.monotonic`, `time.perf_counter` and the locks of `threading` are
replaced for them; any other thread keeps the time of the clock on the wall.
"""

from __future__ import annotations

import _thread
import heapq
import itertools
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any, TypeVar
from unittest import mock

T = TypeVar("T")

STACK = 512 * 1024
"""Bytes of the stack of a thread; the default is 8 MiB, too much for thousands."""


class Stuck(RuntimeError):
    """Every thread waits for a lock that none will release."""


class _Task:
    """A thread that lives in virtual time."""

    __slots__ = ("ticket", "turn")

    def __init__(self) -> None:
        self.turn = _thread.allocate_lock()
        self.turn.acquire()
        self.ticket = 0
        """Counts how often it has been resumed, so that an event for an earlier wait is stale."""


class VirtualTime:
    """A clock, and the threads that live by it.

    Args:
        but: beginnings of the names of threads that stay on the wall.
    """

    def __init__(self, but: tuple[str, ...] = ()) -> None:
        self._but = but
        self.now = 0.0
        """Seconds since the beginning."""
        self._due: list[tuple[float, int, int, _Task]] = []
        self._order = itertools.count()
        self._here = threading.local()
        self._main: _Task | None = None
        self._alive = 0
        self._draining = False
        self._stuck = False

    def run(self, work: Callable[[], T]) -> T:
        """Do `work` in this thread, and return its result when every thread that was started has
        ended.

        Raises:
            Stuck: all wait for one another.
        """
        self._main = self._here.task = _Task()
        try:
            with self._installed():
                result = work()
                self._draining = True
                while self._alive:
                    self._park(self._main)
            return result
        finally:
            self._draining = False
            self._main = self._here.task = None

    def spawn(self, work: Callable[[], object]) -> threading.Thread:
        """Start a thread in virtual time; it begins when the running one waits."""
        thread = threading.Thread(target=work, daemon=True)
        thread.start()
        return thread

    def every(self, works: Sequence[Callable[[], object]]) -> None:
        """Run all of `works` at once; return when the last has ended.

        Raises:
            BaseException: the first that one of them raised.
        """
        failures: list[BaseException] = []
        left = len(works)
        ended = threading.Lock()
        ended.acquire()

        def done(work: Callable[[], object]) -> None:
            nonlocal left
            try:
                work()
            except BaseException as error:
                failures.append(error)
            left -= 1
            if not left:
                ended.release()

        for work in works:
            self.spawn(partial(done, work))
        if works:
            ended.acquire()
        if failures:
            raise failures[0]

    # --- what replaces the functions of `time` ---

    def sleep(self, seconds: float) -> None:
        if (task := self._task()) is None:
            _sleep(seconds)
            return
        self._schedule(task, self.now + max(seconds, 0.0))
        self._park(task)

    def monotonic(self) -> float:
        return _monotonic() if self._task() is None else self.now

    def perf_counter(self) -> float:
        return _perf_counter() if self._task() is None else self.now

    # --- the threads ---

    def _task(self) -> _Task | None:
        return getattr(self._here, "task", None)

    def _schedule(self, task: _Task, at: float) -> None:
        heapq.heappush(self._due, (at, next(self._order), task.ticket, task))

    def _next(self) -> _Task:
        """Return the task whose time comes next, and set the clock; if none is due, the main one,
        which then ends or is stuck.
        """
        while self._due:
            at, _, ticket, task = heapq.heappop(self._due)
            if ticket == task.ticket:
                self.now = max(self.now, at)
                return task
        assert self._main is not None
        self._stuck = self._alive > 0 or not self._draining
        return self._main

    def _park(self, task: _Task) -> None:
        """Let others run until `task` is due."""
        following = self._next()
        if following is not task:
            following.turn.release()
            task.turn.acquire()
        task.ticket += 1
        if self._stuck:
            self._stuck = False
            raise Stuck(f"{self._alive} threads wait for locks that none will release")

    def _begin(self, task: _Task, work: Callable[[], None]) -> None:
        """Be the thread of `task`, from its first turn to its end."""
        task.turn.acquire()
        task.ticket += 1
        self._here.task = task
        try:
            work()
        finally:
            self._here.task = None
            self._alive -= 1
            self._next().turn.release()

    def _start(self, thread: threading.Thread) -> None:
        """Do what `Thread.start` does, for a thread that will live in this time if its parent
        does.
        """
        parent = self._task()
        if parent is not None and not thread.name.startswith(self._but):
            task = _Task()
            thread.run = partial(self._begin, task, thread.run)  # type: ignore[method-assign]
            self._alive += 1
            self._schedule(task, self.now)
        self._here.task = None  # it starts on the wall, while the parent waits for that
        try:
            _start(thread)
        finally:
            self._here.task = parent

    @contextmanager
    def _installed(self) -> Iterator[None]:
        def start(thread: threading.Thread) -> None:  # a function, as methods of a class are
            self._start(thread)

        with ExitStack() as stack:
            stack.callback(threading.stack_size, threading.stack_size(STACK))
            stack.enter_context(_on_one_core())
            for owner, name, value in (
                (time, "sleep", self.sleep),
                (time, "monotonic", self.monotonic),
                (time, "perf_counter", self.perf_counter),
                (threading, "Lock", self._lock),
                (threading, "_allocate_lock", self._lock),
                (threading.Thread, "start", start),
            ):
                stack.enter_context(mock.patch.object(owner, name, value))
            yield

    def _lock(self) -> Any:
        return _thread.allocate_lock() if self._task() is None else Lock(self)


@contextmanager
def _on_one_core() -> Iterator[None]:
    """Keep this thread, and those that it starts, on one core: as one runs at a time, that makes
    handing over twice as fast.
    """
    if not hasattr(os, "sched_setaffinity"):  # not Linux
        yield
        return
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {max(allowed)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, allowed)


class Lock:
    """A lock whose waiting takes virtual time; any thread may use it."""

    def __init__(self, clock: VirtualTime) -> None:
        self._clock = clock
        self._lock = _thread.allocate_lock()
        self._waiting: deque[tuple[_Task, int]] = deque()

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        if self._lock.acquire(False):
            return True
        task = self._clock._task()
        if not blocking or task is None:
            return self._lock.acquire(blocking, timeout)
        until = None if timeout < 0 else self._clock.now + timeout
        while until is None or self._clock.now < until:
            self._waiting.append((task, task.ticket))
            if until is not None:
                self._clock._schedule(task, until)
            self._clock._park(task)
            if self._lock.acquire(False):
                return True
        return False

    def release(self) -> None:
        self._lock.release()
        while self._waiting:
            task, ticket = self._waiting.popleft()
            if ticket == task.ticket:  # it has not given up meanwhile
                self._clock._schedule(task, self._clock.now)
                return

    def locked(self) -> bool:
        return self._lock.locked()

    def __enter__(self) -> bool:
        return self.acquire()

    def __exit__(self, *exception: object) -> None:
        self.release()


_sleep, _monotonic, _perf_counter = time.sleep, time.monotonic, time.perf_counter
_start = threading.Thread.start
