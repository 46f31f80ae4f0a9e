"""The best evaluation of a run so far, and when to stop because it stays the best."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Literal, Self, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat

from ..errors import ConfigurationError
from ..messages.spelling import listed

BestMode: TypeAlias = Literal["min", "max"]


class Best(BaseModel):
    """The best evaluation of a run so far.

    Args:
        step: the step after which it was measured.
        value: of the metric that was chosen.
        checkpoint: the reference of the checkpoint of that step; None until it is saved.
    """

    model_config = ConfigDict(frozen=True, strict=True)

    step: int = Field(ge=0)
    value: FiniteFloat
    checkpoint: str | None = None


class Standing(BaseModel):
    """What the evaluations of a run have shown so far.

    Args:
        step: the step after which the last one was made; None before the first.
        best: the best one of a checkpoint, so not that before the first step.
        waited: evaluations since then.
    """

    model_config = ConfigDict(frozen=True, strict=True)

    step: int | None = None
    best: Best | None = None
    waited: int = Field(default=0, ge=0)

    def after(self, metrics: Mapping[str, float], metric: str, mode: BestMode, step: int) -> Self:
        """Return it after an evaluation. A value that is not finite is never the best.

        Raises:
            ConfigurationError: the metric was not measured.
        """
        if metric not in metrics:
            raise ConfigurationError(
                f"workflow.best_metric: an evaluation does not measure {metric!r}; "
                f"it measures {listed(metric, metrics)}"
            )
        if step == 0:
            return self.at(step)
        value = float(metrics[metric])
        sign = -1.0 if mode == "min" else 1.0
        is_better = self.best is None or sign * value > sign * self.best.value
        if math.isfinite(value) and is_better:
            best = Best(step=step, value=value)
            return self.model_copy(update={"step": step, "best": best, "waited": 0})
        return self.model_copy(update={"step": step, "waited": self.waited + 1})

    def at(self, step: int) -> Self:
        """Return it after an evaluation by which no checkpoint is chosen."""
        return self.model_copy(update={"step": step})

    def saved(self, step: int, checkpoint: str) -> Self:
        """Return it when a checkpoint of this step is saved, which may be that of the best."""
        if self.best is None or self.best.step != step:
            return self
        best = self.best.model_copy(update={"checkpoint": checkpoint})
        return self.model_copy(update={"best": best})
