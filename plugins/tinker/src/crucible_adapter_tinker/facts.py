"""What is known of a model without loading it, from its configuration."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx


@dataclass(frozen=True, slots=True)
class Facts:
    """Limits of a model; None where one is not known.

    Args:
        vocab_size: token ids are below it.
        context: the longest input, in tokens.
    """

    vocab_size: int | None = None
    context: int | None = None


def of_model(name: str) -> Facts:
    """Return what the configuration of a model says: a local folder, or a repository of the hub.

    Nothing is known of a model whose configuration cannot be read from here: the server has it.
    """
    try:
        config = json.loads(_text(name))
    except (OSError, ValueError, httpx.HTTPError):
        return Facts()
    if isinstance(config, dict) and isinstance(config.get("text_config"), dict):
        config = {**config, **config["text_config"]}
    if not isinstance(config, dict):
        return Facts()
    return Facts(_count(config.get("vocab_size")), _count(config.get("max_position_embeddings")))


def _text(name: str) -> str:
    """Return the configuration of a model as it is stored."""
    local = Path(name, "config.json")
    if local.is_file():
        return local.read_text(encoding="utf-8")
    from huggingface_hub import constants, get_token, hf_hub_url, try_to_load_from_cache

    cached = try_to_load_from_cache(name, "config.json")
    if isinstance(cached, str):
        return Path(cached).read_text(encoding="utf-8")
    if constants.HF_HUB_OFFLINE:
        return ""
    # Not by `hf_hub_download`: without a network it tries for 25 s (huggingface_hub 2.4).
    headers = {"Authorization": f"Bearer {token}"} if (token := get_token()) else {}
    url = hf_hub_url(name, "config.json")
    answer = httpx.get(url, headers=headers, timeout=5, follow_redirects=True)
    return answer.raise_for_status().text


def _count(value: Any) -> int | None:
    return value if type(value) is int and value > 0 else None
