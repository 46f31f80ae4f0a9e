"""Show runs on Weights & Biases, online, or offline in files that `wandb sync` sends later."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from crucible_kitchen import ConfigurationError, Tracker

from .options import Options

if TYPE_CHECKING:
    from .run import WandbRun


class WeightsAndBiases(Tracker):
    """Makes a run of W&B for each run.

    Raises:
        ConfigurationError: runs are to be sent, and there is no key.
    """

    def __init__(self, options: Options) -> None:
        super().__init__()
        self._options = options
        if options.mode == "online" and options.api_key is None:
            import wandb

            if not wandb.login(prompt=False, verify=False):
                raise ConfigurationError(
                    "there is no API key: run `wandb login`, set WANDB_API_KEY or api_key, or set "
                    'mode = "offline"'
                )

    def open(
        self, run_id: str, *, workflow: str, config: Mapping[str, Any], resumed_at: int
    ) -> WandbRun:
        from .run import WandbRun

        return WandbRun(self._options, run_id, {"workflow": workflow, **config})

    def __repr__(self) -> str:
        return "wandb"
