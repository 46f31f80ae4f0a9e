"""Runs: an id, a record, and the state from which an interrupted run is continued.

One process at a time works on a run: it holds the run's lease, the blob `<run_id>/lease.json`.
"""

from .cleaning import clean, sweep
from .named import weights_of
from .opening import starting_weights
from .record import RunRecord, RunState, ids_with, path_of, read, samples_path, write
from .reporting import reported
from .run import Run
from .saving import Saving

__all__ = [
    "Run",
    "RunRecord",
    "RunState",
    "Saving",
    "clean",
    "ids_with",
    "path_of",
    "read",
    "reported",
    "samples_path",
    "starting_weights",
    "sweep",
    "weights_of",
    "write",
]
