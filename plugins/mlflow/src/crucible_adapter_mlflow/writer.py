"""The rows of a run on their way to the server."""

from __future__ import annotations

import contextlib
import secrets
import threading
import time
from collections.abc import Iterable

from crucible_kitchen import AdapterError, MetricEntry

from .experiment import Experiment, Run
from .rows import WRITERS, Row, milliseconds


class RunWriter:
    """Holds back rows of one run and sends them many at a time. Safe from any thread.

    Nothing is dropped before the server has it, and rows keep their timestamps: a row that is sent
    again because the answer was lost is the same row, which MLflow keeps once.

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
        self._last_timestamp = 0
        self._held: list[Row] = []
        self._held_since = 0.0
        self._lock = threading.Lock()

    def take(self, entries: Iterable[MetricEntry]) -> None:
        """Take rows, after sending those that have waited long enough.

        The new rows are never sent at once: if this raises, none of them was taken, and a caller
        may repeat it.
        """
        with self._lock:
            if self._run is None:
                self._run = self._experiment.open(self._run_id)
                self._last_timestamp = self._run.last_timestamp
            late = time.monotonic() - self._held_since >= self._max_delay
            if late or len(self._held) >= self._batch_size:
                self._send()
            if not self._held:
                self._held_since = time.monotonic()
            self._held += map(self._row, entries)

    def held(self) -> list[Row]:
        """Return the rows that the server may not have yet."""
        with self._lock:
            return self._held.copy()

    def flush(self) -> None:
        """Return when the server has every row."""
        with self._lock:
            self._send()

    def finish(self) -> None:
        """Send every row and mark the run as finished."""
        with self._lock:
            self._send()
            if self._run is not None:
                with contextlib.suppress(AdapterError):  # only affects MLflow's page
                    self._experiment.finish(self._run)
                self._run = None

    def _row(self, entry: MetricEntry) -> Row:
        self._last_timestamp = max(milliseconds(entry.timestamp), self._last_timestamp + 1)
        return Row.recorded(entry, self._last_timestamp, self._writer)

    def _send(self) -> None:
        while self._held and self._run is not None:
            self._experiment.write(self._run, self._held[: self._batch_size])
            del self._held[: self._batch_size]
