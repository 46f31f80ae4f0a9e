"""Reinforcement learning with a real model: what it learns, and that it learns from its weights."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from crucible_kitchen import Completion, ConfigurationError, Datum, Kitchen, SessionConfig
from crucible_kitchen.environments import Observation, Step
from crucible_kitchen.workflows import run_in
from crucible_kitchen.workflows.sampling.canary import StaleWeights
from rows_in_memory import RowsInMemory
from stale_sampler import keep_first_weights

import kitchen_noop

pytest.importorskip("torch", reason="torch is not installed")

if TYPE_CHECKING:
    from addition_model import AdditionModel

TIMES = ("time/step", "tokens_per_second")


class Remainders:
    """A completion is worth the sum of its token ids, each modulo 7. Odd seeds have two turns."""

    size = 20

    def reset(self, seed: int) -> Observation:
        self.turns = 1 + seed % 2
        return f"{seed}:"

    def step(self, completion: Completion) -> Step:
        self.turns -= 1
        reward = worth(completion.tokens)
        return Step(reward=reward, done=self.turns == 0, observation="" if not self.turns else "?")


def worth(tokens: Any) -> float:
    return float((tokens % 7).sum()) / 7


def adapters(folder: Path) -> dict[str, Any]:
    from tiny_torch import MODELS

    quick = {name: {**table, "latency_scale": 0} for name, table in kitchen_noop.ADAPTERS.items()}
    client = {"use": "torch", "device": "cpu", "checkpoint_dir": str(folder), "models": MODELS}
    completer = {"use": "torch", "device": "cpu"}
    rows = [{"prompt": f"{i}+1=", "completion": str(i + 1)} for i in range(20)]
    store = RowsInMemory({"train": rows, "test": rows[:4]})
    return {**quick, "training_client": client, "completer": completer, "dataset_store": store}


CONFIG: dict[str, Any] = {
    "model": "tiny",
    "environment": Remainders,
    "test_size": 4,
    "batch_size": 4,
    "group_size": 4,
    "max_steps": 6,  # 4 steps in an epoch
    "max_tokens": 5,
    "learning_rate": 1e-2,
}


def rows(kitchen: Kitchen, run_id: str) -> dict[tuple[str, int | None], float]:
    entries = [each for each in kitchen.metrics_store.read(run_id) if each.metric not in TIMES]
    made = {(entry.metric, entry.step): entry.value for entry in entries}
    assert len(made) == len(entries), "a row was recorded twice"
    return made


def test_on_policy_sampler_and_trainer_agree_on_every_token(tmp_path: Path) -> None:
    with Kitchen(adapters(tmp_path)) as kitchen:
        recorded = rows(kitchen, run_in(kitchen, "reinforcement", CONFIG).run_id)
    for step in range(1, 7):
        assert recorded["sampler/logprob_diff", step] < 1e-4
        assert recorded["optim/kl_sample_train_v2", step] < 1e-4**2 / 2
        assert recorded["grad_norm", step] > 0


@pytest.mark.parametrize(
    "options",
    [
        {"loss_reduction": "sequence_mean", "normalize_by_std": True},
        {"loss_reduction": "token_mean", "loss": "ppo", "importance_sampling_cap": 2.0},
        {"loss_reduction": "sum", "drop_constant_groups": True, "loss": "cispo"},
    ],
)
def test_the_gradient_of_a_step_is_that_of_a_loss_written_in_plain_pytorch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any]
) -> None:
    with Kitchen(adapters(tmp_path)) as kitchen:
        client = kitchen.training_client
        datums: list[Datum] = []
        forward_backward = client.forward_backward

        def spy(session: Any, batch: Sequence[Datum], *loss: Any) -> Any:
            datums.extend(batch)
            return forward_backward(session, batch, *loss)

        monkeypatch.setattr(client, "forward_backward", spy)
        result = run_in(kitchen, "reinforcement", {**CONFIG, **options, "max_steps": 1})
        weights = client.save_weights_for_sampler(client.start_session(SessionConfig("tiny")), "w")
    expected = plain_norm(weights, datums, **options)
    assert expected > 1e-3
    assert result.metrics["grad_norm"] == pytest.approx(expected, rel=1e-4)


def plain_norm(
    weights: str,
    datums: Sequence[Datum],
    loss_reduction: str,
    normalize_by_std: bool = False,
    **others: Any,
) -> float:
    """Return the norm of the gradient on policy, from rewards and tokens alone: there the gradient
    of each of the losses is that of the log probabilities, weighed with the advantages.
    """
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(weights, dtype=torch.float32)
    masks = [datum.loss_fn_inputs["logprobs"] != 0 for datum in datums]
    rewards = []
    for datum, mask in zip(datums, masks, strict=True):
        parts = np.split(datum.loss_fn_inputs["target_tokens"], np.flatnonzero(np.diff(mask)) + 1)
        said = parts[1::2]  # what is read and what is said alternate
        rewards.append(sum(map(worth, said)))
    groups = np.array(rewards).reshape(-1, 4)
    advantages = groups - groups.mean(1, keepdims=True)
    if normalize_by_std:
        advantages /= groups.std(1, keepdims=True) + 1e-6
    tokens = sum(mask.sum() for mask in masks)
    for datum, mask, advantage in zip(datums, masks, advantages.ravel(), strict=True):
        ids = torch.tensor([datum.model_input.to_ints()])
        targets = torch.from_numpy(datum.loss_fn_inputs["target_tokens"])
        logprobs = torch.log_softmax(model(ids).logits[0], -1)[torch.arange(len(targets)), targets]
        count = {"token_mean": tokens, "sequence_mean": mask.sum() * len(datums), "sum": 1}
        loss = -(logprobs[torch.from_numpy(mask)] * float(advantage)).sum() / count[loss_reduction]
        loss.backward()
    squares = [p.grad.double().square().sum() for p in model.parameters() if p.grad is not None]
    return float(torch.stack(squares).sum().sqrt())


class Stopped(Exception):
    """Ends a run where a process would be killed."""


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Any:
    with Kitchen(adapters(tmp_path_factory.mktemp("alone"))) as kitchen:
        return left_by(kitchen)


def left_by(kitchen: Kitchen) -> tuple[Any, list[list[float]]]:
    """Run, and return the rows of metrics, and what the final weights say of a text."""
    settings = {**CONFIG, "save_every": 1, "eval_every": 2, "run_id": "run", "kl_penalty": 0.1}
    result = run_in(kitchen, "reinforcement", settings)
    scores = kitchen.completer.score([[*range(30)]], result.weights)
    return rows(kitchen, "run"), [each.tolist() for each in scores]


@pytest.mark.parametrize("at", [0, 2, 4, 6])
def test_a_run_stopped_at_any_step_ends_equal_to_the_bit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, uninterrupted: Any, at: int
) -> None:
    with Kitchen(adapters(tmp_path)) as kitchen:
        client, taken = kitchen.training_client, []
        optim_step = client.optim_step

        def stop(*arguments: Any) -> Any:
            taken.append(arguments)
            if len(taken) == at + 1:
                raise Stopped
            return optim_step(*arguments)

        if at < 6:
            monkeypatch.setattr(client, "optim_step", stop)
        else:  # after the last step, while it is saved
            save = client.save_checkpoint_async

            def fail(*arguments: Any) -> Any:
                taken.append(arguments)
                if len(taken) == at:
                    raise Stopped
                return save(*arguments)

            monkeypatch.setattr(client, "save_checkpoint_async", fail)
        with pytest.raises(Stopped):
            left_by(kitchen)
        assert left_by(kitchen) == uninterrupted


DROPS: dict[str, Any] = {
    "model_type": "gpt2",
    "hidden_size": 16,
    "n_layer": 1,
    "n_head": 2,
    "n_positions": 64,
    "resid_pdrop": 0.5,
    "initializer_range": 0.5,
}


@pytest.mark.parametrize(
    ("workflow", "more"),
    [
        ("reinforcement", {"group_size": 4}),
        ("reinforcement", {"group_size": 4, "importance_sampling_cap": 2.0, "num_substeps": 2}),
        ("distillation", {"teacher_model": "tiny"}),
    ],
)
def test_a_model_with_dropout_of_its_own_is_refused_for_it_is_not_the_one_that_samples(
    tmp_path: Path, workflow: str, more: dict[str, Any]
) -> None:
    shared = ("model", "environment", "test_size", "batch_size", "max_tokens", "learning_rate")
    settings = {**{name: CONFIG[name] for name in shared}, "max_steps": 2, **more}
    tables = adapters(tmp_path)
    tables["training_client"] |= {"models": {"tiny": DROPS}}
    with (
        Kitchen(
            {**tables, "completer": {**tables["completer"], "models": {"tiny": DROPS}}}
        ) as made,
        pytest.raises(ConfigurationError, match="Set the dropout of the model to 0"),
    ):
        run_in(made, workflow, settings)


@pytest.mark.parametrize("rate", [1e-2, 1e-5])
@pytest.mark.parametrize("workflow", ["reinforcement", "supervised"])
def test_a_sampler_that_keeps_its_first_weights_is_caught_at_the_first_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, workflow: str, rate: float
) -> None:
    from crucible_adapter_torch import live_weights

    keep_first_weights(monkeypatch, live_weights)
    settings: dict[str, Any] = {**CONFIG, "learning_rate": rate, "lr_schedule": "constant"}
    if workflow == "supervised":
        settings = {
            **{name: settings[name] for name in ("model", "max_steps", "learning_rate")},
            "dataset": "rows",
            "test_split": "test",
            "exact_match": True,
            "eval_every": 1,
        }
    with Kitchen(adapters(tmp_path)) as kitchen:
        steps = []
        optim_step = kitchen.training_client.optim_step

        def spy(*arguments: Any) -> Any:
            steps.append(arguments)
            return optim_step(*arguments)

        monkeypatch.setattr(kitchen.training_client, "optim_step", spy)
        with pytest.raises(StaleWeights, match="the completer 'torch' is stale"):
            run_in(kitchen, workflow, settings)
    assert len(steps) == 1


@pytest.mark.slow
@pytest.mark.timeout(1800)  # four minutes on one idle core, the models it begins with included
def test_the_addition_model_learns_again_from_rewards_alone(addition_model: AdditionModel) -> None:
    from addition_model import REWARDED

    settings = {**REWARDED, "from_checkpoint": addition_model.start}
    with addition_model.kitchen() as kitchen:
        recorded = rows(kitchen, run_in(kitchen, "reinforcement", settings).run_id)
    assert recorded["test/env/all/reward/total", 0] < 0.5
    assert recorded["test/env/all/reward/total", 90] > 0.9
    for step in range(1, 91):
        assert recorded["sampler/logprob_diff", step] < 1e-4
        assert recorded["optim/kl_sample_train_v2", step] < 1e-4**2 / 2
