"""How far a figure of an evaluation can be trusted, and pass@k."""

from __future__ import annotations

import math

import numpy as np

from ...types import Array

Z = 1.959963984540054
"""The 97.5 % quantile of the standard normal distribution: intervals are those of 95 %."""


def interval(rewards: Array) -> tuple[float, float]:
    """Return the 95 % confidence interval of the mean reward over all problems like these.

    The samples of one problem are alike, so the standard error is that of the problems' means
    (clustered; Miller 2024, arXiv 2411.00640). Rewards that are all 0 or 1 are a share: their
    interval is Wilson's (1927), within [0, 1] and never empty, for as many independent samples as
    would have this standard error; other rewards have the normal approximation, which a few
    problems are too few for.

    Args:
        rewards: float `(P, n)` of P problems with n samples each.

    Returns:
        The bounds; NaN of a single problem whose rewards are not all 0 or 1.
    """
    problems, samples = rewards.shape
    mean = float(rewards.mean())
    error = float(rewards.mean(axis=1).std(ddof=1)) / math.sqrt(problems) if problems > 1 else 0.0
    if np.isin(rewards, (0.0, 1.0)).all():
        count = float(problems)
        if samples > 1 and error > 0:
            count = min(max(mean * (1 - mean) / error**2, problems), problems * samples)
        return wilson(mean, count)
    half = Z * error if problems > 1 else math.nan
    return mean - half, mean + half


def wilson(share: float, count: float) -> tuple[float, float]:
    """Return Wilson's 95 % score interval of a share of `count` independent samples.

    Args:
        share: 0 to 1.
        count: above 0; of samples that depend on each other, how many independent ones they are
            worth.
    """
    spread = Z**2 / count
    centre = (share + spread / 2) / (1 + spread)
    half = math.sqrt(share * (1 - share) * spread + (spread / 2) ** 2) / (1 + spread)
    return max(0.0, centre - half), min(1.0, centre + half)


def pass_at_k(samples: int, right: int, k: int) -> float:
    """Return the unbiased estimate that at least one of k samples is right, of one problem.

    1 - C(n - c, k) / C(n, k); Chen et al. 2021 (arXiv 2107.03374).

    Args:
        samples: n, how many were drawn.
        right: c, how many of them were right.
        k: at most n.
    """
    return 1.0 - math.comb(samples - right, k) / math.comb(samples, k)
