"""How many tokens a model reads, and how many token ids it knows."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from crucible_adapter_torch.models.loading import load
from crucible_adapter_torch.options import ModelOptions
from crucible_kitchen import InvalidInput, SessionConfig
from tiny_torch import MakeKitchen, datum

LLAMA = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
PHI3 = {**LLAMA, "model_type": "phi3", "pad_token_id": 0, "original_max_position_embeddings": 16}


def rope(kind: str, factor: float, **more: Any) -> dict[str, Any]:
    if kind == "llama3":
        more |= {"low_freq_factor": 1.0, "high_freq_factor": 4.0}
    return {"rope_type": kind, "rope_theta": 10000.0, "factor": factor, **more}


def context_of(sizes: dict[str, Any]) -> int | None:
    models = {"mine": {"model_type": "llama", "intermediate_size": 32, **sizes}}
    return load(ModelOptions(models=models, device="cpu"), "mine").context


@pytest.mark.parametrize("kind", ["linear", "dynamic", "yarn", "llama3"])
@pytest.mark.parametrize("factor", [2.0, 4.0, 1.5])
def test_positions_that_are_stretched_count(kind: str, factor: float) -> None:
    parameters = rope(kind, factor)
    if kind in ("yarn", "llama3"):
        parameters["original_max_position_embeddings"] = 32
    sizes = {**LLAMA, "max_position_embeddings": 32, "rope_parameters": parameters}
    assert context_of(sizes) == int(32 * factor)


@pytest.mark.parametrize("kind", ["yarn", "llama3"])
def test_positions_that_were_stretched_already_are_not_stretched_twice(kind: str) -> None:
    original = {"original_max_position_embeddings": 16}
    parameters = rope(kind, 4.0, **original)
    for limit, expected in ((64, 64), (256, 256), (24, 64)):  # Qwen3 has the last: 40960, 4 x 32768
        sizes = {**LLAMA, "max_position_embeddings": limit, "rope_parameters": parameters}
        assert context_of(sizes) == expected


def test_the_longest_of_longrope_is_what_the_configuration_says() -> None:
    factors = {"short_factor": [1.0] * 4, "long_factor": [4.0] * 4}
    parameters = {"rope_type": "longrope", "rope_theta": 10000.0, **factors}
    sizes = {**PHI3, "max_position_embeddings": 64, "rope_parameters": parameters}
    assert context_of(sizes) == 64


def test_a_factor_of_layers_of_several_kinds_is_in_the_limit_already() -> None:
    """Gemma 3 says 131072 and a linear factor of 8 for the layers that see everything."""
    parameters = {
        "full_attention": rope("linear", 8.0),
        "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0},
    }
    sizes = {
        **LLAMA,
        "model_type": "gemma3_text",
        "num_key_value_heads": 2,
        "head_dim": 8,
        "max_position_embeddings": 64,
        "rope_parameters": parameters,
        "layer_types": ["full_attention"],
    }
    assert context_of(sizes) == 64


def test_rows_up_to_the_context_are_trained_on_and_longer_ones_refused(
    make_kitchen: MakeKitchen,
) -> None:
    yarn = rope("yarn", 4.0, original_max_position_embeddings=16)
    bert = {"model_type": "roberta", "intermediate_size": 32, "pad_token_id": 1}
    mine = {
        "stretched": {**LLAMA, "max_position_embeddings": 16, "rope_parameters": yarn},
        "behind-the-padding": {**LLAMA, **bert, "max_position_embeddings": 18},
    }
    client = make_kitchen(models=mine).training_client
    for name, context in (("stretched", 64), ("behind-the-padding", 16)):
        session = client.start_session(SessionConfig(name))
        row = np.arange(2, context + 3)
        result = client.await_(client.forward_backward(session, [datum(row)]))
        assert np.isfinite(result.loss)
        client.await_(client.optim_step(session, 1e-3))
        with pytest.raises(InvalidInput, match=str(context)):
            client.forward(session, [datum([*row, 2])])


def test_tokens_beyond_the_embedding_are_not_known() -> None:
    models = {"mine": {"model_type": "llama", "intermediate_size": 32, **LLAMA, "vocab_size": 300}}
    assert load(ModelOptions(models=models, device="cpu"), "mine").vocab_size == 300


@pytest.mark.parametrize("kind", ["linear", "dynamic", "yarn", "longrope"])
def test_a_row_is_read_alike_alone_and_next_to_a_stretched_one(
    make_kitchen: MakeKitchen, kind: str
) -> None:
    mine = {**LLAMA, "max_position_embeddings": 16, "rope_parameters": rope(kind, 4.0)}
    if kind == "longrope":
        factors = {"short_factor": [1.0] * 4, "long_factor": [4.0] * 4}
        parameters = {"rope_type": "longrope", "rope_theta": 10000.0, **factors}
        mine = {**PHI3, "max_position_embeddings": 64, "rope_parameters": parameters}
    mine["initializer_range"] = 0.5
    client = make_kitchen(models={"mine": mine}).training_client
    session = client.start_session(SessionConfig("mine"))
    rng = np.random.default_rng(0)
    rows = [datum(rng.integers(0, 256, length)) for length in (10, 60, 14, 40)]
    together = client.await_(client.forward(session, rows)).outputs
    for row, found in zip(rows, together, strict=True):
        [alone] = client.await_(client.forward(session, [row])).outputs
        np.testing.assert_allclose(found["logprobs"], alone["logprobs"], atol=1e-4)
