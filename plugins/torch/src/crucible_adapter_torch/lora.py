"""Low-rank adaptation through PEFT, on the projections that a model has, whatever their names."""

from __future__ import annotations

import copy
import re
from typing import Any

import torch
from crucible_kitchen import InvalidInput, LoraConfig, Unsupported
from torch import nn
from transformers.pytorch_utils import Conv1D

from .models import PROCESS_RNG

TARGETS = ("attn", "mlp", "unembed")
ADAPTER = "default"

# A router of a mixture of experts is no projection; adapting it would change who is asked.
_ROUTERS = {"gate", "router"}


def add_lora(model: Any, config: LoraConfig, seed: int) -> None:
    """Put a trainable update beside each targeted projection and freeze everything else.

    The update starts at zero: A is random, a function of the seed, and B is zero.

    Raises:
        Unsupported: an unknown target, or "unembed" where it is the embedding, too.
        InvalidInput: the model has none of the targeted projections.
    """
    import peft  # takes seconds

    names = _projections(model, config.targets)
    adaptation = peft.LoraConfig(
        r=config.rank,
        lora_alpha=config.alpha,
        lora_dropout=config.dropout,
        target_modules=names,
        fan_in_fan_out=any(isinstance(model.get_submodule(name), Conv1D) for name in names),
    )
    with PROCESS_RNG, torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        peft.inject_adapter_in_model(adaptation, model, adapter_name=ADAPTER)


def merged_copy(model: Any) -> Any:
    """Return a frozen copy of the model, updates added to its weights: a plain model again."""
    merged = copy.deepcopy(model).eval().requires_grad_(False)
    layers = {name: m for name, m in merged.named_modules() if hasattr(m, "get_delta_weight")}
    for name, layer in layers.items():
        base = layer.get_base_layer()
        base.weight += layer.get_delta_weight(ADAPTER)
        parent, _, child = name.rpartition(".")
        setattr(merged.get_submodule(parent), child, base)
    return merged


def _projections(model: Any, targets: tuple[str, ...]) -> list[str]:
    for target in targets:
        if target not in TARGETS:
            raise Unsupported(f"no lora target {target!r}; there are {', '.join(TARGETS)}")
    unembed = model.get_output_embeddings()
    if "unembed" in targets and unembed.weight is model.get_input_embeddings().weight:
        raise Unsupported(
            "lora target 'unembed': this model uses one matrix to embed and unembed tokens, so "
            "it cannot be adapted alone"
        )
    names = [
        name
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear | Conv1D)
        and _target("unembed" if module is unembed else name) in targets
    ]
    if not names:
        raise InvalidInput(f"lora targets {targets}: this model has no such projections")
    return names


def _target(name: str) -> str | None:
    """Say to which target a projection belongs, by its path: `model.layers.0.mlp.up_proj`."""
    if name == "unembed":
        return name
    parts = name.split(".")
    if parts[-1] in _ROUTERS or not any(part.isdigit() for part in parts):
        return None  # outside of the layers
    return "attn" if any(re.search("attn|attention", part) for part in parts) else "mlp"
