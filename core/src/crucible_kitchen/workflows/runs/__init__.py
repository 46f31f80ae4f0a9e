"""Runs: an id, a record, and the state from which an interrupted run is continued.

One process at a time works on a run: it holds the run's lease, the blob `<run_id>/lease.json`.
"""

from .cleaning import clean, sweep
from .record import RunRecord, RunState, path_of, read, write
from .run import Run, starting_weights

__all__ = [
    "Run",
    "RunRecord",
    "RunState",
    "clean",
    "path_of",
    "read",
    "starting_weights",
    "sweep",
    "write",
]
