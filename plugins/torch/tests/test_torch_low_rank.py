"""An update that is applied beside a projection gives what it gives in training, and merged."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from crucible_adapter_torch.adaptation.low_rank import LowRank
from crucible_adapter_torch.adaptation.merging import merged_copy
from crucible_adapter_torch.models.loading import load
from crucible_adapter_torch.options import ModelOptions
from crucible_adapter_torch.training.engine import Engine
from crucible_kitchen import LoraConfig, SessionConfig
from tiny_torch import MODELS

IDS = torch.tensor([[1, 2, 3, 4], [5, 6, 7, 8]])


def adapted(model: str, dtype: Any = "float32") -> Engine:
    options = ModelOptions(models=MODELS, device="cpu", dtype=dtype)
    language = load(options, model, precise=True)
    engine = Engine(language, SessionConfig(model, lora=LoraConfig(rank=2, alpha=8)))
    torch.manual_seed(0)
    with torch.no_grad():
        for weight in engine.weights.values():
            weight.normal_(0, 0.3)
    return engine


@pytest.mark.parametrize("model", ["tiny", "gpt2"])
@torch.no_grad()
def test_what_is_sampled_from_is_what_is_trained(model: str) -> None:
    engine = adapted(model)
    snapshot = engine.snapshot()
    assert any(isinstance(module, LowRank) for module in snapshot.model.modules())
    engine.model.eval()
    expected = engine.language.logits(IDS)
    torch.testing.assert_close(snapshot.logits(IDS), expected, atol=1e-5, rtol=1e-5)
    base = load(ModelOptions(models=MODELS, device="cpu"), model)
    assert not torch.allclose(base.logits(IDS), expected, atol=1e-2)


@torch.no_grad()
def test_it_is_in_bfloat16_where_training_is() -> None:
    engine = adapted("tiny", "bfloat16")
    snapshot = engine.snapshot()
    engine.model.eval()
    with snapshot.autocast():
        found, expected = snapshot.logits(IDS), engine.language.logits(IDS)
    assert found.dtype == expected.dtype
    torch.testing.assert_close(found, expected, atol=3e-2, rtol=3e-2)


@pytest.mark.parametrize("model", ["tiny", "gpt2"])
@torch.no_grad()
def test_a_snapshot_can_be_merged_and_stays_as_it_is(model: str) -> None:
    engine = adapted(model)
    snapshot = engine.snapshot()
    expected = snapshot.logits(IDS)
    merged = merged_copy(snapshot.model)
    plain = load(ModelOptions(models=MODELS, device="cpu"), model).model
    assert [*merged.state_dict()] == [*plain.state_dict()]
    torch.testing.assert_close(merged(IDS).logits, expected, atol=1e-5, rtol=1e-5)
    assert torch.equal(snapshot.logits(IDS), expected)
