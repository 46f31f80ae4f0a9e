"""Rows that wait to be written together."""

from __future__ import annotations

import atexit
import math
import os
import threading
import time
import warnings
from collections.abc import Callable, Sequence
from contextlib import ExitStack

from crucible_kitchen import CrucibleWarning

from .rows import Recorded


class HeldRows:
    """The rows of this process that are not in the database yet. Safe from any thread.

    Nothing is dropped before the database has it: rows that could not be written stay held, and the
    next write tries again, at the latest when the program ends. Writing a row twice is harmless,
    since its key is unique.
    """

    def __init__(
        self,
        write: Callable[[Sequence[Recorded]], None],
        batch_size: int,
        max_delay: float,
    ) -> None:
        self._write = write
        self._batch_size = batch_size
        self._max_delay = max_delay
        self._held: list[Recorded] = []
        self._last_write = -math.inf
        self._lock = threading.Lock()
        self._process = os.getpid()

    def take(self, rows: Sequence[Recorded]) -> None:
        """Take rows; write all that are held if they are enough, or enough time has passed.

        All rows are taken or, if this raises, none, so that a caller may repeat the call.
        """
        with self._lock:
            late = time.monotonic() - self._last_write >= self._max_delay
            if late or len(self._held) + len(rows) >= self._batch_size:
                self._write_all([*self._held, *rows])
            else:
                self._held += rows
                _holding.add(self)

    def write(self) -> None:
        """Return when the database has every row."""
        with self._lock:
            self._write_all(self._held)

    def write_at_exit(self) -> None:
        """Write every row, unless they are the parent process's, which writes them."""
        if self._process == os.getpid():
            try:
                self.write()
            except Exception as error:
                warnings.warn(f"the last metrics are lost: {error}", CrucibleWarning, 2)

    def _write_all(self, rows: Sequence[Recorded]) -> None:
        if rows:
            self._write(rows)
            self._held = []
            self._last_write = time.monotonic()
        _holding.discard(self)


_holding: set[HeldRows] = set()
"""Those with rows, which live until these are written, even if nobody has their store any more."""


@atexit.register
def _write_at_exit() -> None:
    with ExitStack() as writing:  # each, even if warnings are errors
        for held in [*_holding]:
            writing.callback(held.write_at_exit)
