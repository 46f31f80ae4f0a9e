"""How many tokens a model can read."""

from __future__ import annotations

from typing import Any

from torch import nn

STRETCHED = ("linear", "dynamic", "yarn", "longrope", "llama3")
"""The kinds of rotary positions that are stretched by a factor."""


def limit(model: Any) -> int | None:
    """Return the most tokens that a model can read, None where there is no limit.

    It is `max_position_embeddings`, or more where rotary positions are stretched and that number
    was left as it was before; less where the table of positions holds some that no token has.
    """
    config = model.config.get_text_config()
    positions: int | None = getattr(config, "max_position_embeddings", None)
    if positions is None or positions < 0:  # XLNet says -1
        return None
    return max(positions, _stretched(config, positions)) - _reserved(model)


def _stretched(config: Any, positions: int) -> int:
    rope = getattr(config, "rope_parameters", None) or getattr(config, "rope_scaling", None) or {}
    kind = rope.get("rope_type", rope.get("type"))
    if kind not in STRETCHED or not rope.get("factor"):
        return 0
    original = rope.get("original_max_position_embeddings") or getattr(
        config, "original_max_position_embeddings", None
    )
    return int(rope["factor"] * (original or positions))


def _reserved(model: Any) -> int:
    """Return how many rows of a learned table of positions are no token's: those of RoBERTa and
    its kin begin behind the row of the padding.
    """
    for name, module in model.named_modules():
        if name.endswith("position_embeddings") and isinstance(module, nn.Embedding):
            return 0 if module.padding_idx is None else module.padding_idx + 1
    return 0
