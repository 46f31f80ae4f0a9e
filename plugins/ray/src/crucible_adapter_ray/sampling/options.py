"""What a user may set about sampling."""

from __future__ import annotations

from crucible_adapter_torch.options import CompleterOptions as TorchOptions
from pydantic import Field, field_validator

from ..options import ClusterOptions


class CompleterOptions(ClusterOptions, TorchOptions):
    actors: int = Field(default=1, ge=1)
    """Processes that sample, each with a copy of the model. A batch is cut into a part for each.
    Which tokens are sampled depends on their number by rounding alone."""
    cpus: float = Field(default=1.0, ge=0)
    """Processors of the cluster that an actor takes; a Ray that is started here does not count."""
    gpus: float | None = Field(default=None, ge=0)
    """GPUs that an actor takes; a fraction shares one. By default one with `device = "cuda"`; with
    `auto` too, if the cluster has any; else none."""

    @field_validator("device")
    @classmethod
    def _is_chosen_by_ray(cls, device: str) -> str:
        if device not in ("auto", "cpu", "cuda"):
            raise ValueError(
                f"{device!r}: it is auto, cpu or cuda; Ray says which GPU an actor has"
            )
        return device
