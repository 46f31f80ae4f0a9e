"""Configurations of models that predict each token from those before it."""

from __future__ import annotations

from typing import Any

from crucible_kitchen import Unsupported
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING


def decoder_of(config: Any, name: str) -> Any:
    """Configure an architecture that can look both ways to look back only.

    Whether it does is checked later, see `causality`: not every architecture with the switch obeys
    it.

    Raises:
        Unsupported: it is an encoder-decoder, or not a language model at all.
    """
    if getattr(config, "is_encoder_decoder", False):
        raise Unsupported(
            f"model {name!r} is an encoder-decoder ({config.model_type}), which is trained on "
            "pairs of sequences; this adapter trains and samples decoders"
        )
    return looking_back(config, name)


def looking_back(config: Any, name: str) -> Any:
    """Do as `decoder_of`, but accept encoder-decoders: made here, only their decoder is used.

    Raises:
        Unsupported: it is not a language model.
    """
    remote = "AutoModelForCausalLM" in (getattr(config, "auto_map", None) or {})
    if type(config) not in MODEL_FOR_CAUSAL_LM_MAPPING and not remote:
        raise Unsupported(
            f"model {name!r} is a {config.model_type}, and Transformers has no causal language "
            "model of that type"
        )
    for switch, value in (("is_decoder", True), ("causal", True), ("attn_type", "uni")):
        if hasattr(config, switch) and (switch != "attn_type" or config.attn_type == "bi"):
            setattr(config, switch, value)
    return config
