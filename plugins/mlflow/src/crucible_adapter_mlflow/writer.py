"""The rows of a run on their way to the server."""

from __future__ import annotations

import atexit
import contextlib
import os
import secrets
import threading
import time
import warnings
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

from crucible_kitchen import AdapterError, CrucibleWarning, MetricEntry

from .experiment import Experiment, Run
from .rows import WRITERS, Row, milliseconds


class RunWriter:
    """Holds back rows of one run and sends them many at a time. Safe from any thread.

    Nothing is dropped before the server has it, at the latest when the program ends, and rows keep
    their timestamps: a row that is sent again because the answer was lost is the same row, which
    MLflow keeps once.

    Timestamps of a run increase strictly, beyond those of the process from which it was resumed.
    They are MLflow's only order, so they decide which row came first and which of two counts.
    """

    def __init__(
        self, experiment: Experiment, run_id: str, batch_size: int, max_delay: float
    ) -> None:
        self._experiment = experiment
        self._run_id = run_id
        self._batch_size = batch_size
        self._max_delay = max_delay
        self._writer = secrets.randbelow(WRITERS)
        self._run: Run | None = None
        self._status: Literal["FINISHED", "FAILED", "KILLED"] = "FINISHED"
        self._last_timestamp = 0
        self._held: list[Row] = []
        self._held_since = 0.0
        self._lock = threading.Lock()
        self._process = os.getpid()

    def take(self, entries: Iterable[MetricEntry]) -> None:
        """Take rows, after sending those that have waited long enough.

        The new rows are never sent at once: if this raises, none of them was taken, and a caller
        may repeat it.
        """
        with self._lock:
            self._open()
            late = time.monotonic() - self._held_since >= self._max_delay
            if late or len(self._held) >= self._batch_size:
                self._send()
            if not self._held:
                self._held_since = time.monotonic()
            self._held += map(self._row, entries)
            _holding.add(self)

    def begin(self, config: Mapping[str, Any]) -> None:
        """Show the run as running, and its settings as parameters."""
        with self._lock:
            self._run = None  # another process may have changed it
            self._status = "FINISHED"
            self._experiment.describe(self._open(), config)

    def show(self, samples: Sequence[Mapping[str, Any]], step: int) -> None:
        """Show completions as a table, where the server passes artifacts on."""
        with self._lock:
            self._run = self._experiment.show(self._open(), samples, step)

    def end(self, status: Literal["FINISHED", "FAILED", "KILLED"]) -> None:
        """Show how the run ended. Rows that are held are sent later all the same."""
        with self._lock:
            self._status = status
            self._experiment.finish(self._open(), status)

    @property
    def last_timestamp(self) -> int:
        """The timestamp of the last row that was taken, in milliseconds."""
        with self._lock:
            return self._last_timestamp

    def held(self) -> list[Row]:
        """Return the rows that the server may not have yet."""
        with self._lock:
            return self._held.copy()

    def flush(self) -> None:
        """Return when the server has every row."""
        with self._lock:
            self._send()

    def finish(self) -> None:
        """Send every row and show how the run ended; as finished where that was not said."""
        with self._lock:
            self._send()
            if self._run is not None:
                with contextlib.suppress(AdapterError):  # only affects MLflow's page
                    self._experiment.finish(self._run, self._status)
                self._run = None

    def send_at_exit(self) -> None:
        """Send every row, unless they are the parent process's, which sends them."""
        if self._process == os.getpid():
            try:
                self.flush()
            except Exception as error:
                message = f"the last metrics of the run {self._run_id!r} are lost: {error}"
                warnings.warn(message, CrucibleWarning, 2)

    def _open(self) -> Run:
        if self._run is None:
            self._run = self._experiment.open(self._run_id)
            self._last_timestamp = max(self._run.last_timestamp, self._last_timestamp)
        return self._run

    def _row(self, entry: MetricEntry) -> Row:
        self._last_timestamp = max(milliseconds(entry.timestamp), self._last_timestamp + 1)
        return Row.recorded(entry, self._last_timestamp, self._writer)

    def _send(self) -> None:
        while self._held:
            self._experiment.write(self._open(), self._held[: self._batch_size])
            del self._held[: self._batch_size]
        _holding.discard(self)


_holding: set[RunWriter] = set()
"""Those with rows, which live until these are sent, even if nobody has their store any more."""


@atexit.register
def _send_at_exit() -> None:
    with contextlib.ExitStack() as sending:  # each, even if warnings are errors
        for writer in [*_holding]:
            sending.callback(writer.send_at_exit)
