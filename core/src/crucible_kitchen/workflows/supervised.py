"""Supervised fine-tuning: learn to continue prompts as the data set does."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Literal, Self

from pydantic import model_validator

from ..errors import ConfigurationError
from ..kitchen import Kitchen
from .algorithm import Evaluation, Measure, Metrics, Prepared, TrainingResult
from .checks import check_training, trial_session
from .config import RowsConfig, TrainingConfig
from .evaluation.answers import Answers, AnswersConfig
from .evaluation.measures import mean_nll, mean_reward, negative_log_likelihood
from .loop import train
from .planning.rows import plan as plan
from .planning.rows import preview as preview
from .rows.first_rows import try_rows
from .rows.prepare import prepare_rows
from .rows.rendering import Example
from .sampling.sampler import check_live_weights


class SupervisedConfig(RowsConfig, AnswersConfig, TrainingConfig):
    """What to train, on which rows, and how."""

    loss_reduction: Literal["token_mean", "sequence_mean", "sum"] = "token_mean"
    """How a step's loss is reduced: a mean over tokens, a mean over rows, or a sum."""

    @model_validator(mode="after")
    def _exact_match_needs_rows(self) -> Self:
        if self.exact_match and not self.evaluates:
            raise ValueError("exact_match needs test_dataset, test_split or test_size")
        return self


def supervised(kitchen: Kitchen, config: SupervisedConfig) -> TrainingResult:
    """Fine-tune a model on prompts with completions, conversations, or plain text.

    Metrics, one row a step, besides those of every loop (see `train`): `train_mean_nll` (nats per
    trained token) and `num_tokens` (trained); at evaluations `test/nll` (nats per trained token)
    and, where asked for, `test/exact_match` (a fraction) and `sampler/logprob_diff` (nats, see
    `Sampler`).

    Raises:
        ConfigurationError: the kitchen's adapters cannot do what the configuration asks for.
        InvalidInput: a row that cannot be rendered.
        AdapterError: a call failed, and restarts are used up.
    """
    _check_capabilities(kitchen, config)
    return train(kitchen, "supervised", config, Supervised)


class Supervised:
    """Minimise the cross-entropy of completions, answers or texts."""

    def __init__(self, kitchen: Kitchen, config: SupervisedConfig) -> None:
        self._kitchen, self._client, self._config = kitchen, kitchen.training_client, config
        self.evaluates = config.evaluates
        self._answers = (
            Answers(kitchen, config, config.eval_batch_size) if config.exact_match else None
        )

    def prepare(self, session: Any) -> Prepared[Example]:
        config = self._config
        rows = prepare_rows(self._kitchen, session, config, config.batch_size)
        self._test = rows.test
        prepared = Prepared(rows.train, rows.depends_on, rows.facts)
        if self._answers is None:
            return prepared
        return replace(prepared, trial=partial(self._answers.try_completing, session, rows.test))

    def submit(self, session: Any, batch: Sequence[Example], step: int) -> Measure:
        per_row = self._config.loss_reduction == "sequence_mean"
        tokens = sum(example.trained_tokens for example in batch)
        scales = {"token_mean": 1.0 / tokens, "sequence_mean": 1.0 / len(batch), "sum": 1.0}
        scale = scales[self._config.loss_reduction]
        datums = [e.datum(scale / e.trained_tokens if per_row else scale) for e in batch]
        future = self._client.forward_backward(session, datums)

        def measure() -> Metrics:
            # From the logprobs, not from `loss`, which is in units of `loss_reduction`.
            nll = negative_log_likelihood(self._client, self._client.await_(future), batch)
            return {"train_mean_nll": nll / tokens, "num_tokens": tokens}

        return measure

    def evaluate(self, session: Any) -> Evaluation:
        nll = mean_nll(self._client, session, self._test, self._config.eval_batch_size)
        if self._answers is None:
            return Evaluation({"test/nll": nll})
        samples = self._answers.of(session, self._test)
        measured = {"test/nll": nll, "test/exact_match": mean_reward(samples)}
        return Evaluation({**measured, **self._answers.metrics}, samples)


def check(kitchen: Kitchen, config: SupervisedConfig) -> Iterator[tuple[str, str]]:
    """Try what a run needs before its first step; yield what is in order, and how.

    Raises:
        CrucibleError: names what is not.
    """
    _check_capabilities(kitchen, config)
    with trial_session(kitchen, config) as session:
        yield from check_training(kitchen, config, session)
        yield from try_rows(kitchen, session, config)


def _check_capabilities(kitchen: Kitchen, config: SupervisedConfig) -> None:
    client = kitchen.training_client
    if config.evaluates and not client.supports("forward"):
        raise ConfigurationError(
            f"workflow.test_dataset: the training client {client.adapter!r} has no forward, "
            "so nothing can be evaluated; leave out test_dataset and test_split"
        )
    if config.exact_match:
        check_live_weights(kitchen, "workflow.exact_match")
