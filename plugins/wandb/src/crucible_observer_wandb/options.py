"""What a user may set about the observer."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from crucible_kitchen import FromEnv, LocalPath, Name, ObserverOptions
from pydantic import Field, SecretStr


class Options(ObserverOptions):
    project: Annotated[Name, FromEnv("WANDB_PROJECT")] = "crucible-kitchen"
    """The project with the runs, created on first use."""
    entity: Annotated[Name | None, FromEnv("WANDB_ENTITY")] = None
    """User or team; that of the account if unset."""
    mode: Annotated[Literal["online", "offline"], FromEnv("WANDB_MODE")] = "online"
    """Whether runs are sent at once, or are files on this machine, which `wandb sync` sends."""
    folder: Annotated[LocalPath, FromEnv("WANDB_DIR")] = Path()
    """Folder in which W&B makes its folder `wandb`."""
    api_key: Annotated[SecretStr | None, FromEnv("WANDB_API_KEY")] = None
    """Key of the account; the one that `wandb login` has stored if unset."""
    base_url: Annotated[Name | None, FromEnv("WANDB_BASE_URL")] = None
    """Address of a server of your own."""
    group: Annotated[Name | None, FromEnv("WANDB_RUN_GROUP")] = None
    """Group of runs to show this run in."""
    tags: tuple[str, ...] = ()
    """Labels of the run."""
    samples: int = Field(default=100, ge=0)
    """Completions of an evaluation to show; 0 for none."""
