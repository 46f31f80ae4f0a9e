"""A fleet that samples for one driver, which hands out a limited number of requests a second."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from crucible_adapter_compose import faulty, limit, retry
from crucible_kitchen import Kitchen, SamplingParams

import kitchen_noop

from .clock import VirtualTime

NOOP_REQUEST, NOOP_TOKEN = 0.005, 0.0001
"""Seconds that the noop completer takes, at `latency_scale` 1."""
PROMPT = [1, 2, 3]


@dataclass(frozen=True, slots=True)
class Fleet:
    """What the nodes are like.

    Args:
        slots: answers that a node samples at a time.
        seconds: of an answer of the mean length.
        spread: the sigma of the lengths, whose logarithms are normal; 0 makes all alike.
        failure_rate: share of the requests that a node fails to answer.
    """

    slots: int
    seconds: float
    spread: float = 0.0
    failure_rate: float = 0.0


@dataclass(frozen=True, slots=True)
class Sampled:
    """What a step's sampling took.

    Args:
        seconds: until the last answer was there.
        per_second: answers a second.
        busy: the share of the slots' time that was sampling.
    """

    seconds: float
    per_second: float
    busy: float


MEAN, MOST = 100, 800
"""Tokens of an answer; the longest is cut there, as `max_tokens` does."""


def sample(
    fleet: Fleet, nodes: int, per_slot: int, *, rate: float | None = None, seed: int = 0
) -> Sampled:
    """Sample `per_slot` answers for each slot of the fleet, and wait for the last.

    Args:
        fleet: what a node is like.
        nodes: how many.
        per_slot: answers; a slot takes the next as soon as it is free.
        rate: requests that the driver sends in a second; None does not limit it.
        seed: of lengths and failures.
    """
    clock = VirtualTime()
    slots = nodes * fleet.slots
    lengths = list(_lengths(slots * per_slot, fleet.spread, seed))
    todo = iter(lengths)
    used = 0.0
    scale = fleet.seconds / (NOOP_REQUEST + NOOP_TOKEN * MEAN)
    with Kitchen({"completer": _table(fleet, rate, scale, seed)}) as kitchen:

        def serve() -> None:
            nonlocal used
            for length in todo:
                params = SamplingParams(max_tokens=length, stop=(), seed=length)
                kitchen.completer.complete(PROMPT, params)
                used += scale * (NOOP_REQUEST + NOOP_TOKEN * length)

        clock.run(lambda: clock.every([serve] * slots))
    return Sampled(clock.now, len(lengths) / clock.now, used / (slots * clock.now))


def _table(fleet: Fleet, rate: float | None, scale: float, seed: int) -> dict[str, Any]:
    nodes: dict[str, Any] = {
        "use": faulty.completer,
        "failure_rate": fleet.failure_rate,
        "seed": seed,
        "inner": {**kitchen_noop.ADAPTERS["completer"], "latency_scale": scale},
    }
    if rate is not None:
        nodes = {"use": limit.completer, "rate": rate, "inner": nodes}
    return {"use": retry.completer, "wait": 0, "inner": nodes}


def _lengths(count: int, spread: float, seed: int) -> Iterator[int]:
    """Yield lengths in tokens whose mean is `MEAN` before they are cut."""
    dice = random.Random(seed)
    middle = math.log(MEAN) - spread**2 / 2
    for _ in range(count):
        yield min(max(round(dice.lognormvariate(middle, spread)), 1), MOST)
