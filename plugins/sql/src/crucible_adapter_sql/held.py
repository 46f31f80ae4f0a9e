"""Rows that wait to be written together."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterable, Mapping

from crucible_kitchen import MetricEntry

from .table import Key, key_of


class HeldRows:
    """The rows of this process that are not in the database yet. Safe from any thread.

    Nothing is dropped before the database has it: rows that could not be written stay held, and the
    next write tries again. Writing a row twice is harmless, since its key is unique.
    """

    def __init__(
        self,
        write: Callable[[Mapping[Key, MetricEntry]], None],
        batch_size: int,
        max_delay: float,
    ) -> None:
        self._write = write
        self._batch_size = batch_size
        self._max_delay = max_delay
        # A dictionary: a row that replaces another takes its place, and no key is sent twice.
        self._held: dict[Key, MetricEntry] = {}
        self._last_write = -math.inf
        self._lock = threading.Lock()

    def take(self, entries: Iterable[MetricEntry]) -> None:
        """Take rows; write all that are held if they are enough, or enough time has passed.

        All rows are taken or, if this raises, none, so that a caller may repeat the call.
        """
        taken = {key_of(entry): entry for entry in entries}
        with self._lock:
            late = time.monotonic() - self._last_write >= self._max_delay
            if late or len(self._held) + len(taken) >= self._batch_size:
                self._write_all({**self._held, **taken})
            else:
                self._held |= taken

    def write(self) -> None:
        """Return when the database has every row."""
        with self._lock:
            self._write_all(self._held)

    def _write_all(self, rows: Mapping[Key, MetricEntry]) -> None:
        if rows:
            self._write(rows)
            self._held = {}
            self._last_write = time.monotonic()
