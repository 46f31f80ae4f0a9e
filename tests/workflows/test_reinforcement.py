"""The workflow reinforcement on noops: what it submits, records, refuses, and how it goes on."""

from __future__ import annotations

import json
import tomllib
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import kitchen_noop.completer
import numpy as np
import pytest
from crucible_kitchen import (
    Completion,
    ConfigurationError,
    Event,
    Kitchen,
    TrainingResult,
    Unavailable,
)
from crucible_kitchen.environments import Observation, Step
from crucible_kitchen.workflows import run_in
from crucible_kitchen.workflows.reinforcement import ReinforcementConfig, check, preview
from crucible_kitchen.workflows.sampling.canary import StaleWeights
from crucible_kitchen.workflows.sampling.rollouts import drawn_seed
from rows_in_memory import RowsInMemory
from stale_sampler import keep_first_weights

import kitchen_noop

NOOPS = {name: {**table, "latency_scale": 0} for name, table in kitchen_noop.ADAPTERS.items()}
TIMES = ("time/step", "tokens_per_second")


class Letters:
    """Two turns; a completion is worth its number of different characters, and the problem 7 is
    never solved.
    """

    size = 16

    def reset(self, seed: int) -> Observation:
        self.seed, self.turn = seed, 0
        return [{"role": "user", "content": f"letters of {seed}"}]

    def step(self, completion: Completion) -> Step:
        self.turn += 1
        reward = 0.0 if self.seed == 7 else len({*completion.text}) / 10
        more: list[dict[str, str]] = [{"role": "user", "content": "more"}]
        done = self.turn == 2
        return Step(reward=reward, done=done, observation=() if done else more, metrics={"seen": 1})


CONFIG: dict[str, Any] = {
    "model": "any",
    "environment": Letters,
    "test_size": 4,
    "batch_size": 4,
    "group_size": 4,
    "max_steps": 7,  # 3 steps in an epoch
    "max_tokens": 64,
    "learning_rate": 0.01,
}


@pytest.fixture
def kitchen() -> Iterator[Kitchen]:
    with Kitchen(NOOPS) as made:
        yield made


def train(kitchen: Kitchen, **changed: Any) -> TrainingResult:
    result = run_in(kitchen, "reinforcement", {**CONFIG, **changed})
    assert isinstance(result, TrainingResult)
    return result


def rows(kitchen: Kitchen, run_id: str) -> dict[tuple[str, int | None], float]:
    entries = [each for each in kitchen.metrics_store.read(run_id) if each.metric not in TIMES]
    made = {(entry.metric, entry.step): entry.value for entry in entries}
    assert len(made) == len(entries), "a row was recorded twice"
    return made


def submitted(kitchen: Kitchen, monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, str, Any]]:
    """Return what is given to `forward_backward` from now on: datums, loss and its config."""
    client, calls = kitchen.training_client, []
    forward_backward = client.forward_backward

    def spy(session: Any, datums: Any, *loss: Any) -> Any:
        calls.append((datums, *loss))
        return forward_backward(session, datums, *loss)

    monkeypatch.setattr(client, "forward_backward", spy)
    return calls


def test_each_step_has_one_row_of_each_metric(kitchen: Kitchen) -> None:
    result = train(kitchen, eval_every=3)
    recorded = rows(kitchen, result.run_id)
    for name in (
        "env/all/reward/total",
        "env/all/by_group/frac_mixed",
        "env/all/by_group/frac_all_good",
        "env/all/by_group/frac_all_bad",
        "env/all/frac_truncated",
        "env/all/frac_unparsed",
        "env/all/turns_per_episode",
        "env/all/seen",
        "optim/kl_sample_train_v1",
        "optim/kl_sample_train_v2",
        "optim/entropy",
        "sampler/logprob_diff",
        "sampler/staleness",
        "num_tokens",
        "learning_rate",
        "grad_norm",
    ):
        assert [step for metric, step in recorded if metric == name] == list(range(1, 8)), name
    assert [s for m, s in recorded if m == "test/env/all/reward/total"] == [3, 6, 7]
    assert result.metrics["env/all/turns_per_episode"] == 2.0
    assert result.metrics["env/all/seen"] == 1.0


def test_on_policy_the_sampler_and_the_trainer_agree(kitchen: Kitchen) -> None:
    recorded = rows(kitchen, train(kitchen).run_id)
    for step in range(1, 8):
        assert abs(recorded["optim/kl_sample_train_v1", step]) < 1e-6
        assert recorded["sampler/logprob_diff", step] == 0
        assert recorded["sampler/staleness", step] == 0


