"""Distillation with real models: the addition model teaches one that half unlearned to add."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from crucible_kitchen import Kitchen, SessionConfig, TrainingResult
from crucible_kitchen.workflows import run_in
from crucible_kitchen.workflows.sampling.canary import StaleWeights

import kitchen_noop

if TYPE_CHECKING:
    from addition_model import AdditionModel

torch = pytest.importorskip("torch", reason="torch is not installed")

SHAPE = {"hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 32}
MODELS = {
    "student": {**SHAPE, "num_hidden_layers": 1, "max_position_embeddings": 64},
    "teacher": {**SHAPE, "num_hidden_layers": 2, "max_position_embeddings": 64},
    "foreign": {
        **SHAPE,
        "num_hidden_layers": 1,
        "max_position_embeddings": 64,
        "special_tokens": ["<|one|>", "<|two|>"],
    },
}
CONFIG: dict[str, Any] = {
    "model": "student",
    "environment": "arithmetic",
    "test_size": 8,
    "teacher_model": "teacher",
    "batch_size": 4,
    "samples": 2,
    "max_steps": 4,
    "max_tokens": 6,
    "learning_rate": 1e-2,
}
TIMES = ("time/step", "tokens_per_second")


@pytest.fixture
def kitchen(tmp_path: Path) -> Iterator[Kitchen]:
    quick = {name: {**table, "latency_scale": 0} for name, table in kitchen_noop.ADAPTERS.items()}
    torch = {"use": "torch", "device": "cpu", "models": MODELS}
    adapters = {
        **quick,
        "training_client": {**torch, "checkpoint_dir": str(tmp_path)},
        "completer": torch,
    }
    with Kitchen(adapters) as made:
        yield made


def distil(kitchen: Kitchen, **changed: Any) -> TrainingResult:
    result = run_in(kitchen, "distillation", {**CONFIG, **changed})
    assert isinstance(result, TrainingResult)
    return result


def rows(kitchen: Kitchen, run_id: str) -> dict[tuple[str, int | None], float]:
    found = kitchen.metrics_store.read(run_id)
    return {(row.metric, row.step): row.value for row in found if row.metric not in TIMES}


def weights(result: TrainingResult) -> dict[str, Any]:
    from safetensors.torch import load_file

    assert result.weights is not None
    return dict(load_file(Path(result.weights) / "model.safetensors"))


def test_a_teacher_in_a_training_client_says_what_one_in_a_completer_says(
    kitchen: Kitchen,
) -> None:
    client = {"use": "torch", "device": "cpu", "models": MODELS}
    by_completer = rows(kitchen, distil(kitchen).run_id)
    by_client = rows(kitchen, distil(kitchen, teacher_client=client).run_id)
    assert by_completer["teacher_kl", 1] > 0
    assert by_client["teacher_kl", 1] == pytest.approx(by_completer["teacher_kl", 1], abs=1e-4)


@pytest.mark.parametrize("teacher", [{}, {"teacher_client": {"use": "torch", "models": MODELS}}])
def test_a_teacher_with_other_special_tokens_has_another_vocabulary(
    kitchen: Kitchen, teacher: dict[str, Any]
) -> None:
    from crucible_kitchen import ConfigurationError

    with pytest.raises(ConfigurationError, match="the teacher has another vocabulary"):
        distil(kitchen, model="foreign", **teacher)


class Stopped(BaseException):
    pass


@pytest.mark.parametrize("on_policy", [True, False])
def test_a_run_that_is_killed_and_continued_has_the_same_weights_to_the_bit(
    kitchen: Kitchen, monkeypatch: pytest.MonkeyPatch, on_policy: bool
) -> None:
    common = {"on_policy": on_policy, "save_every": 2, "eval_every": 3}
    whole = distil(kitchen, run_id="whole", **common)
    submit, seen = kitchen.training_client.forward_backward, []

    def stop(*arguments: Any) -> Any:
        seen.append(arguments)
        if len(seen) == 4:
            raise Stopped
        return submit(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(kitchen.training_client, "forward_backward", stop)
        with pytest.raises(Stopped):
            distil(kitchen, run_id="killed", **common)
    result = distil(kitchen, run_id="killed", **common)
    assert rows(kitchen, "killed") == rows(kitchen, "whole")
    before, after = weights(whole), weights(result)
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)


@pytest.mark.parametrize("learning_rate", [1e-2, 1e-4])
def test_a_sampler_that_keeps_its_first_weights_is_caught_at_the_first_step(
    kitchen: Kitchen, monkeypatch: pytest.MonkeyPatch, learning_rate: float
) -> None:
    from crucible_adapter_torch import live_weights

    find, kept = live_weights.find, []

    def stale(reference: str) -> Any:
        kept.append(find(reference))
        return kept[0]

    monkeypatch.setattr(live_weights, "find", stale)
    submitted = []
    submit = kitchen.training_client.forward_backward

    def watch(*arguments: Any) -> Any:
        submitted.append(arguments)
        return submit(*arguments)

    monkeypatch.setattr(kitchen.training_client, "forward_backward", watch)
    with pytest.raises(StaleWeights, match="the completer 'torch' is stale"):
        distil(kitchen, learning_rate=learning_rate, lr_schedule="constant")
    assert len(submitted) == 1  # nothing is learned from what old weights sampled


@pytest.mark.slow
def test_a_student_comes_to_say_what_its_teacher_says(addition_model: AdditionModel) -> None:
    from addition_model import ADAM

    with addition_model.kitchen() as kitchen:
        client = kitchen.training_client
        trained = SessionConfig("tiny", from_checkpoint=addition_model.trained)
        session = client.start_session(trained)
        teacher = client.save_weights_for_sampler(session, "teacher")
        client.close_session(session)
        result = distil(
            kitchen,
            model="tiny",
            from_checkpoint=addition_model.start,
            teacher_model=teacher,
            test_size=256,
            batch_size=64,
            samples=4,
            max_steps=40,
            max_tokens=8,
            learning_rate=3e-4,
            lr_schedule="constant",
            adam=ADAM,
            eval_on_start=True,
        )
        recorded = rows(kitchen, result.run_id)
    before, after = (recorded["test/teacher_kl", step] for step in (0, 40))
    assert after < 0.2 * before
    assert recorded["test/env/all/reward/total", 40] > 0.8
    assert max(v for (name, _), v in recorded.items() if name == "sampler/logprob_diff") < 1e-4
