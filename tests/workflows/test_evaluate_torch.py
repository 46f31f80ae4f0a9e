"""`evaluate` with real models."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from crucible_kitchen import Kitchen, TrainingResult
from crucible_kitchen.workflows import run_in
from crucible_kitchen.workflows.evaluate import EvaluationResult
from rows_in_memory import RowsInMemory

import kitchen_noop

if TYPE_CHECKING:
    from addition_model import AdditionModel

pytest.importorskip("torch", reason="torch is not installed")

TEMPLATE = Path(__file__).resolve().parents[2] / "docs" / "examples" / "chat" / "template.jinja"
TINY = {
    "model_type": "llama",
    "chat_template": str(TEMPLATE),
    "special_tokens": ["<|im_start|>", "<|im_end|>"],
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "max_position_embeddings": 128,
}
CHAT = [
    {
        "messages": [
            {"role": "user", "content": f"{n}?"},
            {"role": "assistant", "content": "yes"},
        ]
    }
    for n in range(8)
]


@pytest.fixture
def kitchen(tmp_path: Path) -> Iterator[Kitchen]:
    quick = {name: {**table, "latency_scale": 0} for name, table in kitchen_noop.ADAPTERS.items()}
    torch = {"use": "torch", "device": "cpu", "models": {"tiny": TINY}}
    adapters = {
        **quick,
        "dataset_store": RowsInMemory({"train": CHAT, "test": CHAT}),
        "training_client": {**torch, "checkpoint_dir": str(tmp_path)},
        "completer": torch,
    }
    with Kitchen(adapters) as made:
        yield made


def evaluate(kitchen: Kitchen, **config: Any) -> EvaluationResult:
    result = run_in(kitchen, "evaluate", {"model": "tiny", **config})
    assert isinstance(result, EvaluationResult)
    return result


def test_a_run_its_checkpoint_and_its_weights_alone_score_the_same(kitchen: Kitchen) -> None:
    rows = {"dataset": "rows", "exact_match": True, "max_tokens": 32}
    settings = {"test_split": "test", "max_steps": 60, "learning_rate": 3e-2}
    trained = run_in(kitchen, "supervised", {"model": "tiny", **rows, **settings})
    assert isinstance(trained, TrainingResult)
    assert trained.metrics["test/exact_match"] == 1
    of_run = evaluate(kitchen, **rows, split="test", from_checkpoint=trained.run_id)
    assert of_run.metrics["test/nll"] == pytest.approx(trained.metrics["test/nll"], rel=1e-5)
    assert of_run.metrics["test/exact_match"] == 1
    alone = {**rows, "split": "test", "model_of": "completer"}
    assert evaluate(kitchen, **alone | {"model": trained.run_id}).metrics["test/exact_match"] == 1
    assert evaluate(kitchen, **alone | {"model": "tiny"}).metrics["test/exact_match"] == 0


@pytest.mark.slow
def test_the_addition_model_adds_and_the_one_that_half_unlearned_it_does_so_at_times(
    addition_model: AdditionModel,
) -> None:
    sums = {"environment": "arithmetic", "test_size": 100, "samples": 4, "pass_at": [1, 4]}
    with addition_model.kitchen() as kitchen:
        whole, half = (
            evaluate(kitchen, from_checkpoint=checkpoint, max_tokens=8, **sums)
            for checkpoint in (addition_model.trained, addition_model.start)
        )
        rows = evaluate(
            kitchen,
            from_checkpoint=addition_model.trained,
            dataset="rows",
            split="test",
            exact_match=True,
        )
    assert whole.metrics["test/env/all/reward/total"] > 0.9
    assert whole.metrics["test/env/all/reward/total/low"] > 0.85
    assert half.metrics["test/pass@4"] > 1.5 * half.metrics["test/pass@1"] > 0
    assert half.metrics["test/env/all/reward/total/high"] < 0.6
    assert rows.metrics["test/exact_match"] > 0.9
    assert rows.metrics["test/nll"] < 0.1
