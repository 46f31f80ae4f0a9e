"""What is sampled is what the model says, whatever it keeps of what it has read."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import crucible_adapter_torch.completer as torch_completer
import numpy as np
import pytest
import torch
from crucible_adapter_torch import live_weights
from crucible_adapter_torch.models import random_models
from crucible_adapter_torch.models.language_model import LanguageModel, Prompts
from crucible_adapter_torch.models.loading import load
from crucible_adapter_torch.options import CompleterOptions, ModelOptions
from crucible_adapter_torch.sampling import reading
from crucible_adapter_torch.sampling.reading import Again, Cached, Reader, cacheable
from crucible_kitchen import (
    Completer,
    Kitchen,
    SamplingParams,
    SessionConfig,
    TrainingClient,
    Unsupported,
)
from tiny_torch import MakeKitchen, datum

LAYERS = {"hidden_size": 32, "num_hidden_layers": 2}
ATTENTION = {**LAYERS, "num_attention_heads": 4, "intermediate_size": 48}
MODELS: dict[str, dict[str, Any]] = {
    "llama": {"model_type": "llama", **ATTENTION, "max_position_embeddings": 64},
    "mistral": {
        "model_type": "mistral",
        **ATTENTION,
        "num_key_value_heads": 2,
        "max_position_embeddings": 64,
        "sliding_window": 64,
    },
    "window": {
        "model_type": "mistral",
        **ATTENTION,
        "num_key_value_heads": 2,
        "max_position_embeddings": 64,
        "sliding_window": 8,
    },
    "bert": {"model_type": "bert", **ATTENTION, "max_position_embeddings": 64},
    "mamba": {"model_type": "mamba", **LAYERS, "state_size": 8},
    "rwkv": {"model_type": "rwkv", **LAYERS, "attention_hidden_size": 32},
    "openai-gpt": {"model_type": "openai-gpt", "n_embd": 32, "n_layer": 2, "n_head": 4},
    "roberta": {
        "model_type": "roberta",
        **ATTENTION,
        "max_position_embeddings": 32,
        "pad_token_id": 1,
    },
}
PROMPTS = [[7, 8, 9, 10, 11], [12], [13, 14, 15]]
PARAMS = SamplingParams(6, seed=0, stop=(), logprobs=True)


def language(name: str, seed: int = 0) -> LanguageModel:
    return load(ModelOptions(models=MODELS, device="cpu"), name, seed=seed)


@pytest.fixture
def wild(make_kitchen: MakeKitchen) -> Kitchen:
    return make_kitchen(models=MODELS)


@pytest.mark.parametrize(
    ("name", "prompts"),
    [
        ("llama", "slots"),
        ("mistral", "slots"),  # its window is the whole context
        ("window", "any"),
        ("mamba", "none"),  # its state is not in a cache of keys and values
        ("rwkv", "none"),
        ("openai-gpt", "none"),  # has no cache
        ("roberta", "equal"),  # counts positions from the padding
    ],
)
def test_a_cache_is_used_where_it_gives_what_a_whole_pass_gives(name: str, prompts: str) -> None:
    assert cacheable(language(name)) == prompts


@pytest.mark.parametrize(
    "name", ["llama", "mistral", "window", "mamba", "rwkv", "openai-gpt", "roberta"]
)
def test_what_is_sampled_is_what_the_forward_pass_says(wild: Kitchen, name: str) -> None:
    client = wild.training_client
    session = client.start_session(SessionConfig(name))
    for _ in range(3):  # so that the weights are not those of the beginning
        client.forward_backward(session, [datum([*b"abcabdabcabd"])])
        client.await_(client.optim_step(session, 1e-2))
    params = replace(PARAMS, model=client.save_weights_for_sampler(session))
    completer = wild.completer.options
    for index, (prompt, answer) in enumerate(
        zip(PROMPTS, sample(completer, PROMPTS, params), strict=True)
    ):
        rows = [datum([*prompt, *answer.tokens])]
        forward = client.await_(client.forward(session, rows)).outputs[0]["logprobs"]
        np.testing.assert_allclose(answer.logprobs, forward[len(prompt) - 1 :], atol=1e-4)
        [alone] = sample(completer, [prompt], replace(params, seed=index))
        assert alone.tokens.tolist() == answer.tokens.tolist()


def sample(options: Any, prompts: list[list[int]], params: SamplingParams) -> Any:
    return torch_completer.complete_batch(options, prompts, params)


def test_reading_again_fills_the_context_and_not_more(wild: Kitchen) -> None:
    params = replace(
        PARAMS,
        model=wild.training_client.save_weights_for_sampler(
            wild.training_client.start_session(SessionConfig("roberta"))
        ),
        max_tokens=40,
    )
    answers = sample(wild.completer.options, [[7] * 29, [8], [9, 10]], params)
    assert [len(answer.tokens) for answer in answers] == [1, 29, 28]  # the context is 30


def test_both_ways_of_reading_agree_while_rows_are_dropped() -> None:
    model = language("llama")
    prompts = [np.array(prompt) for prompt in PROMPTS]
    readers: list[Reader] = [Cached(model, prompts), Again(model, prompts)]
    for kept in ([0, 1, 2], [0, 2], [1]):
        first, second = (reader.advance() for reader in readers)
        torch.testing.assert_close(first, second)
        for reader in readers:
            reader.append(reader.keep(kept, first.argmax(-1)))


def test_it_is_found_out_once_for_all_snapshots_of_a_session(
    client: TrainingClient, completer: Completer, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried = []
    real = reading._try

    def counted(model: LanguageModel) -> Prompts | None:
        tried.append(model)
        return real(model)

    monkeypatch.setattr(reading, "_try", counted)
    session = client.start_session(SessionConfig("tiny"))
    for _ in range(2):
        live = client.save_weights_for_sampler(session)
        completer.complete([1, 2], replace(PARAMS, model=live))
    assert len(tried) == 1


def test_weights_that_do_not_show_whether_a_cache_works_are_read_without_one(
    client: TrainingClient,
) -> None:
    session = client.start_session(SessionConfig("tiny"))
    weights = session.engine.weights
    with torch.no_grad():
        weights["model.layers.0.self_attn.o_proj.weight"].zero_()  # no token sees another
    blind = live_weights.find(client.save_weights_for_sampler(session))
    assert cacheable(blind) == "none"
    with torch.no_grad():
        weights["model.layers.0.self_attn.o_proj.weight"].normal_()
    assert cacheable(live_weights.find(client.save_weights_for_sampler(session))) == "slots"


@pytest.mark.parametrize("kind", ["dynamic", "longrope"])
def test_answers_that_pass_the_original_context_are_what_a_pass_of_the_row_so_far_says(
    make_kitchen: MakeKitchen, kind: str
) -> None:
    """Then the positions of the whole row change, those in a cache too."""
    rope: dict[str, Any] = {"rope_type": kind, "rope_theta": 10000.0, "factor": 4.0}
    sizes: dict[str, Any] = {**ATTENTION, "max_position_embeddings": 16, "initializer_range": 0.3}
    if kind == "longrope":
        rope |= {"short_factor": [1.0] * 4, "long_factor": [4.0] * 4}
        phi: dict[str, Any] = {
            "model_type": "phi3",
            "pad_token_id": 0,
            "original_max_position_embeddings": 16,
        }
        sizes |= {**phi, "max_position_embeddings": 64}
    kitchen = make_kitchen(models={"mine": {**sizes, "rope_parameters": rope}})
    client = kitchen.training_client
    session = client.start_session(SessionConfig("mine"))
    live = client.save_weights_for_sampler(session)
    params = replace(PARAMS, max_tokens=8, model=live)
    rng = np.random.default_rng(0)
    prompts = [rng.integers(0, 256, length).tolist() for length in (12, 3, 20, 15)]
    for prompt, answer in zip(
        prompts, sample(kitchen.completer.options, prompts, params), strict=True
    ):
        for size in range(1, len(answer.tokens) + 1):
            row = datum([*prompt, *answer.tokens[:size]])
            forward = client.await_(client.forward(session, [row])).outputs[0]["logprobs"]
            assert abs(answer.logprobs[size - 1] - forward[-1]) < 1e-3


# --- causality ---


@pytest.fixture
def as_it_comes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Models that look both ways are left as they are."""
    monkeypatch.setattr(random_models, "looking_back", lambda config, name: config)


