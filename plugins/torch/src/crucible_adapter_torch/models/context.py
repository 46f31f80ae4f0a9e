"""What the length of a row means to a model: the limit of its context, and its positions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

STRETCHED = ("linear", "dynamic", "yarn", "longrope", "llama3")
"""The kinds of rotary positions that are stretched by a factor."""


def limit(model: Any) -> int | None:
    """Return the most tokens that a model can read; None for no limit.

    It is `max_position_embeddings`; more if rotary positions are stretched and that number was left
    as it was; less if the table of positions has rows that belong to no token.
    """
    config = model.config.get_text_config()
    positions: int | None = getattr(config, "max_position_embeddings", None)
    if positions is None or positions < 0:  # XLNet says -1
        return None
    return max(positions, _stretched(config)) - _reserved(model)


def steady(model: Any) -> int | None:
    """Return the row length up to which positions do not depend on it; None if they never do.

    Two kinds of rotary positions change, for the whole batch, with the longest row in it.
    """
    config = model.config.get_text_config()
    rope = getattr(config, "rope_parameters", None) or {}
    if rope.get("rope_type", rope.get("type")) not in ("dynamic", "longrope"):
        return None
    return _original(config, rope)


def settle(model: Any) -> None:
    """Make a model forget the longest row that it has read, which "dynamic" positions remember."""
    for module in model.modules():
        if getattr(module, "rope_type", None) == "dynamic":
            original = module.original_inv_freq.to(module.inv_freq.device)
            module.register_buffer("inv_freq", original, persistent=False)
            module.max_seq_len_cached = module.original_max_seq_len


def grows(model: Any) -> bool:
    """Whether positions change with each token of a row that is longer than `steady`."""
    rope = getattr(model.config.get_text_config(), "rope_parameters", None) or {}
    return rope.get("rope_type") == "dynamic"


def _original(config: Any, rope: Mapping[str, Any]) -> int:
    original = rope.get("original_max_position_embeddings") or getattr(
        config, "original_max_position_embeddings", None
    )
    return int(original or config.max_position_embeddings)


def _stretched(config: Any) -> int:
    rope = getattr(config, "rope_parameters", None) or getattr(config, "rope_scaling", None) or {}
    kind = rope.get("rope_type", rope.get("type"))
    if kind not in STRETCHED or not rope.get("factor"):
        return 0
    return int(rope["factor"] * _original(config, rope))


def _reserved(model: Any) -> int:
    """Return how many rows of a learned table of positions belong to no token: in RoBERTa and its
    kin, the first token's row comes after that of the padding.
    """
    for name, module in model.named_modules():
        if name.endswith("position_embeddings") and isinstance(module, nn.Embedding):
            return 0 if module.padding_idx is None else module.padding_idx + 1
    return 0
