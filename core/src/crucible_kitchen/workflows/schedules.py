"""Learning-rate schedules, as factors of the peak rate."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Literal, TypeAlias

ScheduleName: TypeAlias = Literal["constant", "linear", "cosine"]

DECAYS: Mapping[str, Callable[[float], float]] = {
    "constant": lambda progress: 1.0,
    "linear": lambda progress: 1.0 - progress,
    "cosine": lambda progress: 0.5 * (1.0 + math.cos(math.pi * progress)),
}


def lr_factor(
    schedule: ScheduleName, step: int, total: int, *, warmup: int = 0, min_ratio: float = 0.0
) -> float:
    """Return what the peak learning rate is multiplied with at a step.

    It rises linearly over the `warmup` steps, `(step + 1) / warmup`, so that no step is wasted on
    a rate of 0, then decays from 1 towards `min_ratio`, which it would reach at step `total`.

    Args:
        schedule: the shape of the decay.
        step: counted from 0.
        total: the number of steps of the run.
        warmup: how many of them warm up.
        min_ratio: the factor at the end.
    """
    if step < warmup:
        return (step + 1) / warmup
    if schedule == "constant":
        return 1.0
    progress = (step - warmup) / max(1, total - warmup)
    return min_ratio + (1.0 - min_ratio) * DECAYS[schedule](progress)
