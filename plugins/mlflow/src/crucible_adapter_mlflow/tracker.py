"""What MLflow shows of a run besides its metrics: its settings, its samples, and how it ended."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

from crucible_kitchen import Tracker

from .connection import Connection
from .writer import RunWriter

_STATUS: Mapping[str, Literal["FINISHED", "FAILED", "KILLED"]] = {
    "finished": "FINISHED",
    "failed": "FAILED",
    "interrupted": "KILLED",
}


class MlflowTracker(Tracker):
    """Shows runs where the metrics store records their metrics.

    Args:
        connection: returns the store's connection, which is made again after it was closed.
    """

    def __init__(self, connection: Callable[[], Connection]) -> None:
        super().__init__()
        self._connection = connection

    def open(
        self, run_id: str, *, workflow: str, config: Mapping[str, Any], resumed_at: int
    ) -> MlflowRun:
        writer = self._connection().writer(run_id)
        writer.begin(self.flat({"workflow": workflow, **config}))
        return MlflowRun(writer)


class MlflowRun:
    """A run whose metrics the store records."""

    def __init__(self, writer: RunWriter) -> None:
        self._writer = writer

    def log(self, metrics: Mapping[str, float], step: int, *, evaluation: bool) -> None:
        """The metrics store has them."""

    def show(self, samples: Sequence[Mapping[str, Any]], step: int) -> None:
        self._writer.show(samples, step)

    def rewind(self, step: int) -> None:
        """The metrics store records the steps again, and the last value counts."""

    def end(self, status: Literal["finished", "failed", "interrupted"]) -> None:
        self._writer.end(_STATUS[status])
