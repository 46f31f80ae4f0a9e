"""Events without the texts that only trackers show."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from .event import Event
from .kinds import TrainingSamples


def without_texts(event: Event) -> Event:
    """Return the event; of samples how many there are and, where they are rewarded, their mean.

    `samples` becomes a count, and `reward` the mean over those that have one.
    """
    if event.name != TrainingSamples.name:
        return event
    about = dict(event.attributes)
    samples = about.pop("samples", ())
    about["samples"] = len(samples)
    rewards = [reward for each in samples if (reward := _reward(each)) is not None]
    if rewards:
        about["reward"] = sum(rewards) / len(rewards)
    return dataclasses.replace(event, attributes=about)


def _reward(sample: Any) -> float | None:
    reward = sample.get("reward") if isinstance(sample, Mapping) else None
    return reward if isinstance(reward, int | float) else None