def test_an_encoder_becomes_a_decoder() -> None:
    assert language("bert").model.config.is_decoder


def test_a_model_that_sees_later_tokens_is_refused(as_it_comes: None) -> None:
    with pytest.raises(Unsupported, match=r"model 'bert' \(BertLMHeadModel\) is not causal"):
        language("bert")


def test_a_model_that_no_switch_makes_causal_is_refused_by_both_ports(
    make_kitchen: MakeKitchen, tmp_path: Path
) -> None:
    """CPM-Ant's prompts see each other."""
    sizes = {"model_type": "cpmant", "hidden_size": 32, "num_hidden_layers": 1, "dim_ff": 48}
    made = {"mine": {**sizes, "num_attention_heads": 4, "dim_head": 8}}
    with pytest.raises(Unsupported, match="is not causal"):
        make_kitchen(models=made).training_client.start_session(SessionConfig("mine"))
    options = CompleterOptions(models=made, device="cpu")
    with pytest.raises(Unsupported, match="is not causal"):
        sample(options, [[1, 2]], replace(PARAMS, model="mine"))


@pytest.mark.parametrize("name", ["llama", "bert", "mamba", "rwkv", "openai-gpt", "roberta"])
@pytest.mark.parametrize("seed", range(3))
def test_a_causal_model_is_not_taken_for_another(name: str, seed: int) -> None:
    assert language(name, seed).vocab_size == 257
