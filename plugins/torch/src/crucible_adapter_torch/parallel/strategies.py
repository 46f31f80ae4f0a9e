"""Which strategy a process follows."""

from __future__ import annotations

import torch.distributed as dist
from crucible_kitchen import Unsupported

from ..devices import choose_device
from ..options import TrainingClientOptions
from .alone import Alone, Strategy
from .replicated import Replicated


def choose(opts: TrainingClientOptions, strategy: Strategy) -> Alone:
    """Return what this process does together with the others that `torch.distributed` knows; for a
    single one, nothing, whatever the strategy.

    Raises:
        Unsupported: there is no such strategy.
        InvalidInput: there is no such device.
    """
    if strategy not in ("ddp", "fsdp"):
        raise Unsupported(f"strategy {strategy!r}: there are ddp and fsdp")
    if not (dist.is_available() and dist.is_initialized()) or dist.get_world_size() == 1:
        return Alone()
    here = choose_device(opts.device)
    if strategy == "ddp":
        return Replicated(here)
    from .sharded import Sharded  # FSDP2 takes as long to import as all else of PyTorch

    return Sharded(here)
