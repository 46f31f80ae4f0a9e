"""What episodes look like in numbers, under the names of the Tinker cookbook."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from .play import Episode

GOOD = 0.5
"""A group whose rewards are equal is good from this reward on."""


def episode_metrics(groups: Sequence[Sequence[Episode]]) -> dict[str, float]:
    """Return the figures of the episodes of a step.

    `env/all/reward/total` is the mean reward; `frac_truncated` and `frac_unparsed` are shares of
    the episodes; `by_group/frac_*`, where there are groups, are the shares of those whose rewards
    differ, and are all good (at least 0.5) or all bad. What an environment measures is a mean under
    `env/all/`.
    """
    episodes = [episode for group in groups for episode in group]
    own: dict[str, list[float]] = defaultdict(list)
    for episode in episodes:
        for name, value in episode.metrics.items():
            own[name].append(float(value))
    metrics = {name: _mean(values) for name, values in own.items()} | {
        "reward/total": _mean([each.reward for each in episodes]),
        "frac_truncated": _mean([each.truncated for each in episodes]),
        "frac_unparsed": _mean([not each.parsed for each in episodes]),
        "turns_per_episode": _mean([each.turns for each in episodes]),
        "ac_tokens_per_turn": sum(len(each.logprobs) for each in episodes)
        / sum(each.turns for each in episodes),
    }
    if any(len(group) > 1 for group in groups):
        rewards = [{each.reward for each in group} for group in groups]
        alike = [min(each) >= GOOD for each in rewards if len(each) == 1]
        metrics |= {
            "by_group/frac_mixed": 1 - len(alike) / len(groups),
            "by_group/frac_all_good": sum(alike) / len(groups),
            "by_group/frac_all_bad": (len(alike) - sum(alike)) / len(groups),
        }
    return {f"env/all/{name}": value for name, value in metrics.items()}


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values))
