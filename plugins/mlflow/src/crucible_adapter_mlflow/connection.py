"""The state of an adapter: a server, and the rows that wait to be sent there."""

from __future__ import annotations

import threading

from .experiment import Experiment
from .rows import Row
from .server import Server
from .writer import RunWriter


class Connection:
    """A connection to the server, and the runs that were recorded over it."""

    def __init__(
        self, server: Server, experiment: Experiment, batch_size: int, max_delay: float
    ) -> None:
        self.experiment = experiment
        self._server = server
        self._batch_size = batch_size
        self._max_delay = max_delay
        self._writers: dict[str, RunWriter] = {}
        self._lock = threading.Lock()

    def writer(self, run_id: str) -> RunWriter:
        """Return the writer of a run, the same each time."""
        with self._lock:
            if run_id not in self._writers:
                self._writers[run_id] = RunWriter(
                    self.experiment, run_id, self._batch_size, self._max_delay
                )
            return self._writers[run_id]

    def held(self, run_id: str) -> list[Row]:
        """Return the rows of a run that the server may not have yet."""
        writer = self._writers.get(run_id)
        return writer.held() if writer else []

    def last_recorded(self, run_id: str) -> int:
        """Return the timestamp of the last row that was recorded for a run here, in milliseconds;
        0 if there was none.
        """
        writer = self._writers.get(run_id)
        return writer.last_timestamp if writer else 0

    def held_runs(self) -> set[str]:
        """Return the ids of the runs with such rows."""
        with self._lock:
            return {run_id for run_id, writer in self._writers.items() if writer.held()}

    def flush(self, run_id: str) -> None:
        if writer := self._writers.get(run_id):
            writer.flush()

    def close(self) -> None:
        """Send all held rows, then close. If this fails, nothing is lost or closed."""
        with self._lock:
            for writer in self._writers.values():
                writer.finish()
            self._server.close()
