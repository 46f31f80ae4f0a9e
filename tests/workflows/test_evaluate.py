"""The workflow `evaluate`, on noops: what it measures, keeps and refuses."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from crucible_kitchen import (
    Completion,
    ConfigurationError,
    Event,
    InvalidInput,
    Kitchen,
    NotFound,
    Step,
    TrainingResult,
    hookimpl,
)
from crucible_kitchen.workflows import run_in
from crucible_kitchen.workflows.evaluate import EvaluateConfig, EvaluationResult, check, plan
from crucible_kitchen.workflows.reinforcement import ReinforcementConfig
from rows_in_memory import RowsInMemory

import kitchen_noop

ROWS = {"model": "any", "dataset": "rows", "split": "test"}
SUMS = {"model": "any", "environment": "arithmetic", "test_size": 12, "max_tokens": 5}


def noops(**changed: Any) -> dict[str, Any]:
    quick = {name: {**table, "latency_scale": 0} for name, table in kitchen_noop.ADAPTERS.items()}
    return quick | changed


@pytest.fixture
def kitchen() -> Iterator[Kitchen]:
    with Kitchen(noops()) as made:
        yield made


def evaluate(kitchen: Kitchen, config: dict[str, Any], **changed: Any) -> EvaluationResult:
    result = run_in(kitchen, "evaluate", config | changed)
    assert isinstance(result, EvaluationResult)
    return result


def record(kitchen: Kitchen, run_id: str) -> dict[str, Any]:
    return dict(json.loads(kitchen.blob_store.read(f"{run_id}/run.json")))


def test_a_data_set_is_scored_by_its_nll_and_nothing_is_trained(kitchen: Kitchen) -> None:
    called: set[str] = set()

    def observe(event: Event) -> None:
        if event.attributes.get("port") == "training_client":
            called.add(event.attributes["callback"])

    kitchen.observe(observe)
    result = evaluate(kitchen, ROWS)
    assert set(result.metrics) == {"test/nll"}
    assert called.isdisjoint({"forward_backward", "optim_step", "save_checkpoint_async"})
    assert called >= {"forward", "close_session"}


def test_a_run_is_scored_as_it_scored_itself(kitchen: Kitchen) -> None:
    shared = {"model": "any", "dataset": "rows", "test_size": 0.1, "seed": 3, "exact_match": True}
    trained = run_in(kitchen, "supervised", {**shared, "max_steps": 5, "learning_rate": 0.1})
    assert isinstance(trained, TrainingResult)
    result = evaluate(kitchen, shared, from_checkpoint=trained.run_id)
    assert result.metrics["test/nll"] == trained.metrics["test/nll"]
    assert result.metrics["test/exact_match"] == trained.metrics["test/exact_match"]
    assert evaluate(kitchen, shared).metrics["test/nll"] > result.metrics["test/nll"]
    assert record(kitchen, result.run_id)["from_checkpoint"] == trained.checkpoint


def test_exact_match_comes_with_its_interval_and_the_completions() -> None:
    splits = {
        "test": [{"prompt": f"{n}? ", "completion": "one" if n % 4 else "two"} for n in range(12)]
    }
    speaks = {"use": kitchen_noop.completer, "latency_scale": 0, "completion_text": "one"}
    with Kitchen(noops(completer=speaks, dataset_store=RowsInMemory(splits))) as kitchen:
        result = evaluate(kitchen, ROWS, exact_match=True)
        assert result.metrics["test/exact_match"] == 0.75
        assert result.metrics["test/exact_match/low"] == pytest.approx(0.468, abs=1e-3)
        assert result.metrics["test/exact_match/high"] == pytest.approx(0.911, abs=1e-3)
        assert [(s.completion, s.answer, s.reward) for s in result.samples].count(
            ("one", "two", 0.0)
        ) == 3
        kept = kitchen.blob_store.read(f"{result.run_id}/samples/00000000.jsonl").splitlines()
        first = json.loads(kept[0])
        assert {"prompt", "completion", "reward", "answer"} == first.keys()
        assert len(kept) == len(result.samples) == 12


def test_problems_are_scored_by_reward_and_pass_at_k(kitchen: Kitchen) -> None:
    result = evaluate(kitchen, SUMS, samples=3, pass_at=[1, 3])
    assert len(result.samples) == 36
    assert result.metrics["test/env/all/reward/total"] == 0
    assert 0 < result.metrics["test/env/all/reward/total/high"] < 0.3
    assert result.metrics["test/pass@1"] == result.metrics["test/pass@3"] == 0
    prompts = [sample.prompt for sample in result.samples]
    assert prompts[0] == prompts[1] == prompts[2] != prompts[3]


def long(completion: Completion, row: Any) -> float:
    return float(len(completion.text) > 20)


def test_a_data_set_with_a_reward_is_problems(kitchen: Kitchen) -> None:
    config = {**ROWS, "reward": f"{__file__}:long", "samples": 4, "pass_at": [4]}
    result = evaluate(kitchen, config, max_tokens=30, messages_field="messages")
    rewards = np.array([sample.reward for sample in result.samples]).reshape(100, 4)
    assert result.metrics["test/env/all/reward/total"] == rewards.mean()
    assert result.metrics["test/pass@4"] == (rewards > 0).any(axis=1).mean()
    low, high = (result.metrics[f"test/env/all/reward/total/{end}"] for end in ("low", "high"))
    assert low < rewards.mean() < high


def test_the_same_settings_give_the_same_samples(kitchen: Kitchen) -> None:
    first, second = (evaluate(kitchen, SUMS, samples=2) for _ in range(2))
    assert first.samples == second.samples
    assert first.run_id != second.run_id


def test_the_results_are_those_of_a_run(kitchen: Kitchen) -> None:
    events: list[str] = []
    kitchen.observe(lambda event: events.append(event.name))
    result = evaluate(kitchen, ROWS, run_id="scores", exact_match=True)
    kept = record(kitchen, "scores")
    assert (kept["workflow"], kept["status"], kept["state"]["step"]) == ("evaluate", "done", 0)
    assert kept["metrics"] == result.metrics
    assert kept["depends_on"]["test"]["sha256"]
    recorded = {(e.metric, e.step): e.value for e in kitchen.metrics_store.read("scores")}
    assert recorded == {(name, 0): value for name, value in result.metrics.items()}
    for name in ("workflow.start", "training.eval", "training.samples", "workflow.stop"):
        assert name in events


def test_an_evaluation_that_is_done_is_read_and_not_repeated(kitchen: Kitchen) -> None:
    first = evaluate(kitchen, SUMS, run_id="scores")
    called: list[str] = []
    kitchen.observe(lambda event: called.append(event.attributes.get("port", "")))
    again = evaluate(kitchen, SUMS, run_id="scores")
    assert again == first
    assert "completer" not in called


def test_an_evaluation_that_failed_says_so_in_its_record(kitchen: Kitchen) -> None:
    class Deaf:
        @hookimpl
        def complete(self, prompt: Any, params: Any) -> Completion:
            raise NotFound("no such model")

        @hookimpl
        def complete_batch(self, prompts: Any, params: Any) -> list[Any]:
            return [NotFound("no such model") for _ in prompts]

    with Kitchen(noops(completer=Deaf())) as broken:
        with pytest.raises(NotFound):
            evaluate(broken, ROWS, exact_match=True, run_id="scores")
        assert record(broken, "scores")["status"] == "failed"


def test_an_evaluation_that_cannot_start_leaves_nothing(kitchen: Kitchen) -> None:
    with pytest.raises(NotFound):
        evaluate(kitchen, ROWS, dataset="rows", split="no such split")
    assert not kitchen.blob_store.list("")


@pytest.mark.parametrize(
    ("config", "amounts"),
    [
        (ROWS, {"test_sequences": 100, "test_tokens": 3960}),
        ({**SUMS, "samples": 3}, {"test_problems": 12, "completions": 36}),
        (
            {**ROWS, "model_of": "completer", "exact_match": True, "max_tokens": 8},
            {"completions": 100},
        ),
    ],
)
def test_what_would_be_evaluated_is_found_out_without_doing_so(
    kitchen: Kitchen, config: dict[str, Any], amounts: dict[str, int]
) -> None:
    made = kitchen.configure(EvaluateConfig, config, ("workflow",))
    found = plan(kitchen, made)
    assert found.amounts == amounts
    assert (found.steps, found.evaluations, found.checkpoints) == (0, 1, 0)
    assert ("model", "any") in list(check(kitchen, made))
    assert not kitchen.blob_store.list("")


# --- the completer alone ---


def test_a_completer_alone_answers_conversations() -> None:
    adapters = noops()
    del adapters["training_client"]
    with Kitchen(adapters) as kitchen:
        config = {**ROWS, "model_of": "completer", "exact_match": True, "max_tokens": 8}
        result = evaluate(kitchen, config)
        assert set(result.metrics) == {
            *("test/exact_match", "test/exact_match/low", "test/exact_match/high"),
        }
        assert result.samples[0].prompt.startswith("user: What is ")
        assert record(kitchen, result.run_id)["evaluated"] == "any"


def test_the_id_of_a_run_stands_for_its_weights_in_a_completer(kitchen: Kitchen) -> None:
    trained = run_in(kitchen, "supervised", {"model": "any", "dataset": "rows", "max_steps": 2})
    alone = {**ROWS, "model_of": "completer", "exact_match": True, "max_tokens": 8}
    result = evaluate(kitchen, alone, model=trained.run_id)
    assert record(kitchen, result.run_id)["evaluated"] == trained.weights


def test_a_completer_alone_is_not_asked_what_needs_a_tokenizer() -> None:
    rows = RowsInMemory({"test": [{"prompt": "1+1=", "completion": "2"}]})
    with Kitchen(noops(dataset_store=rows)) as kitchen:
        config = {**ROWS, "model_of": "completer", "exact_match": True, "max_tokens": 8}
        with pytest.raises(InvalidInput, match=r"row 0 of rows \[test\]: it is not a conversation"):
            evaluate(kitchen, config)


def test_a_completer_alone_plays_problems_as_conversations() -> None:
    adapters = noops()
    del adapters["training_client"]
    asked = {**ROWS, "messages_field": "messages", "reward": f"{__file__}:long"}
    alone = {"model_of": "completer", "max_tokens": 30, "samples": 4, "pass_at": [4]}
    with Kitchen(adapters) as kitchen:
        result = evaluate(kitchen, asked, **alone)
        again = evaluate(kitchen, asked, **alone)
    rewards = np.array([sample.reward for sample in result.samples]).reshape(100, 4)
    assert 0 < rewards.mean() < 1
    assert result.metrics["test/env/all/reward/total"] == pytest.approx(rewards.mean())
    assert result.metrics["test/pass@4"] == (rewards > 0).any(axis=1).mean()
    assert result.samples == again.samples
    assert result.samples[0].prompt.startswith("user: What is ")


class Riddle:
    """Three turns, in which the last answer but one is repeated to the model."""

    def reset(self, seed: int) -> Any:
        self.said: list[str] = []
        return [{"role": "user", "content": f"riddle {seed}"}]

    def step(self, completion: Completion) -> Step:
        self.said.append(completion.text)
        more = [{"role": "user", "content": f"not {completion.text}"}]
        return Step(reward=1.0, done=len(self.said) == 3, observation=more)


def test_a_completer_alone_plays_several_turns() -> None:
    config = {"model": "any", "environment": f"{__file__}:Riddle", "test_size": 2}
    with Kitchen(noops()) as kitchen:
        result = evaluate(kitchen, config, model_of="completer", max_tokens=90)
        cut = evaluate(kitchen, config, model_of="completer", max_tokens=90, max_turns=2)
    assert result.metrics["test/env/all/reward/total"] == 3
    assert result.metrics["test/env/all/turns_per_episode"] == 3
    assert result.samples[0].prompt == f"user: riddle {2**31}"
    first, second, *_ = result.samples[0].completion.splitlines()
    assert second == f"user: not {first.removeprefix('assistant: ')}"
    assert cut.metrics["test/env/all/frac_truncated"] == 1


def test_episodes_are_as_long_as_those_of_training() -> None:
    configs = (EvaluateConfig, ReinforcementConfig)
    assert len({config.model_fields["max_turns"].default for config in configs}) == 1


def test_a_completer_alone_is_not_asked_texts(kitchen: Kitchen) -> None:
    with pytest.raises(InvalidInput, match=r"arithmetic, seed \d+ asks a text"):
        evaluate(kitchen, SUMS, model_of="completer")


# --- what is refused ---


@pytest.mark.parametrize(
    ("config", "says"),
    [
        ({**ROWS, "samples": 2}, "samples does not concern rows with answers"),
        ({**SUMS, "exact_match": True}, "exact_match does not concern problems"),
        ({**SUMS, "pass_at": [4]}, "pass@4 needs samples = 4"),
        ({**ROWS, "streaming": True}, "streaming"),
        ({**ROWS, "batch_size": 4}, "batch_size concerns training"),
        ({**ROWS, "model_of": "completer"}, "set exact_match = true"),
        (
            {**ROWS, "model_of": "completer", "from_checkpoint": "x"},
            "from_checkpoint is of a train",
        ),
        ({"model": "any"}, "give environment, or dataset"),
    ],
)
def test_settings_that_would_be_ignored_or_cannot_be_are_refused(
    kitchen: Kitchen, config: dict[str, Any], says: str
) -> None:
    with pytest.raises(ConfigurationError, match=says):
        evaluate(kitchen, config)


class Counting:
    """An environment with problems without end."""

    def reset(self, seed: int) -> str:
        return f"{seed} "

    def step(self, completion: Completion) -> Step:
        return Step(reward=0.5)


def test_problems_without_end_need_a_number_of_them(kitchen: Kitchen) -> None:
    config = {"model": "any", "environment": f"{__file__}:Counting"}
    with pytest.raises(ConfigurationError, match=r"test_size.*say how many"):
        evaluate(kitchen, config)
    result = evaluate(kitchen, config, test_size=3)
    # The same ones that training with this test_size holds out.
    assert [sample.prompt for sample in result.samples] == [f"{2**31 + n} " for n in range(3)]


def test_a_training_client_without_forward_measures_no_nll(
    kitchen: Kitchen, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kitchen.training_client, "supports", lambda name: name != "forward")
    with pytest.raises(ConfigurationError, match="has no forward"):
        evaluate(kitchen, ROWS)
