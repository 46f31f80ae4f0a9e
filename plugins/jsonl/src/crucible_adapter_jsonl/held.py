"""Rows that wait to be appended together: a write takes 8 us, encoding a row 2."""

from __future__ import annotations

import atexit
import math
import os
import threading
import time
import warnings
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import accumulate

from crucible_kitchen import CrucibleWarning, Unavailable

from .files import RunFiles

_MOST_BYTES = 1 << 20
"""Bytes of one run that are held at most: metadata may be long."""


@dataclass(slots=True)
class _Waiting:
    """The rows of one run."""

    rows: list[bytes] = field(default_factory=list)
    size: int = 0
    last_write: float = -math.inf


class HeldRows:
    """The rows of this process that are not in their files yet. Safe from any thread.

    Nothing is dropped before its file has it: rows that could not be written stay held, and the
    next write tries again, at the latest when the program ends. The first row of a run is written
    at once, so that a place that cannot be written is known at the start.
    """

    def __init__(self, files: RunFiles, batch_size: int, max_delay: float) -> None:
        self._files = files
        self._batch_size = batch_size
        self._max_delay = max_delay
        self._runs: dict[str, _Waiting] = {}
        self._lock = threading.Lock()
        self._process = os.getpid()

    def take(self, run_id: str, rows: Sequence[bytes]) -> None:
        """Take rows; append all of the run if they are enough, or enough time has passed.

        All rows are taken or, if this raises with `no_effect`, none.
        """
        with self._lock:
            run = self._runs.get(run_id)
            if run is None:
                run = self._runs[run_id] = _Waiting()
            run.size += sum(map(len, rows))
            late = time.monotonic() - run.last_write >= self._max_delay
            if late or run.size > _MOST_BYTES or len(run.rows) + len(rows) >= self._batch_size:
                self._write(run_id, run, rows)
            else:
                if not run.rows:
                    _holding.add((self, run_id))
                run.rows += rows

    def write(self, run_id: str) -> None:
        """Return when the file has every row of the run."""
        with self._lock:
            if run := self._runs.get(run_id):
                self._write(run_id, run)

    def write_all(self) -> None:
        """Return when the files have every row."""
        with self._lock:
            for run_id, run in self._runs.items():
                self._write(run_id, run)

    def write_at_exit(self, run_id: str) -> None:
        """Write what is held of a run, unless that is the parent process's, which writes it."""
        if self._process == os.getpid():
            try:
                self.write(run_id)
            except Exception as error:
                message = f"the last metrics of the run {run_id!r} are lost: {error}"
                warnings.warn(message, CrucibleWarning, 2)

    def _write(self, run_id: str, run: _Waiting, more: Sequence[bytes] = ()) -> None:
        if not (rows := [*run.rows, *more]):
            return
        held, size = len(run.rows), sum(map(len, rows))
        # Given up first: Ctrl-C comes when the file has them, and rows without a step must not be
        # appended twice.
        self._hold(run_id, run, [])
        try:
            written = self._files.append(run_id, b"".join(rows))
        except Exception:  # nothing was written
            self._hold(run_id, run, rows[:held])
            raise
        if written == size:
            run.last_write = time.monotonic()
            return
        whole = sum(end <= written for end in accumulate(map(len, rows)))
        self._hold(run_id, run, rows[whole:held])
        raise Unavailable(
            f"{self._files.name_of(run_id)}: only {written} of {size} bytes were written; the disk "
            "is full",
            no_effect=whole <= held,
        )

    def _hold(self, run_id: str, run: _Waiting, rows: list[bytes]) -> None:
        """Hold these rows of a run, and no others."""
        run.rows, run.size = rows, sum(map(len, rows))
        (_holding.add if rows else _holding.discard)((self, run_id))


_holding: set[tuple[HeldRows, str]] = set()
"""Runs with rows, which live until these are written, even if nobody has their store any more."""


@atexit.register
def _write_at_exit() -> None:
    with ExitStack() as writing:  # each, even if warnings are errors
        for held, run_id in [*_holding]:
            writing.callback(held.write_at_exit, run_id)
