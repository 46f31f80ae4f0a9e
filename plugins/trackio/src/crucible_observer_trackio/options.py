"""What a user may set about the observer."""

from __future__ import annotations

from typing import Annotated

from crucible_kitchen import FromEnv, Name, ObserverOptions
from pydantic import Field


class Options(ObserverOptions):
    project: Annotated[Name, FromEnv("TRACKIO_PROJECT")] = "crucible-kitchen"
    """The project with the runs, created on first use."""
    group: Name | None = None
    """Group of runs to show this run in."""
    samples: int = Field(default=100, ge=0)
    """Completions of an evaluation to show; 0 for none."""
    system_metrics: bool = False
    """Whether the use of processors and GPUs is logged as well."""
