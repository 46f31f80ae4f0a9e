"""A training run on a fleet whose nodes fail: how much of its time is work that counts.

The run is `supervised` of the core, with its loop, its restarts and its record, on noops with the
latencies of a fleet, inside `retry` and `faulty` of compose. Virtual time alone is made up.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from crucible_adapter_compose import faulty, retry
from crucible_kitchen import Kitchen
from crucible_kitchen.workflows import run_in

import kitchen_noop

from . import nodes
from .clock import VirtualTime

NOOP_STEP, NOOP_SAVE = 0.004, 0.005
"""Seconds that the noop training client takes, at `latency_scale` 1."""
LEASES = ("lease ",)
"""Threads that renew leases: nine of ten events of a run of days, which change nothing here."""


@dataclass(frozen=True, slots=True)
class Cluster:
    """What a run on many nodes is like. All are seconds.

    Args:
        step: of one optimizer step.
        restart: from a failure to the first new step, loading the checkpoint included.
        mtbf: mean time between failures of any node.
    """

    step: float
    restart: float
    mtbf: float

    @property
    def saving(self) -> float:
        """How long a checkpoint takes: as many steps as a noop's."""
        return self.step * NOOP_SAVE / NOOP_STEP


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a run took.

    Args:
        goodput: share of the time that was steps which count.
        failures: how often a node failed.
        seconds: of virtual time, from the first step to the last.
    """

    goodput: float
    failures: int
    seconds: float

    @property
    def mtbf(self) -> float:
        """The mean time between the failures that came, in seconds; infinite without any."""
        return self.seconds / self.failures if self.failures else math.inf


def train(
    cluster: Cluster,
    steps: int,
    save_every: int,
    *,
    seed: int = 0,
    behind: bool = False,
    attempts: int = 100,
) -> Outcome:
    """Run `steps` steps to their end, whatever fails meanwhile.

    Args:
        cluster: the nodes.
        steps: optimizer steps.
        save_every: steps between checkpoints.
        seed: of the failures.
        behind: whether checkpoints are saved while the next steps run.
        attempts: how often `retry` has a call made at most.

    Raises:
        AdapterError: a call failed that is not repeated, and ended the run.
    """
    clock = VirtualTime(but=LEASES)
    config = {
        "model": "any",
        "dataset": "rows",
        "split": "train[:8]",
        "batch_size": 1,
        "max_steps": steps,
        "save_every": save_every,
        "max_restarts": steps,
        "render_cache": False,
    }
    with Kitchen(_adapters(cluster, seed, behind, attempts)) as kitchen:
        clock.run(lambda: run_in(kitchen, "supervised", config))
        failures = kitchen.training_client.helper("failures")()
        began = kitchen.training_client.helper("began")()
    # The last checkpoint, and the weights that are saved after it, are no interval's.
    seconds = clock.now - began - 2 * cluster.saving
    return Outcome(steps * cluster.step / seconds, failures, seconds)


def _adapters(cluster: Cluster, seed: int, behind: bool, attempts: int) -> dict[str, Any]:
    scale = cluster.step / NOOP_STEP
    quick = {"latency_scale": 0}
    fleet: dict[str, Any] = {
        "use": nodes,
        "mtbf": cluster.mtbf,
        "seed": seed,
        "behind": behind,
        "inner": {**kitchen_noop.ADAPTERS["training_client"], "latency_scale": scale},
    }
    slow = {
        "use": faulty.training_client,
        "latency": max(cluster.restart - cluster.saving, 0.0),
        "callbacks": ["load_checkpoint"],
        "inner": fleet,
    }
    return {
        **{name: {**table, **quick} for name, table in kitchen_noop.ADAPTERS.items()},
        "training_client": {
            "use": retry.training_client,
            "max_attempts": attempts,
            "wait": 0,
            "inner": slow,
        },
    }
