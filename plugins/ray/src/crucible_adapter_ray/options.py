"""The options of both ports, and of the training client."""

from __future__ import annotations

from typing import Any, Literal

from crucible_adapter_torch.options import TrainingClientOptions as TorchOptions
from crucible_kitchen import AdapterOptions, BlobStore
from pydantic import Field, ValidationInfo, field_validator


class ClusterOptions(AdapterOptions):
    address: str | None = None
    """The cluster: `host:port` of its head, or `auto` for the one that this machine is a node of.
    The environment variable `RAY_ADDRESS`, which `ray job submit` sets, takes its place where it is
    left out. Without either, a Ray of its own is started on this machine, and ended at the end."""
    object_store_memory: int | None = Field(default=None, ge=80_000_000)
    """Bytes of shared memory for what actors hand to each other, of a Ray that is started here; by
    default 30 % of the machine's. A cluster has its own."""
    start_timeout: float = Field(default=300.0, gt=0)
    """Seconds to wait for processors and GPUs that others are using, for actors to start, and for a
    cluster that was lost to come back."""

    @field_validator("address")
    @classmethod
    def _is_of_a_cluster(cls, address: str | None) -> str | None:
        if address is not None and "://" in address:
            raise ValueError(
                f"{address!r} is of a Ray Client, through which sessions cannot be driven: run on "
                "a node of the cluster, or by `ray job submit`, with 'auto' or 'host:port'"
            )
        return address

    @field_validator("object_store_memory")
    @classmethod
    def _is_of_a_ray_that_is_started(cls, value: int | None, info: ValidationInfo) -> int | None:
        if value is not None and info.data.get("address") is not None:
            raise ValueError("a cluster has its own object store: leave it out with an address")
        return value


class TrainingClientOptions(ClusterOptions, TorchOptions):
    workers: int = Field(default=1, ge=1)
    """Processes that share a session, each with its own part of every batch."""
    strategy: Literal["ddp", "fsdp"] = "ddp"
    """`ddp`: each worker has the whole model. `fsdp`: weights, gradients and moments are cut
    between the workers, which takes less memory and more communication."""
    checkpoints: BlobStore | None = None
    """Keep checkpoints in a blob store: `{ use = "fsspec", url = "s3://bucket/checkpoints" }`. By
    default they are in `checkpoint_dir`, which must be a folder that all nodes share; with a store
    it is a folder of each node, for checkpoints on their way and for weights with a name."""
    cpus: float = Field(default=1.0, gt=0)
    """Processors of the cluster that a worker takes; a Ray that is started here does not count."""
    gpus: float | None = Field(default=None, ge=0)
    """GPUs that a worker takes. By default one with `device = "cuda"`; with `auto` too, if the
    cluster has any; else none. Workers of one session cannot share a GPU."""
    collective_timeout: float = Field(default=1800.0, gt=0)
    """Seconds that workers wait for each other in an operation before it fails."""
    reuse_workers: bool = False
    """Keep the workers of a closed session for the next one, until the client is closed: a session
    then starts in less than a second, but nobody else gets their processors and GPUs meanwhile."""

    @field_validator("device")
    @classmethod
    def _is_chosen_by_ray(cls, device: str) -> str:
        if device not in ("auto", "cpu", "cuda"):
            raise ValueError(
                f"{device!r}: it is auto, cpu or cuda; Ray says which GPU a worker has"
            )
        return device

    @field_validator("gpus")
    @classmethod
    def _are_not_shared(cls, gpus: float | None, info: ValidationInfo) -> float | None:
        if gpus and gpus != int(gpus) and (gpus > 1 or info.data.get("workers", 1) > 1):
            raise ValueError(f"{gpus}: workers of one session cannot share a GPU")
        return gpus

    def of_torch(self) -> TorchOptions:
        """Return the options that each worker's part of a session has: paths are absolute."""
        given: dict[str, Any] = {name: getattr(self, name) for name in TorchOptions.model_fields}
        given["checkpoint_dir"] = self.checkpoint_dir.absolute()
        return TorchOptions(**given)