def test_advantages_of_each_group_add_up_to_nothing(
    kitchen: Kitchen, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = submitted(kitchen, monkeypatch)
    train(kitchen, max_steps=1, loss_reduction="sum")
    [(datums, loss, config)] = calls
    assert (loss, config) == ("importance_sampling", {})
    assert len(datums) == 16
    of_episodes = [{*datum.loss_fn_inputs["advantages"].tolist()} - {0.0} for datum in datums]
    assert all(len(values) <= 1 for values in of_episodes)  # one for all tokens of an episode
    advantages = np.array([sum(values) for values in of_episodes]).reshape(4, 4)
    np.testing.assert_allclose(advantages.sum(1), 0, atol=1e-6)
    assert advantages.any()


def test_the_loss_is_sent_with_all_of_its_thresholds(
    kitchen: Kitchen, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = submitted(kitchen, monkeypatch)
    train(kitchen, max_steps=1, loss="ppo", clip_high_threshold=1.28)
    [(_, loss, config)] = calls
    assert loss == "ppo"
    assert config == {"clip_low_threshold": 0.8, "clip_high_threshold": 1.28}


def test_a_step_of_several_updates_learns_from_each_group_once(
    kitchen: Kitchen, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = submitted(kitchen, monkeypatch)
    result = train(kitchen, max_steps=2, num_substeps=2, batch_size=4)
    assert [len(datums) for datums, *_ in calls] == [8, 8] * 2
    recorded = rows(kitchen, result.run_id)
    # The later updates begin with other weights than those that sampled.
    assert recorded["optim/kl_sample_train_v2", 1] > 1e-6
    assert recorded["num_tokens", 1] == sum(
        len(d.loss_fn_inputs["logprobs"].nonzero()[0]) for datums, *_ in calls[:2] for d in datums
    )


def test_a_group_counts_the_same_in_parts_that_dropped_groups_made_unequal(
    kitchen: Kitchen, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = submitted(kitchen, monkeypatch)
    settings = {
        "max_steps": 1,
        "batch_size": 12,  # all problems, of which one is never solved
        "loss_reduction": "sequence_mean",
        "drop_constant_groups": True,
    }
    train(kitchen, **settings, num_substeps=2)
    assert [len(datums) for datums, *_ in calls] == [24, 20]
    train(kitchen, **settings)
    sizes, whole = [size_of_loss(datums) for datums, *_ in calls[:2]], size_of_loss(calls[2][0])
    # Each of the two parts has twice its share of the mean over all episodes.
    assert sum(sizes) == pytest.approx(2 * whole, rel=1e-5)


def size_of_loss(datums: Sequence[Any]) -> float:
    """Return the sum of the absolute advantages of all tokens."""
    return sum(float(np.abs(each.loss_fn_inputs["advantages"]).sum()) for each in datums)


def test_groups_of_equal_rewards_are_dropped_on_request(
    kitchen: Kitchen, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = submitted(kitchen, monkeypatch)
    settings = {"max_steps": 1, "batch_size": 12}  # all problems, of which one is never solved
    train(kitchen, **settings)
    train(kitchen, **settings, drop_constant_groups=True)
    assert [len(datums) for datums, *_ in calls] == [48, 44]


def test_where_every_group_is_dropped_the_step_is_taken_without_an_advantage(
    kitchen: Kitchen, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = submitted(kitchen, monkeypatch)
    result = train(kitchen, environment="arithmetic", max_steps=1, drop_constant_groups=True)
    [(datums, *_)] = calls
    assert len(datums) == 16
    assert not any(datum.loss_fn_inputs["advantages"].any() for datum in datums)
    assert result.metrics["env/all/by_group/frac_all_bad"] == 1.0
    assert result.metrics["env/all/frac_unparsed"] == 1.0


def test_a_kl_penalty_is_measured_against_the_starting_weights(kitchen: Kitchen) -> None:
    result = train(kitchen, kl_penalty=0.5)
    recorded = rows(kitchen, result.run_id)
    assert recorded["kl_policy_base", 1] == pytest.approx(0, abs=1e-6)
    assert abs(recorded["kl_policy_base", 7]) > 0.1
    assert "kl_policy_base" not in train(kitchen).metrics


def test_a_kl_penalty_lowers_the_advantage_of_tokens_that_depart(
    kitchen: Kitchen, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = submitted(kitchen, monkeypatch)
    common = {"max_steps": 2, "loss_reduction": "sum"}
    train(kitchen, **common)
    train(kitchen, **common, kl_penalty=0.5)
    (_, plain, _, penalised) = (datums for datums, *_ in calls)
    change = np.concatenate(
        [
            (with_.loss_fn_inputs["advantages"] - without.loss_fn_inputs["advantages"])[
                with_.loss_fn_inputs["logprobs"] != 0
            ]
            for with_, without in zip(penalised, plain, strict=True)
        ]
    )
    assert change.any()
    assert change.mean() == pytest.approx(0, abs=1e-5)  # the mean departure is the baseline


def test_truncated_importance_sampling_takes_the_trainers_log_probabilities(
    kitchen: Kitchen, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = submitted(kitchen, monkeypatch)
    common = {"max_steps": 1}
    train(kitchen, **common)
    train(kitchen, **common, importance_sampling_cap=2.0)
    plain, corrected = (datums for datums, *_ in calls)
    for one, other in zip(plain, corrected, strict=True):
        for name in ("logprobs", "advantages"):  # sampler and trainer agree, so nothing changes
            np.testing.assert_allclose(one.loss_fn_inputs[name], other.loss_fn_inputs[name], 1e-5)


def test_samples_of_an_evaluation_are_kept_with_their_rewards(kitchen: Kitchen) -> None:
    result = train(kitchen, max_steps=2)
    lines = kitchen.blob_store.read(f"{result.run_id}/samples/00000002.jsonl").splitlines()
    samples = [json.loads(line) for line in lines]
    assert len(samples) == 4
    mean = sum(sample["reward"] for sample in samples) / 4
    assert mean == pytest.approx(result.metrics["test/env/all/reward/total"])
    assert "letters of 12" in samples[0]["prompt"]


def test_evaluations_draw_the_same_random_numbers_each_time(kitchen: Kitchen) -> None:
    recorded = rows(kitchen, train(kitchen, eval_every=3).run_id)
    # Completions of the noop depend on the seed and the prompt, not on the weights.
    assert len({recorded["test/env/all/reward/total", step] for step in (3, 6, 7)}) == 1


class Stopped(Exception):
    """Ends a run where a process would be killed."""


@pytest.mark.parametrize("at", [0, 2, 3, 5, 7])
@pytest.mark.parametrize("options", [{}, {"kl_penalty": 0.1, "num_substeps": 2}])
def test_a_run_stopped_at_any_step_and_continued_equals_one_that_was_not(
    monkeypatch: pytest.MonkeyPatch, at: int, options: dict[str, Any]
) -> None:
    settings = {**options, "save_every": 1, "eval_every": 2, "run_id": "run"}
    with Kitchen(NOOPS) as kitchen:
        train(kitchen, **settings)
        expected = rows(kitchen, "run")
    with Kitchen(NOOPS) as kitchen:
        stop_after(kitchen, monkeypatch, at)
        with pytest.raises(Stopped):
            train(kitchen, **settings)
        result = train(kitchen, **settings)
        assert rows(kitchen, "run") == expected
        assert result.steps == 7


def stop_after(kitchen: Kitchen, monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    """Stop the run once, when the rows of this step are to be recorded; 0 is before the first."""
    store, waiting = kitchen.metrics_store, [step]
    record_many, forward_backward = store.record_many, kitchen.training_client.forward_backward

    def record(run_id: str, metrics: Any, at: int | None = None, *rest: Any) -> None:
        if waiting == [at]:
            waiting.clear()
            raise Stopped
        record_many(run_id, metrics, at, *rest)

    def submit(*arguments: Any) -> Any:
        if waiting == [0]:
            waiting.clear()
            raise Stopped
        return forward_backward(*arguments)

    monkeypatch.setattr(store, "record_many", record)
    monkeypatch.setattr(kitchen.training_client, "forward_backward", submit)


def test_a_failed_session_is_restored_and_ends_with_the_same_rows(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    settings = {"save_every": 2, "max_restarts": 1, "run_id": "run"}
    with Kitchen(NOOPS) as kitchen:
        train(kitchen, **settings)
        expected = rows(kitchen, "run")
    with Kitchen(NOOPS) as kitchen:
        client, calls = kitchen.training_client, []
        forward_backward = client.forward_backward

        def fails_once(*arguments: Any) -> Any:
            calls.append(arguments)
            if len(calls) == 4:
                raise Unavailable("the server is away")
            return forward_backward(*arguments)

        monkeypatch.setattr(client, "forward_backward", fails_once)
        train(kitchen, **settings)
        assert rows(kitchen, "run") == expected


def test_sampling_ahead_uses_weights_that_are_one_step_old(kitchen: Kitchen) -> None:
    recorded = rows(kitchen, train(kitchen, max_staleness=1, eval_every=3).run_id)
    assert [recorded["sampler/staleness", step] for step in range(1, 8)] == [0, 1, 1, 1, 1, 1, 1]
    assert recorded["optim/kl_sample_train_v2", 1] < 1e-9
    assert recorded["optim/kl_sample_train_v2", 2] > 1e-6


@pytest.mark.parametrize("staleness", [2, 5])
def test_sampling_further_ahead_is_never_staler_than_allowed(
    kitchen: Kitchen, staleness: int
) -> None:
    recorded = rows(kitchen, train(kitchen, max_staleness=staleness, max_steps=12).run_id)
    assert max(v for (name, _), v in recorded.items() if name == "sampler/staleness") <= staleness


def test_the_seed_decides_what_is_sampled(kitchen: Kitchen) -> None:
    def rewards(seed: int) -> list[float]:
        recorded = rows(kitchen, train(kitchen, seed=seed).run_id)
        return [recorded["env/all/reward/total", step] for step in range(1, 8)]

    assert rewards(1) == rewards(1) != rewards(2)
    assert drawn_seed(1, 2) == drawn_seed(1, 2) != drawn_seed(2, 1)


def test_a_stale_sampler_stops_the_run_at_the_first_step_that_would_learn_from_it(
    kitchen: Kitchen, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep_first_weights(monkeypatch, kitchen_noop.completer)
    calls = submitted(kitchen, monkeypatch)
    with pytest.raises(StaleWeights, match=r"completer 'kitchen_noop\.completer' is stale"):
        train(kitchen, max_restarts=3)
    assert len(calls) == 1  # the first step learns from the first weights, and rightly so


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"temperature": 0.7}, "temperature must be 1"),
        ({"lora": {"dropout": 0.1}}, r"lora\.dropout must be 0"),
        ({"group_size": 1}, "group_size"),
        ({"loss": "ppo", "clip_low_threshold": 2.0}, "clip_low_threshold is above"),
        ({"environment": None}, "give environment, or dataset"),
    ],
)
def test_settings_that_would_learn_something_else_are_refused_by_name(
    kitchen: Kitchen, changed: dict[str, Any], why: str
) -> None:
    with pytest.raises(ConfigurationError, match=why):
        train(kitchen, **changed)


def test_a_client_whose_weights_cannot_be_sampled_from_is_refused(
    kitchen: Kitchen, monkeypatch: pytest.MonkeyPatch
) -> None:
    supports = kitchen.training_client.supports
    monkeypatch.setattr(
        kitchen.training_client,
        "supports",
        lambda name: name != "save_weights_for_sampler" and supports(name),
    )
    with pytest.raises(ConfigurationError, match=r"workflow\.use: the training client"):
        train(kitchen)


def test_a_completer_is_among_the_ports_of_a_run() -> None:
    ports = ReinforcementConfig(**CONFIG).required_ports()
    assert {"training_client", "completer", "blob_store", "metrics_store"} == {*ports}


def test_a_check_tries_what_a_run_needs(kitchen: Kitchen) -> None:
    found = dict(check(kitchen, ReinforcementConfig(**CONFIG)))
    assert {"model", "tokenizer", "storage", "train problems", "test problems"} <= found.keys()


def test_a_preview_shows_what_the_model_is_asked(kitchen: Kitchen) -> None:
    first, second = preview(kitchen, ReinforcementConfig(**CONFIG), 2)
    assert "letters of 0" in first
    assert second.endswith("letters of 1<|im_end|>\n<|im_start|>assistant\n")


def test_the_example_runs_on_noops() -> None:
    examples = Path(__file__).resolve().parents[2] / "docs" / "examples"
    settings = tomllib.loads((examples / "reinforcement.toml").read_text())["workflow"]
    del settings["use"], settings["from_checkpoint"]
    prompts = [{"prompt": "37+58=", "completion": "95"}] * 40
    store = RowsInMemory({"train": prompts})
    with Kitchen({**NOOPS, "dataset_store": store}) as kitchen:
        result = run_in(kitchen, "reinforcement", {**settings, "max_steps": 2})
    assert result.steps == 2


def test_a_step_reports_its_metrics_to_observers(kitchen: Kitchen) -> None:
    seen: list[Event] = []
    kitchen.observe(seen.append)
    train(kitchen, max_steps=2)
    steps = [e for e in seen if e.name == "training.step" and e.attributes.get("metrics")]
    assert [e.attributes["metrics"]["num_tokens"] > 0 for e in steps] == [True, True]


def test_a_run_says_nothing_on_the_side(kitchen: Kitchen) -> None:
    with warnings.catch_warnings(action="error"):
        train(kitchen, max_staleness=2)
