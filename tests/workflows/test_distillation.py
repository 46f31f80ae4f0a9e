"""The workflow `distillation`, on noops: what is learned, measured, kept and refused."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from crucible_kitchen import (
    Completer,
    Completion,
    ConfigurationError,
    Datum,
    Kitchen,
    TrainingResult,
)
from crucible_kitchen.workflows import run_in
from crucible_kitchen.workflows.distillation import check, preview
from crucible_kitchen.workflows.sampling.canary import StaleWeights
from crucible_kitchen.workflows.teachers.teaching import DistillationConfig

import kitchen_noop

CONFIG: dict[str, Any] = {
    "model": "any",
    "dataset": "rows",
    "messages_field": "messages",
    "test_size": 10,
    "teacher_model": "wise",
    "samples": 2,
    "batch_size": 4,
    "max_steps": 6,
    "max_tokens": 12,
    "learning_rate": 0.01,
}
OFF_POLICY = {**CONFIG, "on_policy": False}
TIMES = ("time/step", "tokens_per_second")


def noops(**changed: Any) -> dict[str, Any]:
    quick = {name: {**table, "latency_scale": 0} for name, table in kitchen_noop.ADAPTERS.items()}
    return quick | changed


@pytest.fixture
def kitchen() -> Iterator[Kitchen]:
    with Kitchen(noops()) as made:
        yield made


@pytest.fixture
def teacher() -> Iterator[Completer]:
    """A teacher of its own, whose calls can be watched."""
    with Kitchen(noops()) as made:
        yield made.completer


def distil(kitchen: Kitchen, config: dict[str, Any] = CONFIG, **changed: Any) -> TrainingResult:
    result = run_in(kitchen, "distillation", config | changed)
    assert isinstance(result, TrainingResult)
    return result


def rows(kitchen: Kitchen, run_id: str) -> dict[tuple[str, int | None], float]:
    entries = kitchen.metrics_store.read(run_id)
    made = {(entry.metric, entry.step): entry.value for entry in entries}
    assert len(made) == len(entries), "a row was recorded twice"
    return {key: value for key, value in made.items() if key[0] not in TIMES}


def record(kitchen: Kitchen, run_id: str) -> dict[str, Any]:
    return dict(json.loads(kitchen.blob_store.read(f"{run_id}/run.json")))


# --- what is learned ---


def learned(
    kitchen: Kitchen, monkeypatch: pytest.MonkeyPatch, **changed: Any
) -> list[tuple[list[Datum], str]]:
    """Return what each step submitted, and to which loss."""
    submitted: list[tuple[list[Datum], str]] = []
    client = kitchen.training_client
    submit = client.forward_backward

    def spy(session: Any, datums: Any, loss_fn: str = "cross_entropy", *rest: Any) -> Any:
        submitted.append((list(datums), loss_fn))
        return submit(session, datums, loss_fn, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(client, "forward_backward", spy)
        distil(kitchen, **changed)
    return submitted


def test_an_advantage_is_how_much_likelier_the_teacher_finds_a_token_than_the_student(
    kitchen: Kitchen, monkeypatch: pytest.MonkeyPatch
) -> None:
    [(datums, loss_fn), *_] = learned(kitchen, monkeypatch)
    assert loss_fn == "importance_sampling"
    sequences = [
        [*d.model_input.to_ints(), int(d.loss_fn_inputs["target_tokens"][-1])] for d in datums
    ]
    scores = kitchen.completer.score(sequences, "wise")
    tokens = sum(np.count_nonzero(datum.loss_fn_inputs["logprobs"]) for datum in datums)
    for datum, score in zip(datums, scores, strict=True):
        inputs = datum.loss_fn_inputs
        sampled = inputs["logprobs"] != 0
        assert sampled.any()
        assert not sampled.all()
        expected = (score - inputs["logprobs"]) / tokens
        assert inputs["advantages"][sampled] == pytest.approx(expected[sampled], rel=1e-5)
        assert not inputs["advantages"][~sampled].any()


@pytest.mark.parametrize("on_policy", [True, False])
def test_the_loss_is_divided_as_the_configuration_says(
    kitchen: Kitchen, monkeypatch: pytest.MonkeyPatch, on_policy: bool
) -> None:
    made = {}
    for reduction in ("sum", "token_mean", "sequence_mean"):
        changed = {"loss_reduction": reduction, "on_policy": on_policy, "max_tokens": 100}
        [(made[reduction], _), *_] = learned(kitchen, monkeypatch, **changed)
    name = "advantages" if on_policy else "weights"
    parts = {
        reduction: [datum.loss_fn_inputs[name] for datum in datums]
        for reduction, datums in made.items()
    }
    counts = [np.count_nonzero(part) for part in parts["sum"]]
    assert len({*counts}) > 1
    for whole, of_tokens, of_sequences, count in zip(*parts.values(), counts, strict=True):
        assert of_tokens == pytest.approx(whole / sum(counts), rel=1e-5)
        assert of_sequences == pytest.approx(whole / (count * len(counts)), rel=1e-5)


def test_teacher_kl_is_the_mean_over_tokens_and_is_zero_for_a_student_that_is_the_teacher(
    kitchen: Kitchen,
) -> None:
    recorded = rows(kitchen, distil(kitchen).run_id)
    for name in ("teacher_kl", "num_tokens", "optim/entropy", "env/all/frac_truncated"):
        assert [step for metric, step in recorded if metric == name] == [1, 2, 3, 4, 5, 6], name
    assert recorded["teacher_kl", 1] != 0
    assert ("test/teacher_kl", 6) in recorded
    same = rows(kitchen, distil(kitchen, model="wise").run_id)
    assert same["teacher_kl", 1] == 0


def test_a_teacher_in_a_training_client_says_the_same_as_one_in_a_completer(
    kitchen: Kitchen,
) -> None:
    client = {"use": kitchen_noop.training_client, "latency_scale": 0}
    by_completer = rows(kitchen, distil(kitchen).run_id)
    by_client = rows(kitchen, distil(kitchen, teacher_client=client).run_id)
    assert by_client == by_completer


def test_a_step_of_several_updates_and_a_penalty_are_those_of_reinforcement(
    kitchen: Kitchen, monkeypatch: pytest.MonkeyPatch
) -> None:
    submitted = learned(kitchen, monkeypatch, num_substeps=2, kl_penalty=0.1, loss="ppo")
    assert [len(datums) for datums, _ in submitted] == [4] * 12
    assert {loss for _, loss in submitted} == {"ppo"}


def test_prompts_without_a_reward_have_no_metrics_of_rewards(kitchen: Kitchen) -> None:
    result = distil(kitchen)
    assert not [name for name in result.metrics if "reward" in name or "unparsed" in name]
    kept = kitchen.blob_store.read(f"{result.run_id}/samples/00000006.jsonl").splitlines()
    samples = [json.loads(line) for line in kept]
    assert len(samples) == 10
    assert all(sample["reward"] is None and sample["completion"] for sample in samples)


def test_an_environment_gives_prompts_and_its_rewards_are_reported(kitchen: Kitchen) -> None:
    config = {k: v for k, v in CONFIG.items() if k not in ("dataset", "messages_field")}
    result = distil(kitchen, config, environment="arithmetic")
    assert result.metrics["env/all/reward/total"] == 0
    assert result.metrics["test/env/all/reward/total"] == 0


def test_the_id_of_a_run_stands_for_its_weights(kitchen: Kitchen) -> None:
    trained = run_in(kitchen, "supervised", {"model": "wise", "dataset": "rows", "max_steps": 3})
    result = distil(kitchen, teacher_model=trained.run_id)
    assert record(kitchen, result.run_id)["depends_on"]["teacher"] == {"model": trained.weights}
    with pytest.raises(ConfigurationError, match=r"teacher: model was 'noop:.* is 'wise'"):
        # As if that run had trained on since.
        distil(kitchen, teacher_model=trained.run_id, run_id=kept_with(kitchen, trained, result))


def kept_with(kitchen: Kitchen, teacher: TrainingResult, student: TrainingResult) -> str:
    """Give the teacher's run other weights and leave the student's unfinished; return its id."""
    changes = {teacher.run_id: {"weights": "wise"}, student.run_id: {"status": "interrupted"}}
    for run_id, changed in changes.items():
        whole = json.dumps(record(kitchen, run_id) | changed)
        kitchen.blob_store.write(f"{run_id}/run.json", whole.encode())
    return student.run_id


# --- off policy ---


def test_off_policy_the_teachers_completions_are_kept_under_the_run_and_learned(
    kitchen: Kitchen, monkeypatch: pytest.MonkeyPatch
) -> None:
    submitted = learned(kitchen, monkeypatch, on_policy=False, run_id="taught")
    assert {loss for _, loss in submitted} == {"cross_entropy"}
    content = kitchen.blob_store.read("taught/samples/teacher.jsonl")
    kept = [json.loads(line) for line in content.splitlines()]
    assert len(kept) == 2 * len({each["problem"] for each in kept}) == 2 * 4 * 6
    sequences = {tuple(each["tokens"]) for each in kept}
    for datums, _ in submitted:
        for datum in datums:
            last = int(datum.loss_fn_inputs["target_tokens"][-1])
            assert (*datum.model_input.to_ints(), last) in sequences
    about = record(kitchen, "taught")
    digest = hashlib.sha256(content).hexdigest()
    assert about["depends_on"]["teacher_samples"] == {"sha256": digest}
    recorded = rows(kitchen, "taught")
    assert ("train_mean_nll", 1) in recorded
    assert ("test/teacher_kl", 6) in recorded


class Stopped(BaseException):
    pass


def stopping(
    kitchen: Kitchen, monkeypatch: pytest.MonkeyPatch, at: int, config: dict[str, Any]
) -> None:
    """Stop a run when it submits the gradient of a step, counted from 0."""
    submit, seen = kitchen.training_client.forward_backward, 0

    def stop(*arguments: Any) -> Any:
        nonlocal seen
        seen += 1
        if seen > at:
            raise Stopped
        return submit(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(kitchen.training_client, "forward_backward", stop)
        with pytest.raises(Stopped):
            distil(kitchen, config)


def test_off_policy_a_run_that_is_continued_does_not_ask_the_teacher_again(
    kitchen: Kitchen, teacher: Completer, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = {**OFF_POLICY, "run_id": "taught", "save_every": 2, "teacher": teacher}
    stopping(kitchen, monkeypatch, 3, config)
    asked = []
    complete = teacher.complete_batch

    def watch(prompts: Any, params: Any) -> Any:
        asked.append(len(prompts))
        return complete(prompts, params)

    monkeypatch.setattr(teacher, "complete_batch", watch)
    assert distil(kitchen, config).steps == 6
    assert asked == [4]  # to compare the vocabularies


def test_off_policy_what_the_teacher_said_may_not_change(
    kitchen: Kitchen, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = {**OFF_POLICY, "run_id": "taught"}
    stopping(kitchen, monkeypatch, 3, config)
    path = "taught/samples/teacher.jsonl"
    before = kitchen.blob_store.read(path)
    lines = before.splitlines(keepends=True)
    kitchen.blob_store.write(path, b"".join([*lines[1:], lines[0]]))
    with pytest.raises(ConfigurationError) as refused:
        distil(kitchen, config)
    for content in (before, kitchen.blob_store.read(path)):
        assert hashlib.sha256(content).hexdigest() in str(refused.value)
    kitchen.blob_store.write(path, b"{}\n")
    with pytest.raises(ConfigurationError, match="is damaged"):
        distil(kitchen, config)


def test_off_policy_a_finished_run_takes_no_steps_that_the_teacher_was_not_asked_for(
    kitchen: Kitchen,
) -> None:
    distil(kitchen, OFF_POLICY, run_id="taught")
    with pytest.raises(ConfigurationError, match="the teacher was not asked"):
        distil(kitchen, OFF_POLICY, run_id="taught", max_steps=9)


def test_a_start_that_fails_leaves_nothing(
    kitchen: Kitchen, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*arguments: Any, **named: Any) -> Any:
        raise Stopped

    monkeypatch.setattr("crucible_kitchen.workflows.teachers.samples.play_all", fails)
    with pytest.raises(Stopped):
        distil(kitchen, OFF_POLICY)
    assert not kitchen.blob_store.list("")


@pytest.mark.parametrize("fails", ["try_sampling", "start"])
def test_off_policy_what_a_start_that_failed_has_left_is_not_learned(
    kitchen: Kitchen, monkeypatch: pytest.MonkeyPatch, fails: str
) -> None:
    where = {
        "try_sampling": "crucible_kitchen.workflows.teachers.teaching.Teaching.try_sampling",
        "start": "crucible_kitchen.workflows.runs.Run.start",
    }

    def fail(*arguments: Any, **named: Any) -> Any:
        raise Stopped

    with monkeypatch.context() as patch:
        patch.setattr(where[fails], fail)
        with pytest.raises(Stopped):
            distil(kitchen, OFF_POLICY, run_id="taught", teacher_model="foolish", samples=3)
    path = "taught/samples/teacher.jsonl"
    assert kitchen.blob_store.exists(path) == (fails == "start")
    distil(kitchen, OFF_POLICY, run_id="taught", max_tokens=5)
    distil(kitchen, OFF_POLICY, run_id="fresh", max_tokens=5)
    fresh = kitchen.blob_store.read("fresh/samples/teacher.jsonl")
    assert kitchen.blob_store.read(path) == fresh
    learned_from = [record(kitchen, run_id)["depends_on"] for run_id in ("taught", "fresh")]
    assert learned_from[0] == learned_from[1]


# --- resume ---


@pytest.mark.parametrize("config", [CONFIG, OFF_POLICY], ids=["on policy", "off policy"])
@pytest.mark.parametrize("at", [0, 1, 3, 4, 5])
def test_a_run_that_is_killed_and_continued_ends_as_if_it_had_not_been(
    kitchen: Kitchen, monkeypatch: pytest.MonkeyPatch, config: dict[str, Any], at: int
) -> None:
    # An epoch has 4 steps: of 26 rows 16 are trained on.
    config = {**config, "split": "train[:26]", "save_every": 2, "eval_every": 3}
    whole = distil(kitchen, config, run_id="whole")
    killed = {**config, "run_id": "killed"}
    stopping(kitchen, monkeypatch, at, killed)
    result = distil(kitchen, killed)
    assert rows(kitchen, "killed") == rows(kitchen, "whole")
    for path in ("samples/00000003.jsonl", "samples/00000006.jsonl"):
        both = (kitchen.blob_store.read(f"{run_id}/{path}") for run_id in ("killed", "whole"))
        assert len({*both}) == 1, path
    assert str(result.weights).partition("?")[2] == str(whole.weights).partition("?")[2]


# --- what is refused ---


def test_a_sampler_that_keeps_its_first_weights_is_caught_at_the_first_step_that_shows_it(
    kitchen: Kitchen, monkeypatch: pytest.MonkeyPatch
) -> None:
    completer = kitchen.completer
    score, complete, first = completer.score, completer.complete_batch, []

    def kept(model: str | None) -> str | None:
        if model is None or not model.startswith("noop://ephemeral"):
            return model  # the teacher's
        first.append(model.replace("ephemeral", "named"))
        return str(first[0])

    monkeypatch.setattr(completer, "score", lambda s, model=None: score(s, kept(model)))
    monkeypatch.setattr(
        completer,
        "complete_batch",
        lambda prompts, params: complete(prompts, replace(params, model=kept(params.model))),
    )
    for config in (CONFIG, {**OFF_POLICY, "eval_every": 1}):
        first.clear()
        with pytest.raises(StaleWeights, match=r"the completer .* is stale"):
            distil(kitchen, config, run_id=str(config.get("on_policy", True)))
        assert record(kitchen, str(config.get("on_policy", True)))["state"]["step"] <= 1


def test_a_completer_with_another_vocabulary_is_not_a_teacher(
    kitchen: Kitchen, teacher: Completer, monkeypatch: pytest.MonkeyPatch
) -> None:
    complete = teacher.complete_batch

    def shifted(prompts: Any, params: Any) -> Any:
        said = [each for each in complete(prompts, params) if isinstance(each, Completion)]
        return [replace(each, text=each.text[::-1] + "x") for each in said]

    monkeypatch.setattr(teacher, "complete_batch", shifted)
    with pytest.raises(ConfigurationError, match="the teacher has another vocabulary"):
        distil(kitchen, teacher=teacher)


def test_a_training_client_with_another_vocabulary_is_not_a_teacher(
    kitchen: Kitchen, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Reversed(type(kitchen_noop.tokenizer.TOKENIZER)):  # type: ignore[misc]
        def decode(self, ids: Sequence[int], **_: Any) -> str:
            return "".join(reversed([super(Reversed, self).decode([i]).upper() for i in ids]))

    with Kitchen(noops()) as other:
        client = other.training_client
        monkeypatch.setattr(client, "helper", lambda name: lambda session: Reversed())
        with pytest.raises(ConfigurationError, match=r"token \d+ is '.*' to it and '.*' to the"):
            distil(kitchen, teacher_client=client)


def test_a_teacher_that_returns_no_token_ids_is_used_with_a_warning(
    kitchen: Kitchen, teacher: Completer, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = Completion("hello", None, None, "stop")
    monkeypatch.setattr(teacher, "complete_batch", lambda prompts, params: [text for _ in prompts])
    with pytest.warns(match="not verified that the teacher has the student's vocabulary"):
        distil(kitchen, teacher=teacher)


def test_a_teacher_must_be_able_to_score(
    kitchen: Kitchen, teacher: Completer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(teacher, "supports", lambda name: name != "score")
    with pytest.raises(ConfigurationError, match="has no score"):
        distil(kitchen, teacher=teacher)


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"teacher_model": None}, "there is no teacher"),
        (
            {"teacher": kitchen_noop.completer, "teacher_client": kitchen_noop.training_client},
            "two",
        ),
        ({"temperature": 0.7}, "teacher_kl is not a divergence"),
        ({"lora": {"dropout": 0.1}}, "lora.dropout must be 0"),
        ({"on_policy": False, "num_substeps": 2}, "num_substeps is of a policy gradient"),
        ({"on_policy": False, "teacher_client": kitchen_noop.training_client}, "cannot sample"),
    ],
)
def test_settings_that_do_not_fit_together_are_refused(
    kitchen: Kitchen, changed: dict[str, Any], says: str
) -> None:
    with pytest.raises(ConfigurationError, match=says):
        distil(kitchen, **changed)


def test_doctor_and_the_first_rows_say_what_would_be_asked(kitchen: Kitchen) -> None:
    config = kitchen.configure(DistillationConfig, CONFIG, ("workflow",))
    assert ("teacher", "has the student's vocabulary") in list(check(kitchen, config))
    [first, *_] = preview(kitchen, config, 2)
    assert "What is" in first
