"""How layers run: with which attention, computed once more for the gradient, or compiled."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from crucible_adapter_torch.models import layers
from crucible_kitchen import Datum, InvalidInput, LoraConfig, SessionConfig, Unsupported
from tiny_torch import (
    CONTINUED,
    TINY,
    MakeKitchen,
    assert_equal_to_the_bit,
    logprobs,
    state,
    tensors,
    train,
)


@pytest.mark.parametrize("kind", CONTINUED)
def test_gradient_checkpointing_changes_no_bit_even_with_dropout(
    make_kitchen: MakeKitchen, datums: list[Datum], kind: str
) -> None:
    states = []
    for option in (False, True):
        client = make_kitchen(gradient_checkpointing=option).training_client
        session = client.start_session(CONTINUED[kind])
        train(client, session, datums, steps=3)
        states.append(state(session))
    assert_equal_to_the_bit(*states)


def test_gradient_checkpointing_computes_each_layer_twice(
    make_kitchen: MakeKitchen, datums: list[Datum]
) -> None:
    def passes(option: bool) -> int:
        client = make_kitchen(gradient_checkpointing=option).training_client
        session = client.start_session(SessionConfig("deep"))
        runs: list[Any] = []
        for layer in session.engine.model.model.layers:
            layer.mlp.register_forward_pre_hook(lambda *_: runs.append(1))
        client.await_(client.forward_backward(session, datums))
        return len(runs)

    assert passes(True) == 2 * passes(False)


def test_an_architecture_that_cannot_checkpoint_gradients_says_so() -> None:
    with pytest.raises(Unsupported, match="gradient_checkpointing: a Linear cannot"):
        layers.checkpoint_gradients(torch.nn.Linear(1, 1))


def test_another_attention_computes_the_same(
    make_kitchen: MakeKitchen, datums: list[Datum]
) -> None:
    found = []
    for name in ("sdpa", "eager"):
        client = make_kitchen(attn_implementation=name).training_client
        session = client.start_session(TINY)
        assert client.get_info(session)["attention"] == name
        found.append(logprobs(client, session, datums))
    for left, right in zip(*found, strict=True):
        torch.testing.assert_close(left, right, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "kind", "message"),
    [
        ("nonsense", InvalidInput, "attn_implementation 'nonsense' on a LlamaForCausalLM"),
        ("flash_attention_2", Unsupported, "attn_implementation 'flash_attention_2' .* package"),
    ],
)
def test_an_attention_that_is_not_there_is_named_with_the_reason(
    make_kitchen: MakeKitchen, name: str, kind: type[Exception], message: str
) -> None:
    client = make_kitchen(attn_implementation=name).training_client
    with pytest.raises(kind, match=message):
        client.start_session(TINY)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # PyTorch's compiler warns of PyTorch
def test_compiled_layers_compute_the_same_under_the_same_names(
    make_kitchen: MakeKitchen, datums: list[Datum]
) -> None:
    found = []
    for option in (False, True):
        client = make_kitchen(compile=option).training_client
        session = client.start_session(SessionConfig("tiny", lora=LoraConfig(rank=2)))
        train(client, session, datums, steps=2, rate=1e-3)
        found.append(tensors(session))
    plain, compiled = found
    assert plain.keys() == compiled.keys()
    for name, tensor in plain.items():
        torch.testing.assert_close(compiled[name], tensor, rtol=1e-3, atol=1e-4, msg=name)
