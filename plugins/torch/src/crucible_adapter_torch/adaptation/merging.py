"""A model with low-rank updates becomes one to sample from, or one that other programs know."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from ..models.frozen import FrozenLinear, is_frozen, make_plain
from .lora import ADAPTER
from .low_rank import LowRank
from .sharing import over_same_tensors


@torch.no_grad()
def live_copy(model: Any) -> Any:
    """Return a frozen copy of the model over the same tensors, which adds updates to what the
    projections give: it takes no memory. Updates of stacked matrices alone are merged into copies
    of those, since adding them would be done for each token.
    """
    stacked = [] if is_frozen(model) else [m for m in _updates(model) if _is_stacked(m)]
    live = over_same_tensors(model, [w for update in stacked for w in _base(update).parameters()])
    if stacked:
        _merge(live, {name: m for name, m in live.named_modules() if _is_stacked(m)})
    for name, update in [*live.named_modules()]:
        if _is_update(update) and not _is_stacked(update) and ADAPTER in update.lora_A:
            parent, _, child = name.rpartition(".")
            setattr(live.get_submodule(parent), child, LowRank(update, ADAPTER))
    return live.eval()


def _updates(model: Any) -> list[Any]:
    return [module for module in model.modules() if _is_update(module)]


def _is_update(module: Any) -> bool:
    return hasattr(module, "get_delta_weight")


def _is_stacked(module: Any) -> bool:
    return _is_update(module) and hasattr(module, "parameter_name")


def _base(update: Any) -> nn.Module:
    base: nn.Module = update.get_base_layer()
    return base


@torch.no_grad()
def merged_copy(model: Any) -> Any:
    """Return a frozen copy of the model, updates added to its weights: a plain model again. It
    shares the tensors of all other weights, see `over_same_tensors`.

    One whose weights are kept in few bytes becomes one of float32 on the CPU, a layer at a time.
    """
    few = is_frozen(model)
    changed = [] if few else [w for update in _updates(model) for w in _base(update).parameters()]
    merged = over_same_tensors(model, changed)
    _merge(merged, {name: m for name, m in merged.named_modules() if _is_update(m)}, few)
    if few:
        make_plain(merged)
    return merged.requires_grad_(False)


def _merge(model: Any, updates: Mapping[str, Any], few: bool = False) -> None:
    """Put projections with their updates added in the places of updates, by name."""
    plain = {}
    for name, update in updates.items():
        base = update.get_base_layer()
        if isinstance(base, FrozenLinear):
            plain[name] = base.plain(update.get_delta_weight(ADAPTER))
            continue
        if few:
            make_plain(update)
        update.merge(adapter_names=[ADAPTER])
    for name, update in updates.items():
        if not name.endswith(".base_layer"):  # of two updates of one module, only the outer one
            parent, _, child = name.rpartition(".")
            setattr(model.get_submodule(parent), child, plain.get(name) or update.get_base_layer())
