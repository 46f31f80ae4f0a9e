"""Show runs in TensorBoard: event files, as `tensorboard --logdir` reads them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from crucible_kitchen import (
    AdapterError,
    ConfigurationError,
    LocalPath,
    ObserverOptions,
    Tracker,
    check_writable,
)

if TYPE_CHECKING:
    from .event_files import EventFiles


class Options(ObserverOptions):
    folder: LocalPath = Path("tensorboard")
    """Folder to write to, a folder within it for each run: `tensorboard --logdir <folder>`."""
    samples: int = 20
    """Completions of an evaluation to show; 0 for none."""


class TensorBoard(Tracker):
    """Writes event files as PyTorch's SummaryWriter does, without PyTorch or TensorFlow.

    Raises:
        ConfigurationError: the folder cannot be written to.
    """

    def __init__(self, options: Options) -> None:
        super().__init__()
        self._options = options
        try:
            check_writable(options.folder)
        except AdapterError as error:
            raise ConfigurationError(error.reason) from error

    def open(
        self, run_id: str, *, workflow: str, config: Mapping[str, Any], resumed_at: int
    ) -> EventFiles:
        from .event_files import EventFiles

        about = self.flat({"workflow": workflow, **config})
        folder = self._options.folder / run_id
        return EventFiles(folder, about, resumed_at, self._options.samples)

    def __repr__(self) -> str:
        return "tensorboard"
