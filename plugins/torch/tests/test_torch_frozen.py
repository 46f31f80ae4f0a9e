"""Frozen weights of a low-rank session in few bytes: what they are, and what they change."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from crucible_adapter_torch.models.frozen import FrozenLinear, Storage, freeze
from crucible_kitchen import (
    CrucibleWarning,
    Datum,
    InvalidInput,
    Kitchen,
    LoraConfig,
    SessionConfig,
    TrainingClient,
    Unsupported,
)
from hypothesis import given
from hypothesis import strategies as st
from tiny_torch import MakeKitchen, assert_equal_to_the_bit, logprobs, state, train
from torch import nn
from transformers import AutoModelForCausalLM

LORA = LoraConfig(rank=2, dropout=0.3)
FEW = ["bfloat16", "int8", "nf4"]


def need(base_dtype: str) -> None:
    if base_dtype == "nf4":
        pytest.importorskip("bitsandbytes")


@pytest.fixture
def rounded(client: TrainingClient) -> Callable[[str], str]:
    """Makes folders of models whose weights are bfloat16, as on most disks."""

    def rounded(model: str) -> str:
        folder = client.save_weights_for_sampler(client.start_session(SessionConfig(model)), model)
        loaded = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16)
        loaded.save_pretrained(folder)
        return folder

    return rounded


def trained(kitchen: Kitchen, model: str, datums: list[Datum], lora: LoraConfig = LORA) -> Any:
    client = kitchen.training_client
    session = client.start_session(SessionConfig(model, seed=3, lora=lora))
    train(client, session, datums, steps=3)
    return session


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("model", ["drops", "gpt2", "gemma"])
def test_weights_that_are_bfloat16_on_disk_train_as_in_float32_to_the_bit(
    make_kitchen: MakeKitchen,
    rounded: Callable[[str], str],
    datums: list[Datum],
    model: str,
    dtype: str,
) -> None:
    folder = rounded(model)
    wide = trained(make_kitchen(base_dtype="float32", dtype=dtype), folder, datums)
    few = trained(make_kitchen(base_dtype="bfloat16", dtype=dtype), folder, datums)
    assert_equal_to_the_bit(state(few), state(wide))
    assert few.engine.base == wide.engine.base
    assert few.engine.model.get_input_embeddings().weight.dtype == torch.bfloat16


@pytest.mark.parametrize("base_dtype", FEW)
def test_weights_are_kept_in_few_bytes_and_updates_in_float32(
    make_kitchen: MakeKitchen, datums: list[Datum], base_dtype: str
) -> None:
    need(base_dtype)
    session = trained(make_kitchen(base_dtype=base_dtype), "deep", datums)
    trained_weights = {id(weight) for weight in session.engine.weights.values()}
    assert all(weight.dtype == torch.float32 for weight in session.engine.weights.values())
    matrices = [
        weight
        for weight in session.engine.model.parameters()
        if weight.ndim > 1 and id(weight) not in trained_weights
    ]
    per_weight = {"bfloat16": 2, "int8": 1, "nf4": 0.5}[base_dtype]
    hidden, layers = 16 * (4 * 16 + 3 * 32), 2
    dense = 2 * 257 * 16 * 2  # the embedding and the unembedding
    scales = sum(w.nbytes for w in matrices if w.shape[-1] == 1 and w.dtype == torch.float32)
    assert sum(w.nbytes for w in matrices) - scales == layers * hidden * per_weight + dense


@pytest.mark.parametrize("base_dtype", FEW)
@pytest.mark.parametrize("model", ["deep", "gpt2", "gemma"])
def test_samplers_and_exports_compute_what_the_session_does(
    make_kitchen: MakeKitchen, datums: list[Datum], base_dtype: str, model: str
) -> None:
    need(base_dtype)
    kitchen = make_kitchen(base_dtype=base_dtype)
    client = kitchen.training_client
    session = trained(kitchen, model, datums)
    expected = np.concatenate(logprobs(client, session, datums))
    rows = [[*d.model_input.to_ints(), int(d.loss_fn_inputs["target_tokens"][-1])] for d in datums]
    for name in (None, "merged"):
        reference = client.save_weights_for_sampler(session, name)
        found = np.concatenate(kitchen.completer.score(rows, reference))
        np.testing.assert_allclose(found, expected, atol=1e-4)
    plain = AutoModelForCausalLM.from_pretrained(reference)
    assert {weight.dtype for weight in plain.parameters()} == {torch.float32}


@pytest.mark.parametrize("base_dtype", FEW)
def test_a_checkpoint_continues_to_the_bit(
    make_kitchen: MakeKitchen, datums: list[Datum], base_dtype: str
) -> None:
    need(base_dtype)
    kitchen = make_kitchen(base_dtype=base_dtype, gradient_checkpointing=True)
    client = kitchen.training_client
    session = trained(kitchen, "drops", datums)
    reference = client.save_checkpoint(session, "x")
    again = client.start_session(SessionConfig("drops", seed=3, lora=LORA))
    client.load_checkpoint(again, reference)
    for each in (session, again):
        train(client, each, datums, steps=2)
    assert_equal_to_the_bit(state(again), state(session))


def test_a_checkpoint_is_refused_over_weights_that_were_rounded_otherwise(
    make_kitchen: MakeKitchen, datums: list[Datum]
) -> None:
    session = trained(make_kitchen(base_dtype="int8"), "deep", datums)
    reference = make_kitchen(base_dtype="int8").training_client.save_checkpoint(session, "x")
    other = make_kitchen(base_dtype="bfloat16").training_client
    with pytest.raises(
        InvalidInput, match=r"base_dtype int8\): a session .* base_dtype, which is bfloat16 here"
    ):
        other.start_session(SessionConfig("deep", seed=3, lora=LORA, from_checkpoint=reference))


@pytest.mark.parametrize("kind", ["bfloat16", "float32"])
def test_what_layers_add_to_is_float32_whatever_class_an_embedding_is_of(
    make_kitchen: MakeKitchen, datums: list[Datum], kind: str
) -> None:
    client = make_kitchen(base_dtype="bfloat16", dtype=kind).training_client
    session = client.start_session(SessionConfig("gemma", lora=LORA))
    seen = []
    embedding = session.engine.model.get_input_embeddings()
    embedding.register_forward_hook(lambda module, inputs, output: seen.append(output.dtype))
    train(client, session, datums)
    assert set(seen) == {torch.float32}


def test_a_weight_that_a_model_also_uses_in_its_own_way_stays_as_it_is() -> None:
    class Own(nn.Module):
        def __init__(self, weight: torch.Tensor) -> None:
            super().__init__()
            self.weight = weight

    layer = nn.Linear(4, 4)
    model = nn.ModuleDict({"layer": layer, "own": Own(layer.weight), "other": nn.Linear(4, 4)})
    model.get_output_embeddings = lambda: layer  # type: ignore[assignment]
    freeze(model, "bfloat16", torch.float32, torch.device("cpu"))
    assert (model["layer"], layer.weight.dtype) == (layer, torch.float32)
    assert isinstance(model["other"], FrozenLinear)


def test_a_base_dtype_without_frozen_weights_is_a_warning(make_kitchen: MakeKitchen) -> None:
    client = make_kitchen(base_dtype="int8").training_client
    with pytest.warns(CrucibleWarning, match="base_dtype int8 is for the frozen weights of"):
        client.start_session(SessionConfig("tiny"))
    client.start_session(SessionConfig("tiny", trainable=False))
    client.start_session(SessionConfig("tiny", lora=LORA))


@pytest.mark.filterwarnings("ignore:base_dtype")
def test_a_session_without_lora_has_all_weights_in_float32(
    make_kitchen: MakeKitchen, datums: list[Datum]
) -> None:
    states = []
    for base_dtype in ("auto", "int8"):
        client = make_kitchen(base_dtype=base_dtype).training_client
        session = client.start_session(SessionConfig("tiny"))
        assert client.get_info(session)["base_dtype"] is None
        train(client, session, datums)
        states.append(state(session))
    assert_equal_to_the_bit(*states)


def test_weights_of_a_folder_are_never_all_in_float32(
    make_kitchen: MakeKitchen, rounded: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    found = []
    load = AutoModelForCausalLM.from_pretrained

    def watched(*args: Any, **kwargs: Any) -> Any:
        found.append(kwargs["dtype"])
        return load(*args, **kwargs)

    folder = rounded("deep")
    monkeypatch.setattr(AutoModelForCausalLM, "from_pretrained", watched)
    make_kitchen(base_dtype="int8").training_client.start_session(SessionConfig(folder, lora=LORA))
    assert found == [torch.bfloat16]


def test_without_bitsandbytes_4_bits_say_what_to_install(
    make_kitchen: MakeKitchen, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "bitsandbytes", None)
    client = make_kitchen(base_dtype="nf4").training_client
    with pytest.raises(Unsupported, match=r"pip install 'crucible-adapter-torch\[bitsandbytes\]'"):
        client.start_session(SessionConfig("tiny", lora=LORA))


def test_a_model_that_takes_a_weight_out_of_its_layer_is_refused(make_kitchen: MakeKitchen) -> None:
    """Mamba multiplies with the weight of dt_proj itself, not through the module."""
    mamba = {"model_type": "mamba", "hidden_size": 16, "num_hidden_layers": 1, "state_size": 4}
    client = make_kitchen(models={"mamba": mamba}, base_dtype="int8").training_client
    with pytest.raises(Unsupported, match="no attribute 'weight'"):
        client.start_session(SessionConfig("mamba", lora=LoraConfig(2, targets=("in_proj",))))


def layer_of(rows: int, columns: int, seed: int) -> nn.Linear:
    layer = nn.Linear(columns, rows)
    generator = torch.Generator().manual_seed(seed)
    layer.weight = nn.Parameter(torch.randn(rows, columns, generator=generator))
    return layer


@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 99))
def test_8_bits_are_near_by_half_a_step_of_each_row(rows: int, columns: int, seed: int) -> None:
    layer = layer_of(rows, columns, seed)
    weight = layer.weight.detach().clone()
    few = FrozenLinear(nn.Parameter(weight), layer.bias, "int8", transposed=False)
    step = weight.abs().amax(-1, keepdim=True) / 127
    assert ((few.dense(torch.float32) - weight).abs() <= step * 0.501).all()


@given(st.sampled_from(["bfloat16", "int8"]), st.integers(0, 99))
def test_the_gradient_is_that_of_the_dense_layer(storage: Storage, seed: int) -> None:
    layer = layer_of(6, 4, seed)
    weight = nn.Parameter(layer.weight.to(torch.bfloat16), requires_grad=False)
    few = FrozenLinear(weight, layer.bias.requires_grad_(False), storage, transposed=False)
    x = torch.randn(3, 5, 4, generator=torch.Generator().manual_seed(seed))
    gradients = []
    for each in (few, few.plain()):
        leaf = x.clone().requires_grad_()
        [gradient] = torch.autograd.grad(each(leaf).square().sum(), leaf)
        gradients.append(gradient)
    assert torch.equal(gradients[0], gradients[1])
