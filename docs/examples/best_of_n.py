"""Best of n: sample answers to each prompt, and learn the best one (Dong et al. 2023, RAFT).

crucible run workflow.use=docs/examples/best_of_n.py:best_of_n ...
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from crucible_kitchen import (
    Example,
    Kitchen,
    Measure,
    Prepared,
    RowsConfig,
    SamplingParams,
    TrainingConfig,
    TrainingResult,
    train,
)
from crucible_kitchen.workflows import Rollout, prepare_rows, sample


class BestOfNConfig(RowsConfig, TrainingConfig):
    samples: int = 4
    """Answers to sample for each prompt."""
    max_tokens: int = 16
    """Longest answer, in tokens."""

    def required_ports(self) -> tuple[str, ...]:
        return (*super().required_ports(), "completer")


def best_of_n(kitchen: Kitchen, config: BestOfNConfig) -> TrainingResult:
    """Learn the shortest of the sampled answers. Metrics: `train_mean_nll`, `reward` (of the best
    answers) and `num_tokens`.
    """
    return train(kitchen, "best_of_n", config, BestOfN)


class BestOfN:
    evaluates = False

    def __init__(self, kitchen: Kitchen, config: BestOfNConfig) -> None:
        self.kitchen, self.client, self.config = kitchen, kitchen.training_client, config

    def prepare(self, session: Any) -> Prepared[Example]:
        rows = prepare_rows(self.kitchen, session, self.config, self.config.batch_size)
        return Prepared(rows.train, rows.depends_on, rows.facts)

    def submit(self, session: Any, batch: Sequence[Example], step: int) -> Measure:
        weights = self.client.save_weights_for_sampler(session)
        params = SamplingParams(self.config.max_tokens, n=self.config.samples, model=weights)
        prompts = [example.prompt for example in batch]
        groups = sample(self.kitchen.completer, prompts, params, self.config.seed, step)
        best = [max(group, key=reward) for group in groups]
        tokens = sum(len(rollout.sampled) for rollout in best)
        # Losses are sums, so this makes it a mean over the tokens of the batch.
        datums = [rollout.example().datum(1 / tokens) for rollout in best]
        future = self.client.forward_backward(session, datums)

        def measure() -> dict[str, float]:
            nll = self.client.await_(future).loss
            mean = sum(map(reward, best)) / len(best)
            return {"train_mean_nll": nll, "reward": mean, "num_tokens": tokens}

        return measure

    def evaluate(self, session: Any) -> dict[str, float]:
        return {}


def reward(rollout: Rollout) -> float:
    return -float(len(rollout.completion.text))
