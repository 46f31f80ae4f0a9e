"""Who may go on: so many at once, so many a second, first come first served."""

from __future__ import annotations

import threading
import time
from collections import deque


class Slots:
    """So many threads at once; those that wait are let in in the order in which they came.

    A thread that holds a slot takes no second one: a call inside a call, such as writing what
    another stream of the same store yields, would wait for itself.
    """

    def __init__(self, count: int) -> None:
        self._free = count
        self._held: dict[object, int] = {}
        self._waiting: deque[tuple[object, threading.Lock]] = deque()
        self._returned: deque[object] = deque()
        self._threads = threading.local()
        self._lock = threading.Lock()

    def acquire(self) -> object:
        """Wait for a slot; return what `release` wants."""
        # Not its number, which a later thread gets again while a stream of this one is open.
        me = self._threads.__dict__.setdefault("me", object())
        turn = None
        with self._lock:
            if me in self._held:
                self._held[me] += 1
            elif self._free:  # so nobody waits
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
        """Give a slot back, from any thread. Waits for nothing, so a finaliser may call it."""
        self._returned.append(owner)
        self._settle()

    def _settle(self) -> None:
        """Pass on what was given back. Whoever has the lock does it, at the latest after that."""
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
    """So many a second, evenly: one that comes late earns no burst for those behind it."""

    def __init__(self, rate: float) -> None:
        self._interval = 1.0 / rate
        self._next = 0.0
        self._lock = threading.Lock()

    def wait(self) -> None:
        """Wait for one's moment."""
        with self._lock:
            now = time.monotonic()
            mine = max(now, self._next)
            self._next = mine + self._interval
        if mine > now:
            time.sleep(mine - now)
