"""Reinforcement learning whose samples come from vLLM, with the weights of each step."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from crucible_kitchen import Completion, Kitchen
from crucible_kitchen.environments import Observation, Step
from crucible_kitchen.workflows import run_in
from crucible_kitchen.workflows.sampling.canary import StaleWeights
from vllm_model import COMPLETER, MODELS

import kitchen_noop

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]  # vLLM's own

STEPS = 4


class Remainders:
    """A completion is worth the sum of its token ids, each modulo 7."""

    size = 20

    def reset(self, seed: int) -> Observation:
        return f"{seed}:"

    def step(self, completion: Completion) -> Step:
        assert completion.tokens is not None
        return Step(reward=float((completion.tokens % 7).sum()) / 7, done=True)


CONFIG: dict[str, Any] = {
    "model": "tiny",
    "environment": Remainders,
    "test_size": 4,
    "batch_size": 4,
    "group_size": 4,
    "max_steps": STEPS,
    "max_tokens": 5,
    "learning_rate": 1e-2,
}


@pytest.fixture(scope="module")
def learning(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kitchen]:
    """A kitchen whose completer starts with the first weights of the run."""
    pytest.importorskip("vllm", reason="vLLM is not installed: it is too large to be demanded")
    folder = str(tmp_path_factory.mktemp("checkpoints"))
    quick = {name: {**table, "latency_scale": 0} for name, table in kitchen_noop.ADAPTERS.items()}
    client = {"use": "torch", "device": "cpu", "checkpoint_dir": folder, "models": MODELS}
    with Kitchen({**quick, "training_client": client, "completer": COMPLETER}) as kitchen:
        yield kitchen


def test_sampler_and_trainer_agree_on_every_token(learning: Kitchen) -> None:
    run_id = run_in(learning, "reinforcement", CONFIG).run_id
    rows = {(row.metric, row.step): row.value for row in learning.metrics_store.read(run_id)}
    for step in range(1, STEPS + 1):
        assert rows["sampler/logprob_diff", step] < 1e-4
        assert rows["grad_norm", step] > 0


def test_an_engine_that_keeps_its_first_weights_is_found(
    learning: Kitchen, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It says that it has the new ones, as if vLLM had lost them on the way."""
    from crucible_adapter_vllm import transfer

    hand_over, taken = transfer.hand_over, list[str]()

    async def once(engine: Any, weights: Any, version: str) -> None:
        if not taken:
            await hand_over(engine, weights, version)
        taken.append(version)
        await engine.update_weight_version(version)

    steps, optim_step = [], learning.training_client.optim_step

    def spy(*arguments: Any) -> Any:
        steps.append(arguments)
        return optim_step(*arguments)

    monkeypatch.setattr(transfer, "hand_over", once)
    monkeypatch.setattr(learning.training_client, "optim_step", spy)
    with pytest.raises(StaleWeights, match="the completer 'vllm' is stale"):
        run_in(learning, "reinforcement", CONFIG)
    assert len(steps) == 1
