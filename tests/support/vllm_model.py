"""A tiny model, and what it is taught."""

from __future__ import annotations

from typing import Any

import numpy as np
from crucible_kitchen import Datum, ModelInput, TrainingClient

CONTEXT = 192
TINY = {
    "model_type": "llama",
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "intermediate_size": 64,
    "max_position_embeddings": CONTEXT,
}
MODELS = {
    "tiny": TINY,
    "tied": {**TINY, "tie_word_embeddings": True},
    "mixture": {**TINY, "model_type": "mixtral", "num_local_experts": 4},
}
COMPLETER = {"use": "vllm", "enforce_eager": True, "kv_cache_bytes": 2**26}
TEMPLATE = (
    "{% for message in messages %}{{ message.role }}: {{ message.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant: {% endif %}"
)
ANSWERS = ("it is wide", "ships and salt", "waves, waves", "blue in größe")
END = 256


def datums() -> list[Datum]:
    made = []
    for answer in ANSWERS:
        tokens = np.array([*b"assistant: ", *answer.encode(), END])
        weights = np.ones(len(tokens) - 1, np.float32)
        targets = {"target_tokens": tokens[1:], "weights": weights}
        made.append(Datum(ModelInput.from_ints(tokens[:-1]), targets))
    return made


def train(client: TrainingClient, session: Any, steps: int) -> None:
    for _ in range(steps):
        client.forward_backward(session, datums())
        client.await_(client.optim_step(session, 1e-2))
