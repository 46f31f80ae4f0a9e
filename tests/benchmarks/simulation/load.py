"""Many runs at once, a driver for each: how many requests reach each port."""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from crucible_kitchen import Event, Kitchen
from crucible_kitchen.workflows import run_in

import kitchen_noop

from .clock import VirtualTime
from .goodput import NOOP_STEP

PORTS = ("training_client", "blob_store", "metrics_store", "dataset_store")


@dataclass(frozen=True, slots=True)
class Load:
    """What reached the ports.

    Args:
        seconds: from the first start to the last end.
        requests: for each port, its calls.
        busiest: for each port, the calls of its busiest second.
    """

    seconds: float
    requests: Mapping[str, int]
    busiest: Mapping[str, int]

    def per_second(self, port: str) -> float:
        """Return the mean of a port's requests in a second."""
        return self.requests[port] / self.seconds


def load(runs: int, steps: int, step: float, save_every: int, *, seed: int = 0) -> Load:
    """Train `runs` runs of `steps` steps, which start within one step, and count.

    Args:
        runs: how many.
        steps: of each.
        step: seconds of a step.
        save_every: steps between checkpoints.
        seed: of the moments at which they start.
    """
    clock = VirtualTime()
    counts = {port: Counter[int]() for port in PORTS}

    def count(event: Event) -> None:
        if event.name == "adapter.call":
            counts[event.attributes["port"]][int(clock.now)] += 1

    quick = {name: {**table, "latency_scale": 0} for name, table in kitchen_noop.ADAPTERS.items()}
    client = {**kitchen_noop.ADAPTERS["training_client"], "latency_scale": step / NOOP_STEP}
    dice = random.Random(seed)
    with Kitchen({**quick, "training_client": client}) as kitchen:
        kitchen.observe(count)
        works = [
            partial(_run, kitchen, f"fleet/{number}", steps, save_every, step * dice.random())
            for number in range(runs)
        ]
        clock.run(lambda: clock.every(works))
    return Load(
        clock.now,
        {port: counted.total() for port, counted in counts.items()},
        {port: max(counted.values(), default=0) for port, counted in counts.items()},
    )


def _run(kitchen: Kitchen, run_id: str, steps: int, save_every: int, wait: float) -> None:
    time.sleep(wait)
    config: dict[str, Any] = {
        "model": "any",
        "dataset": "rows",
        "split": "train[:8]",
        "batch_size": 1,
        "max_steps": steps,
        "save_every": save_every,
        "run_id": run_id,
        "render_cache": False,
    }
    run_in(kitchen, "supervised", config)
