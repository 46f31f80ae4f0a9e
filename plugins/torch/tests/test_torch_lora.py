"""Low-rank updates: which projections they adapt, how they train, and what is merged."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import tiny_torch
import torch
from crucible_kitchen import (
    Completer,
    Datum,
    FloatArray,
    InvalidInput,
    Kitchen,
    LoraConfig,
    SessionConfig,
    TrainingClient,
    Unsupported,
)
from tiny_torch import MakeKitchen


def lora(model: str = "tiny", seed: int = 0, **config: Any) -> SessionConfig:
    return SessionConfig(model, seed=seed, lora=LoraConfig(**{"rank": 2, **config}))


def train(client: TrainingClient, session: Any, datums: list[Datum], steps: int = 3) -> None:
    tiny_torch.train(client, session, datums, steps, rate=1e-1)


def logprobs(client: TrainingClient, session: Any, datums: list[Datum]) -> FloatArray:
    return np.concatenate(
        [o["logprobs"] for o in client.await_(client.forward(session, datums)).outputs]
    )


def adapted(session: Any) -> set[str]:
    """Return the last parts of the names of what is adapted."""
    return {name.split(".lora_")[0].split(".")[-1] for name in session.engine.weights}


def test_an_update_starts_at_zero_and_trains_alone(
    client: TrainingClient, datums: list[Datum]
) -> None:
    session, plain = client.start_session(lora()), client.start_session(SessionConfig("tiny"))
    assert np.array_equal(logprobs(client, session, datums), logprobs(client, plain, datums))
    base = {
        name: w.clone()
        for name, w in session.engine.model.named_parameters()
        if "lora_" not in name
    }
    first = client.await_(client.forward(session, datums)).loss
    train(client, session, datums)
    assert client.await_(client.forward(session, datums)).loss < first
    for name, weight in session.engine.model.named_parameters():
        if "lora_" not in name:
            assert torch.equal(weight, base[name])


@pytest.mark.parametrize(
    ("model", "targets", "names"),
    [
        ("tiny", ("attn",), {"q_proj", "k_proj", "v_proj", "o_proj"}),
        ("tiny", ("mlp",), {"gate_proj", "up_proj", "down_proj"}),
        ("tiny", ("unembed",), {"lm_head"}),
        ("gpt2", ("attn", "mlp"), {"c_attn", "c_proj", "c_fc"}),
    ],
)
def test_targets_choose_the_projections(
    client: TrainingClient,
    datums: list[Datum],
    model: str,
    targets: tuple[str, ...],
    names: set[str],
) -> None:
    session = client.start_session(lora(model, targets=targets))
    assert adapted(session) == names
    train(client, session, datums, steps=1)


def test_rank_and_alpha_are_those_of_the_configuration(client: TrainingClient) -> None:
    session = client.start_session(lora(rank=3, alpha=6.0))
    assert {w.shape[0] for n, w in session.engine.weights.items() if "lora_A" in n} == {3}
    layer = next(m for m in session.engine.model.modules() if hasattr(m, "get_delta_weight"))
    assert set(layer.scaling.values()) == {2.0}


def test_dropout_of_the_update_is_on_in_training_alone(
    client: TrainingClient, datums: list[Datum]
) -> None:
    session = client.start_session(lora(dropout=0.5))
    train(client, session, datums)
    assert np.array_equal(logprobs(client, session, datums), logprobs(client, session, datums))
    losses = [client.await_(client.forward_backward(session, datums)).loss for _ in range(2)]
    assert losses[0] != losses[1]


def test_the_update_is_a_function_of_the_seed(client: TrainingClient) -> None:
    first, again, other = (client.start_session(lora("deep", seed=s)) for s in (1, 1, 2))
    for name, weight in first.engine.weights.items():
        assert torch.equal(weight, again.engine.weights[name])
        if "lora_A" in name:
            assert not torch.equal(weight, other.engine.weights[name])


def test_a_checkpoint_holds_the_update_alone(
    client: TrainingClient, datums: list[Datum], tmp_path: Path
) -> None:
    session = client.start_session(lora())
    train(client, session, datums)
    reference = client.save_checkpoint(session, "x")
    stored = safetensors.torch.load_file(tmp_path / "ckpt" / reference / "weights.safetensors")
    assert stored.keys() == session.engine.weights.keys()
    assert all("lora_" in name for name in stored)


@pytest.mark.parametrize(
    "other", [lora(seed=1), lora(alpha=1.0), lora("drops", seed=2), SessionConfig("tiny")]
)
def test_an_update_of_other_weights_is_refused(
    client: TrainingClient, other: SessionConfig
) -> None:
    reference = client.save_checkpoint(client.start_session(lora()), "x")
    session = client.start_session(other)
    with pytest.raises(InvalidInput, match="update of other weights"):
        client.load_checkpoint(session, reference)


@pytest.mark.parametrize("model", ["tiny", "gpt2"])
def test_weights_saved_for_sampling_have_the_update_merged(
    client: TrainingClient, completer: Completer, datums: list[Datum], model: str
) -> None:
    session = client.start_session(lora(model))
    train(client, session, datums)
    expected = logprobs(client, session, datums)
    rows = [[*d.model_input.to_ints(), int(d.loss_fn_inputs["target_tokens"][-1])] for d in datums]
    for name in (None, "merged"):
        reference = client.save_weights_for_sampler(session, name)
        found = np.concatenate(completer.score(rows, reference))
        np.testing.assert_allclose(found, expected, atol=1e-4)
    train(client, session, datums, steps=1)  # the session itself still has its update apart


def test_an_unknown_target_is_unsupported(client: TrainingClient) -> None:
    with pytest.raises(Unsupported, match=r"'attention'.*did you mean 'attn'\?.*q_proj, up_proj"):
        client.start_session(lora(targets=("attention",)))


def test_a_tied_unembedding_cannot_be_adapted(client: TrainingClient) -> None:
    with pytest.raises(Unsupported, match="one matrix"):
        client.start_session(lora("gpt2", targets=("unembed",)))


def test_no_targets_are_invalid_input(client: TrainingClient) -> None:
    with pytest.raises(InvalidInput, match="no such projections"):
        client.start_session(lora(targets=()))


# --- experts, states, and names ---

WIDTH = {"hidden_size": 16, "num_hidden_layers": 2, "max_position_embeddings": 32}
BLOCK = {**WIDTH, "num_attention_heads": 2, "num_key_value_heads": 2, "intermediate_size": 32}
MIXTURES = {
    "mixtral": {**BLOCK, "num_local_experts": 4, "num_experts_per_tok": 2},
    "gpt_oss": {**BLOCK, "head_dim": 8, "num_local_experts": 4, "num_experts_per_tok": 2},
    "qwen2_moe": {
        **BLOCK,
        "num_experts": 4,
        "num_experts_per_tok": 2,
        "moe_intermediate_size": 8,
        "shared_expert_intermediate_size": 8,
    },
    "deepseek_v3": {
        **BLOCK,
        "moe_intermediate_size": 8,
        "n_routed_experts": 4,
        "num_experts_per_tok": 2,
        "n_group": 1,
        "topk_group": 1,
        "first_k_dense_replace": 1,
        "kv_lora_rank": 4,
        "q_lora_rank": 4,
        "qk_rope_head_dim": 4,
        "qk_nope_head_dim": 4,
        "v_head_dim": 8,
    },
}
STATES = {"mamba": {"hidden_size": 16, "num_hidden_layers": 1, "state_size": 4}}


@pytest.fixture
def mixtures(make_kitchen: MakeKitchen) -> Kitchen:
    sizes = {**MIXTURES, **STATES}
    return make_kitchen(models={name: {"model_type": name, **s} for name, s in sizes.items()})


def matrices(session: Any, part: str) -> set[str]:
    """Return the names of the matrices of the second layer of which `part` is a part."""
    names = {name.split(".lora_")[0] for name in session.engine.weights}
    return {name for name in names if "layers.1." in name and part in name}


@pytest.mark.parametrize(
    ("model", "count"),
    [
        ("mixtral", 2),  # two stacks of matrices
        ("gpt_oss", 2),
        ("qwen2_moe", 6),  # and three projections of the shared expert, and its gate
        ("deepseek_v3", 5),
    ],
)
def test_updates_reach_routed_and_shared_experts(
    mixtures: Kitchen, datums: list[Datum], model: str, count: int
) -> None:
    client = mixtures.training_client
    session = client.start_session(lora(model, targets=("mlp",)))
    assert len(matrices(session, "mlp")) == count
    assert not [n for n in session.engine.weights if ".gate." in n or "router" in n]
    before = {name: w.clone() for name, w in session.engine.weights.items()}
    train(client, session, datums, steps=2)
    moved = [n for n, w in session.engine.weights.items() if not torch.equal(w, before[n])]
    assert len(moved) == len(before)


@pytest.mark.parametrize("model", MIXTURES)
def test_updates_of_experts_are_merged_for_sampling(
    mixtures: Kitchen, datums: list[Datum], model: str
) -> None:
    client, completer = mixtures.training_client, mixtures.completer
    session = client.start_session(lora(model))
    train(client, session, datums)
    expected = logprobs(client, session, datums)
    rows = [[*d.model_input.to_ints(), int(d.loss_fn_inputs["target_tokens"][-1])] for d in datums]
    for name in (None, "merged"):
        reference = client.save_weights_for_sampler(session, name)
        found = np.concatenate(completer.score(rows, reference))
        np.testing.assert_allclose(found, expected, atol=1e-3)
    again = client.start_session(lora(model))
    client.load_checkpoint(again, client.save_checkpoint(session, "x"))
    np.testing.assert_array_equal(logprobs(client, again, datums), expected)


def test_a_dense_layer_of_a_mixture_is_adapted_too(mixtures: Kitchen) -> None:
    session = mixtures.training_client.start_session(lora("deepseek_v3", targets=("mlp",)))
    names = {name.split(".lora_")[0] for name in session.engine.weights}
    assert {n.split(".")[-1] for n in names if "layers.0." in n} == {
        "gate_proj",
        "up_proj",
        "down_proj",
    }


def test_experts_cannot_drop_inputs(mixtures: Kitchen) -> None:
    with pytest.raises(Unsupported, match=r"dropout 0.1: the experts .*layers.0.mlp.experts"):
        mixtures.training_client.start_session(lora("mixtral", dropout=0.1))


@pytest.mark.parametrize(
    ("model", "targets", "names"),
    [
        ("tiny", ("q_proj", "self_attn.v_proj"), {"q_proj", "v_proj"}),
        ("tiny", ("attn", "down_proj"), {"q_proj", "k_proj", "v_proj", "o_proj", "down_proj"}),
        ("tiny", ("lm_head",), {"lm_head"}),
        ("gpt2", ("c_attn",), {"c_attn"}),
    ],
)
def test_targets_are_named_by_hand(
    client: TrainingClient,
    datums: list[Datum],
    model: str,
    targets: tuple[str, ...],
    names: set[str],
) -> None:
    session = client.start_session(lora(model, targets=targets))
    assert adapted(session) == names
    train(client, session, datums, steps=1)


@pytest.mark.parametrize("name", ["wte", "lm_head"])
def test_what_is_no_projection_of_its_own_is_unsupported_by_name_too(
    client: TrainingClient, name: str
) -> None:
    with pytest.raises(Unsupported, match=f"target '{name}'"):
        client.start_session(lora("gpt2", targets=(name,)))


def test_an_update_that_would_have_no_effect_is_refused_with_what_has(
    mixtures: Kitchen, datums: list[Datum]
) -> None:
    """Mamba multiplies with the weight of dt_proj itself, not through the module."""
    client = mixtures.training_client
    with pytest.raises(Unsupported, match=r"mixer.dt_proj .*targets`: in_proj, out_proj, x_proj"):
        client.start_session(lora("mamba"))
    session = client.start_session(lora("mamba", targets=("in_proj", "out_proj", "x_proj")))
    first = client.await_(client.forward(session, datums)).loss
    train(client, session, datums)
    assert client.await_(client.forward(session, datums)).loss < first
