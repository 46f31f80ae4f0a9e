"""Show runs in Trackio, whose dashboard reads them from a file of this machine."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from crucible_kitchen import Tracker

from .options import Options

if TYPE_CHECKING:
    from .run import TrackioRun


class Trackio(Tracker):
    """Makes a run of Trackio for each run."""

    def __init__(self, options: Options) -> None:
        super().__init__()
        self._options = options

    def open(
        self, run_id: str, *, workflow: str, config: Mapping[str, Any], resumed_at: int
    ) -> TrackioRun:
        from .run import TrackioRun

        return TrackioRun(self._options, run_id, {"workflow": workflow, **config})

    def __repr__(self) -> str:
        return "trackio"
