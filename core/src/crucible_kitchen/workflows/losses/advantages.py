"""Advantages: how much better an episode was than others of its problem.

Group relative policy optimization, Shao et al. 2024 (arXiv 2402.03300): a group's mean reward is
its baseline. Liu et al. 2025 (Dr. GRPO, arXiv 2503.20783) leave out the division by the standard
deviation, which weighs problems that are almost always or almost never solved more than others.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

LEAST_STD = 1e-6
"""Added to a standard deviation before it divides."""


def group_advantages(rewards: NDArray[np.float64], by_std: bool = False) -> NDArray[np.float64]:
    """Return each reward minus the mean of its group.

    Args:
        rewards: one row for each group, `(P, G)`.
        by_std: whether to divide by the standard deviation of the group (of all its G rewards).
    """
    # A group of equal rewards has no advantage, not even what rounding makes of it.
    advantages = np.where(mixed(rewards)[:, None], rewards - rewards.mean(1, keepdims=True), 0.0)
    return advantages / (rewards.std(1, keepdims=True) + LEAST_STD) if by_std else advantages


def mixed(rewards: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Return which groups `(P,)` of rewards `(P, G)` have rewards that differ."""
    differ: NDArray[np.bool_] = rewards != rewards[:, :1]
    return np.asarray(differ.any(1))
