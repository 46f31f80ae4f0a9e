"""Training through wrappers ends where training without them ends."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from crucible_kitchen import (
    PORTS,
    AdapterOptions,
    Call,
    Event,
    Kitchen,
    TrainingClient,
    hookimpl,
)
from crucible_kitchen.workflows import run_in

needs_compose = pytest.mark.skipif(
    importlib.util.find_spec("crucible_adapter_compose") is None,
    reason="crucible-adapter-compose is not installed",
)
needs_torch = pytest.mark.skipif(
    importlib.util.find_spec("crucible_adapter_torch") is None,
    reason="crucible-adapter-torch is not installed",
)
pytestmark = needs_compose

STEPS = 30
CONFIG = {
    "model": "small",
    "dataset": "sums",
    "train_on": "all_tokens",
    "batch_size": 4,
    "max_steps": STEPS,
    "learning_rate": 1e-2,
    "adam": {"weight_decay": 0.01, "grad_clip_norm": 1.0},
    "save_every": 3,
    "run_id": "run",
}
NOOP = {"use": "noop", "latency_scale": 0}

# One in five fails. What is lost is then lost after it took effect, where the workflow can help.
TRANSIENT = {"failure_rate": 0.2, "seed": 3}
LOSING = {"forward_backward", "optim_step", "await_", "save_checkpoint_async", "load_checkpoint"}
LOST = {"failure_rate": 0.2, "lost_answers": 0.5, "seed": 3, "callbacks": sorted(LOSING)}


class Counted:
    """Counts the calls that reach the adapter behind it, and the failures on the way there."""

    class Options(AdapterOptions):
        inner: TrainingClient

    def __init__(self) -> None:
        self.calls: dict[str, int] = {}
        self.failures = 0

    @hookimpl
    def around(self, call: Call) -> Any:
        result = call()
        self.calls[call.name] = self.calls.get(call.name, 0) + 1
        return result

    def observe(self, event: Event) -> None:
        told = event.attributes
        self.failures += told.get("adapter") == "faulty" and told["error"] == "Unavailable"


def retried(adapter: Mapping[str, Any], faults: Mapping[str, Any]) -> dict[str, Any]:
    faulty = {"use": "faulty", "inner": adapter, **faults}
    return {"use": "retry", "inner": faulty, "max_attempts": 30, "wait": 0.0}


def test_a_run_on_noops_that_fail_one_time_in_five_records_what_one_that_never_fails_does() -> None:
    found = []
    for wrap in (dict, lambda adapter: retried(adapter, TRANSIENT)):
        ports = [port for port in PORTS if port not in ("hub_client", "completer")]
        with Kitchen({port: wrap(NOOP) for port in ports}) as kitchen:
            result = run_in(kitchen, "supervised", CONFIG)
            rows = kitchen.metrics_store.read("run")
            assert kitchen.blob_store.exists("run/run.json")
        timed = ("time/step", "tokens_per_second")
        found.append([(r.metric, r.step, r.value) for r in rows if r.metric not in timed])
        assert result.steps == STEPS
    assert found[0] == found[1]
    assert len(found[0]) > 4 * STEPS


# --- a real model ---


def torch_adapter(folder: Path) -> dict[str, Any]:
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    small = {"model_type": "llama", **sizes, "intermediate_size": 64}
    return {
        "use": "torch",
        "device": "cpu",
        "threads": 1,
        "checkpoint_dir": str(folder),
        "models": {"small": {**small, "max_position_embeddings": 128}},
    }


def train(folder: Path, faults: Mapping[str, Any] | None, **config: Any) -> tuple[Any, Counted]:
    """Train; return what the last checkpoint holds, and the count of what reached the model."""
    from crucible_adapter_torch.checkpoints import stored

    counted = Counted()
    client: dict[str, Any] = {"use": counted, "inner": torch_adapter(folder)}
    if faults is not None:
        client = retried(client, faults)
    others = dict.fromkeys(("dataset_store", "blob_store", "metrics_store"), NOOP)
    with Kitchen({"training_client": client, **others}) as kitchen:
        kitchen.observe(counted.observe)
        result = run_in(kitchen, "supervised", {**CONFIG, **config})
        losses = [r for r in kitchen.metrics_store.read("run") if r.metric == "train_mean_nll"]
    assert [row.step for row in losses] == list(range(1, STEPS + 1))
    return stored.read(folder / result.checkpoint, with_moments=True), counted


def assert_equal_to_the_bit(one: Any, other: Any) -> None:
    for kind in ("weights", "moments"):
        left, right = getattr(one, kind), getattr(other, kind)
        assert left.keys() == right.keys()
        for name in left:
            np.testing.assert_array_equal(left[name].numpy(), right[name].numpy(), name)
    assert one.facts["randomness"] == other.facts["randomness"]


def steps_in(checkpoint: Any) -> set[float]:
    """How often the optimizer was applied to each weight, as it counts itself."""
    return {m.item() for name, m in checkpoint.moments.items() if name.startswith("step.")}


LORA = {"lora": {"rank": 4, "alpha": 8.0, "dropout": 0.1}}


@needs_torch
@pytest.mark.slow
@pytest.mark.parametrize("config", [{}, LORA], ids=["every weight", "low rank with dropout"])
def test_training_that_fails_one_time_in_five_ends_with_the_same_weights(
    tmp_path: Path, config: Mapping[str, Any]
) -> None:
    plain, plain_calls = train(tmp_path / "plain", None, **config)
    rough, rough_calls = train(tmp_path / "rough", TRANSIENT, **config)
    assert plain_calls.failures == 0
    assert rough_calls.failures > STEPS / 2
    assert_equal_to_the_bit(plain, rough)
    assert steps_in(rough) == {float(STEPS)}
    for name in ("forward_backward", "optim_step"):  # none is applied twice, none is left out
        assert plain_calls.calls[name] == rough_calls.calls[name] == STEPS


@needs_torch
@pytest.mark.slow
@pytest.mark.parametrize("config", [{}, LORA], ids=["every weight", "low rank with dropout"])
def test_where_answers_are_lost_the_workflow_goes_back_and_ends_with_the_same_weights(
    tmp_path: Path, config: Mapping[str, Any]
) -> None:
    """What may have been applied is not sent again: the session goes back to its checkpoint."""
    plain, _ = train(tmp_path / "plain", None, **config)
    rough, calls = train(tmp_path / "rough", LOST, max_restarts=100, **config)
    assert_equal_to_the_bit(plain, rough)
    assert steps_in(rough) == {float(STEPS)}
    assert calls.calls["load_checkpoint"] > 3
    assert calls.calls["optim_step"] > STEPS  # those that the restarts threw away
