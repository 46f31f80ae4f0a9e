"""What actors take of a cluster, and what it has."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from crucible_kitchen import CrucibleWarning


class TakesRoom(Protocol):
    """Options of actors that use processors, and may use GPUs."""

    @property
    def cpus(self) -> float: ...
    @property
    def device(self) -> str: ...
    @property
    def gpus(self) -> float | None: ...


@dataclass(frozen=True, slots=True)
class Demand:
    """What all actors take together.

    Args:
        name: the option that says how many actors there are.
        count: how many.
        cpus: processors that each takes.
        gpus: GPUs that each takes.
    """

    name: str
    count: int
    cpus: float
    gpus: float

    def __str__(self) -> str:
        gpus = f" and {self.count * self.gpus:g} GPUs" if self.gpus else ""
        return f"{self.name} = {self.count} take {self.count * self.cpus:g} processors{gpus}"

    @property
    def bundle(self) -> dict[str, float]:
        """What each takes, as Ray names it."""
        return {"CPU": self.cpus, **({"GPU": self.gpus} if self.gpus else {})}

    def warn_if_too_large(self) -> None:
        """Warn if the whole cluster has less, to which this process is connected."""
        import ray

        there = ray.cluster_resources()
        if any(self.count * size > there.get(name, 0) for name, size in self.bundle.items()):
            warnings.warn(
                f"{self}, and the Ray cluster has {counted(there)} in all: it would wait for nodes "
                "to join",
                CrucibleWarning,
                stacklevel=2,
            )


def demand(name: str, count: int, opts: TakesRoom) -> Demand:
    """Return what actors with these options take, on the cluster that this process is connected
    to.
    """
    return Demand(name, count, opts.cpus, gpus_of(opts))


def gpus_of(opts: TakesRoom) -> float:
    """Return how many GPUs an actor takes: what was set, or one if it would use one."""
    import ray

    if opts.gpus is not None:
        return opts.gpus
    there = opts.device == "auto" and ray.cluster_resources().get("GPU", 0) > 0
    return 1 if there or opts.device == "cuda" else 0


def counted(resources: Mapping[str, float]) -> str:
    """Return processors and GPUs in words."""
    return f"{resources.get('CPU', 0):g} processors and {resources.get('GPU', 0):g} GPUs"
