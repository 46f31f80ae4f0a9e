"""The workflows run unchanged on a server of Tinker's API: SkyRL, with a tiny model."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pytest
from crucible_kitchen import Completion, Kitchen, TrainingResult
from crucible_kitchen.environments import Observation, Step
from crucible_kitchen.workflows import run_in
from rows_in_memory import Row, RowsInMemory

import kitchen_noop

if TYPE_CHECKING:
    from skyrl_server import SkyrlServer

pytestmark = pytest.mark.slow

CONFIG: Mapping[str, Any] = {
    "run_id": "r",
    "lora": {"rank": 4},
    "batch_size": 4,
    "learning_rate": 1e-2,
    "lr_schedule": "constant",
}
SUMS: Sequence[Row] = [{"prompt": f"{i}+1=", "completion": str(i + 1)} for i in range(8)]


class EvenTokens:
    """A completion is worth the share of its token ids that are even."""

    size = 8

    def reset(self, seed: int) -> Observation:
        return f"{seed}:"

    def step(self, completion: Completion) -> Step:
        assert completion.tokens is not None
        return Step(reward=float((completion.tokens % 2 == 0).mean()), done=True)


def run(
    skyrl: SkyrlServer, workflow: str, rows: Sequence[Row], **settings: Any
) -> tuple[TrainingResult, dict[tuple[str, int | None], float]]:
    """Run a workflow; return its result, and what it recorded by metric and step."""
    quick = {name: {**table, "latency_scale": 0} for name, table in kitchen_noop.ADAPTERS.items()}
    adapters = {
        **quick,
        "training_client": {"use": "tinker", "base_url": skyrl.base_url},
        "completer": {"use": "tinker", "base_url": skyrl.base_url},
        "dataset_store": RowsInMemory({"train": rows, "test": rows[:4]}),
    }
    with Kitchen(adapters) as kitchen:
        result = run_in(kitchen, workflow, {**CONFIG, "model": skyrl.model, **settings})
        entries = kitchen.metrics_store.read("r")
    return result, {(entry.metric, entry.step): entry.value for entry in entries}


def test_supervised_learning_lowers_the_loss_of_rows_that_it_does_not_train_on(
    skyrl: SkyrlServer,
) -> None:
    result, recorded = run(
        skyrl,
        "supervised",
        SUMS,
        dataset="sums",
        test_split="test",
        max_steps=12,
        eval_on_start=True,
    )
    assert recorded["test/nll", 12] < 0.7 * recorded["test/nll", 0]
    assert result.metrics["test/nll"] == recorded["test/nll", 12]


def test_preference_learning_starts_at_the_loss_of_a_coin_and_lowers_it(
    skyrl: SkyrlServer,
) -> None:
    rows = [{"prompt": f"{i}+1=", "chosen": str(i + 1), "rejected": str(i + 2)} for i in range(8)]
    _, recorded = run(skyrl, "preference", rows, dataset="pairs", max_steps=8)
    losses = [recorded["dpo_loss", step] for step in range(1, 9)]
    assert losses[0] == pytest.approx(math.log(2), abs=1e-4)
    assert losses[-1] < 0.8 * losses[0]


def test_reinforcement_learning_samples_from_the_weights_that_it_trains(
    skyrl: SkyrlServer,
) -> None:
    _, recorded = run(
        skyrl,
        "reinforcement",
        SUMS,
        environment=EvenTokens,
        test_size=4,
        group_size=4,
        max_steps=4,
        max_tokens=4,
    )
    for step in range(1, 5):
        assert recorded["sampler/logprob_diff", step] < 1e-4
        assert recorded["grad_norm", step] > 0
