"""Everything a workflow can do runs on noops alone."""

from typing import Any

import pytest
from crucible_kitchen import AdapterError, Kitchen
from crucible_kitchen.workflows import run_in

import kitchen_noop

CONFIG: dict[str, Any] = {
    "model": "any",
    "dataset": "sums",
    "test_split": "test",
    "exact_match": True,
    "max_steps": 40,
    "batch_size": 8,
    "save_every": 5,
    "run_id": "run",
}


def train(
    max_restarts: int = 40, **training_client: Any
) -> tuple[Any, list[tuple[str, float, int | None]]]:
    """Run it; return its result and the metrics that do not depend on the clock."""
    adapters = {
        port: {**table, "latency_scale": 0} for port, table in kitchen_noop.ADAPTERS.items()
    }
    adapters["training_client"] |= training_client
    with Kitchen(adapters=adapters) as kitchen:
        result = run_in(kitchen, "supervised", {**CONFIG, "max_restarts": max_restarts})
        rows = kitchen.metrics_store.read("run")
        timed = ("time/", "tokens_per_second")
        return result, [(r.metric, r.value, r.step) for r in rows if not r.metric.startswith(timed)]


def test_a_supervised_run_learns() -> None:
    result, rows = train()
    losses = [value for metric, value, _ in rows if metric == "train_mean_nll"]
    assert len(losses) == 40
    assert losses[0] > losses[10] > losses[-1]
    assert result.metrics["test/exact_match"] == 0.0


def test_a_run_whose_sessions_fail_ends_as_one_whose_sessions_do_not() -> None:
    with pytest.raises(AdapterError):
        train(failure_rate=0.05, max_restarts=0)
    assert train(failure_rate=0.05)[1] == train()[1]
