"""Who may proceed: a limited number at once, a limited number a second, first come first served."""

from __future__ import annotations

import threading
import time
from collections import deque


class FairSemaphore:
    """Admits at most `count` threads at once; waiting threads enter in the order they arrived.

    A thread that holds a slot does not need a second one: a call inside a call, such as writing
    what another stream of the same store yields, would wait for itself.
    """

    def __init__(self, count: int) -> None:
        self._free = count
        self._held: dict[object, int] = {}
        self._waiting: deque[tuple[object, threading.Lock]] = deque()
        self._returned: deque[object] = deque()
        self._threads = threading.local()
        self._lock = threading.Lock()

    def acquire(self) -> object:
        """Wait for a slot; return the owner, for `release`."""
        # Not the thread's number: a later thread may get it while a stream of this one is open.
        try:
            me: object = self._threads.me
        except AttributeError:
            me = self._threads.me = object()
        turn = None
        with self._lock:
            if me in self._held:
                self._held[me] += 1
            elif self._free:  # so no thread waits
                self._free -= 1
                self._held[me] = 1
            else:
                turn = threading.Lock()
                turn.acquire()
                self._waiting.append((me, turn))
        if self._returned:
            self._settle()
        if turn is not None:
            self._wait(me, turn)
        return me

    def _wait(self, me: object, turn: threading.Lock) -> None:
        try:
            turn.acquire()
        except BaseException:  # Ctrl-C
            with self._lock:
                given = (me, turn) not in self._waiting
                if not given:
                    self._waiting.remove((me, turn))
            if given:
                self.release(me)
            raise

    def release(self, owner: object) -> None:
        """Return a slot, from any thread. Never blocks, so a finaliser may call it."""
        if self._lock.acquire(blocking=False):
            try:
                self._pass_on(owner)
            finally:
                self._lock.release()
        else:
            self._returned.append(owner)
        if self._returned:
            self._settle()

    def _settle(self) -> None:
        """Hand returned slots to waiting threads. Runs under the lock, by the thread that has it.

        A slot that is returned meanwhile is handed on by that thread before it returns.
        """
        while self._returned and self._lock.acquire(blocking=False):
            try:
                while self._returned:
                    self._pass_on(self._returned.popleft())
            finally:
                self._lock.release()

    def _pass_on(self, owner: object) -> None:
        self._held[owner] -= 1
        if self._held[owner]:
            return
        del self._held[owner]
        if self._waiting:
            next_one, turn = self._waiting.popleft()
            self._held[next_one] = 1
            turn.release()
        else:
            self._free += 1


class Pace:
    """Admits `rate` calls a second, evenly spaced: unused time does not allow a later burst."""

    def __init__(self, rate: float) -> None:
        self._interval = 1.0 / rate
        self._next = 0.0
        self._lock = threading.Lock()

    def wait(self) -> None:
        """Wait until the call may proceed."""
        with self._lock:
            now = time.monotonic()
            mine = max(now, self._next)
            self._next = mine + self._interval
        if mine > now:
            time.sleep(mine - now)
