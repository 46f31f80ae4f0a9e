"""Handles on a cassette are numbers, in the order in which calls returned them."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any

from .values import Json


@dataclass(frozen=True, slots=True, weakref_slot=True)
class RecordedHandle:
    """What a replay returns for a session, a future or a data set.

    Args:
        cassette: the id of the recording.
        number: which of its handles.
    """

    cassette: str
    number: int


class Numbers:
    """Numbers the objects of an adapter: handles, or what helpers return. Safe from any thread.

    An object that nobody holds any more is forgotten, if Python can tell; text and numbers, which
    may be handles as well, are known by their value.
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()  # an object may be forgotten while one is numbered
        self._last = 0
        self._known: dict[Hashable, tuple[int, Any]] = {}

    def of(self, thing: Any, like: int | None = None) -> int:
        """Return the number of an object; if it was not seen before, a new one, or that of an
        object that it is like.
        """
        with self._lock:
            if (number := self.find(thing)) is None:
                if (number := like) is None:
                    self._last = number = self._last + 1
                key = _key(thing)
                try:
                    weakref.finalize(thing, self._forget, key).atexit = False
                    held = None
                except TypeError:  # it cannot be watched, so it is kept: its id stays its own
                    held = thing
                self._known[key] = number, held
            return number

    def find(self, thing: Any) -> int | None:
        """Return the number of an object; None if it was not seen before."""
        with self._lock:
            found = self._known.get(_key(thing))
            return None if found is None else found[0]

    def _forget(self, key: Hashable) -> None:
        with self._lock:
            self._known.pop(key, None)


def _key(thing: Any) -> Hashable:
    if isinstance(thing, str | bytes | int):
        return type(thing), thing
    return id(thing)


def plain_handle(number: int | None, thing: Any) -> Json:
    """Return a handle as JSON; of one that was never returned, its type alone."""
    if number is None:
        return {"$foreign": type(thing).__name__}
    return {"$handle": number}
