"""The formulas of `crucible_kitchen.losses`, in NumPy."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from crucible_kitchen import Array, FloatArray
from numpy.typing import NDArray


def loss_and_gradient(
    loss_fn: str, config: Mapping[str, float], logprobs: FloatArray, inputs: Mapping[str, Array]
) -> tuple[float, NDArray[np.float64]]:
    """Return a loss, a sum over tokens, and its derivative by each logprob.

    Args:
        loss_fn: a name from `LOSS_FUNCTIONS`.
        config: its complete config.
        logprobs: float32 `(N,)`, nats.
        inputs: the per-token inputs, `(N,)`.
    """
    p = logprobs.astype(np.float64)
    if loss_fn == "cross_entropy":
        weights = inputs["weights"].astype(np.float64)
        return float(-(weights * p).sum()), -weights
    advantages = inputs["advantages"].astype(np.float64)
    with np.errstate(over="ignore"):  # an infinite ratio fails the optimizer step, as it should
        ratio = np.exp(p - inputs["logprobs"])
    if loss_fn == "importance_sampling":
        return float(-(ratio * advantages).sum()), -ratio * advantages
    clipped = ratio.clip(config["clip_low_threshold"], config["clip_high_threshold"])
    if loss_fn == "cispo":
        return float(-(clipped * p * advantages).sum()), -clipped * advantages
    assert loss_fn == "ppo"
    free, bound = ratio * advantages, clipped * advantages
    return float(-np.minimum(free, bound).sum()), -np.where(free <= bound, free, 0.0)
