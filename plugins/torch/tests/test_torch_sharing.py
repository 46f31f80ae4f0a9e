"""Weights are not copied for sampling before training changes them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest
import torch
from crucible_adapter_torch.adaptation.merging import merged_copy
from crucible_adapter_torch.models.language_model import LanguageModel
from crucible_adapter_torch.models.loading import load
from crucible_adapter_torch.options import ModelOptions
from crucible_adapter_torch.passes.batches import datum_pieces
from crucible_adapter_torch.training.engine import Engine
from crucible_kitchen import LOSS_FUNCTIONS, AdamParams, AdapterError, LoraConfig, SessionConfig
from tiny_torch import LLAMA, datum

TIED = {**LLAMA, "tie_word_embeddings": True}
EXPERTS = {
    **LLAMA,
    "model_type": "mixtral",
    "num_key_value_heads": 2,
    "num_local_experts": 4,
    "num_experts_per_tok": 2,
}
SIZES: dict[str, dict[str, Any]] = {"tiny": LLAMA, "tied": TIED, "experts": EXPERTS}
LORA = LoraConfig(rank=2)
IDS = torch.tensor([[1, 2, 3, 4]])


def engine_of(lora: LoraConfig | None, model: str = "tiny") -> Engine:
    language = load(ModelOptions(models=SIZES, device="cpu"), model, precise=True)
    engine = Engine(language, SessionConfig(model, lora=lora))
    step(engine)
    return engine


def step(engine: Engine, rate: float = 1e-1) -> None:
    inputs = LOSS_FUNCTIONS["cross_entropy"].inputs
    engine.forward_backward(datum_pieces([datum([1, 2, 3, 4])], inputs, 100), "cross_entropy", {})
    engine.optim_step(rate, AdamParams())


def bytes_of(*models: Any) -> int:
    """Return the bytes of the weights of models, those that they share once."""
    storages = {
        weight.untyped_storage().data_ptr(): weight.untyped_storage().nbytes()
        for model in models
        for weight in model.parameters()
    }
    return sum(storages.values())


def trained(engine: Engine) -> int:
    return sum(weight.nbytes for weight in engine.weights.values())


def logits(language: LanguageModel) -> torch.Tensor:
    with torch.no_grad():
        return language.logits(IDS)


def places(weights: Iterable[torch.Tensor]) -> list[int]:
    return [weight.data_ptr() for weight in weights]


@pytest.mark.parametrize("model", ["tiny", "tied"])
@pytest.mark.parametrize("lora", [None, LORA], ids=["full", "lora"])
def test_a_snapshot_takes_no_memory_until_the_next_step_and_then_what_is_trained(
    lora: LoraConfig | None, model: str
) -> None:
    engine = engine_of(lora, model)
    before = bytes_of(engine.model)
    snapshot = engine.snapshot()
    assert bytes_of(engine.model, snapshot.model) == before
    step(engine)
    assert bytes_of(engine.model, snapshot.model) == before + trained(engine)
    where = places(engine.weights.values())
    step(engine)
    assert bytes_of(engine.model, snapshot.model) == before + trained(engine)
    assert places(engine.weights.values()) == where  # they need not move again


@pytest.mark.parametrize("lora", [None, LORA], ids=["full", "lora"])
def test_a_step_copies_nothing_for_a_snapshot_that_is_gone(lora: LoraConfig | None) -> None:
    engine = engine_of(lora)
    snapshot = engine.snapshot()
    where = places(engine.weights.values())
    del snapshot
    step(engine)
    assert places(engine.weights.values()) == where


def test_a_step_that_is_not_taken_copies_nothing() -> None:
    engine = engine_of(None)
    snapshot = engine.snapshot()
    where = places(engine.weights.values())
    next(iter(engine.weights.values())).grad = torch.full_like(
        next(iter(engine.weights.values())), float("nan")
    )
    with pytest.raises(AdapterError, match="not finite"):
        engine.optim_step(1e-1, AdamParams())
    assert places(engine.weights.values()) == where == places(snapshot.model.parameters())


@pytest.mark.parametrize("model", ["tiny", "tied", "experts"])
@pytest.mark.parametrize("lora", [None, LORA], ids=["full", "lora"])
def test_each_snapshot_is_the_model_of_its_moment(lora: LoraConfig | None, model: str) -> None:
    engine = engine_of(lora, model)
    moments = []
    for _ in range(3):
        moments.append((engine.snapshot(), logits(engine.language)))
        step(engine)
    for snapshot, expected in moments:
        torch.testing.assert_close(logits(snapshot), expected, atol=1e-5, rtol=1e-5)
    assert not torch.allclose(moments[0][1], moments[1][1], atol=1e-3)


def test_a_snapshot_keeps_its_weights_when_others_are_restored() -> None:
    engine = engine_of(None)
    weights = {name: weight.detach().clone() for name, weight in engine.weights.items()}
    step(engine)
    snapshot, expected = engine.snapshot(), logits(engine.language)
    engine.restore(weights, {}, engine.randomness())
    torch.testing.assert_close(logits(snapshot), expected)
    assert not torch.allclose(logits(engine.language), expected, atol=1e-3)


def test_a_tensor_that_someone_holds_of_a_snapshot_does_not_change() -> None:
    """As an engine does that is given the weights one after the other while training goes on."""
    engine = engine_of(None)
    held = {name: weight.detach() for name, weight in engine.snapshot().model.named_parameters()}
    snapshot = engine.snapshot()
    expected = {name: weight.clone() for name, weight in held.items()}
    step(engine)
    del snapshot
    torch.testing.assert_close(held, expected, atol=0, rtol=0)


def test_training_is_the_same_to_the_bit_with_snapshots() -> None:
    plain, observed = engine_of(LORA), engine_of(LORA)
    for _ in range(3):
        snapshot = observed.snapshot()
        step(plain)
        step(observed)
        assert snapshot.model is not observed.model
    for name, weight in plain.weights.items():
        assert torch.equal(weight, observed.weights[name])


def test_merging_copies_adapted_weights_only() -> None:
    engine = engine_of(LoraConfig(rank=2, targets=("attn",)))
    attention = [w for n, w in engine.model.named_parameters() if "proj.base_layer" in n]
    merged = merged_copy(engine.model)
    more = bytes_of(engine.model, merged) - bytes_of(engine.model)
    assert more == sum(weight.nbytes for weight in attention)
