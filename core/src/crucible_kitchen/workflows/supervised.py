"""Supervised fine-tuning: learn to continue prompts as the data set does."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from ..errors import ConfigurationError
from ..kitchen import Kitchen
from .algorithm import Measure, Metrics, Prepared, TrainingResult
from .checks import check_training, trial_session
from .config import RowsConfig, TrainingConfig
from .evaluation import exact_match, mean_nll, negative_log_likelihood
from .loop import train
from .rows.first_rows import show_rows, try_rows
from .rows.prepare import prepare_rows
from .rows.rendering import Example


class SupervisedConfig(RowsConfig, TrainingConfig):
    """What to train, on which rows, and how."""

    loss_reduction: Literal["token_mean", "sequence_mean", "sum"] = "token_mean"
    """How a step's loss is reduced: a mean over tokens, a mean over rows, or a sum."""
    exact_match: bool = False
    """Whether to complete the held-out prompts and count the answers that are exactly right."""
    ignore_thinking: bool = True
    """Whether think blocks, `<think>...</think>`, are left out of that comparison."""
    max_tokens: int | None = Field(default=None, ge=1)
    """Longest completion while evaluating; the length of the longest answer if unset."""

    @model_validator(mode="after")
    def _exact_match_needs_rows(self) -> Self:
        if self.exact_match and not self.evaluates:
            raise ValueError("exact_match needs test_dataset, test_split or test_size")
        return self

    def required_ports(self) -> tuple[str, ...]:
        ports = super().required_ports()
        return (*ports, "completer") if self.exact_match else ports


def supervised(kitchen: Kitchen, config: SupervisedConfig) -> TrainingResult:
    """Fine-tune a model on prompts with completions, conversations, or plain text.

    Metrics, one row a step, besides those of every loop (see `train`): `train_mean_nll` (nats per
    trained token) and `num_tokens` (trained); at evaluations `test/nll` (nats per trained token)
    and `test/exact_match` (a fraction).

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

    def prepare(self, session: Any) -> Prepared[Example]:
        config = self._config
        rows = prepare_rows(self._kitchen, session, config, config.batch_size)
        self._test = rows.test
        trial = partial(self._try_completer, session)
        return Prepared(rows.train, rows.depends_on, rows.facts, trial)

    def _try_completer(self, session: Any) -> None:
        """Complete one prompt, so that a completer that cannot fails before training."""
        if self._config.exact_match:
            answered = [each for each in self._test if each.prompt_length is not None]
            self._exact_match(session, answered[:1], max_tokens=1)

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

    def evaluate(self, session: Any) -> Metrics:
        config = self._config
        nll = mean_nll(self._client, session, self._test, config.eval_batch_size)
        metrics = {"test/nll": nll}
        if config.exact_match:
            metrics["test/exact_match"] = self._exact_match(session, self._test, config.max_tokens)
        return metrics

    def _exact_match(
        self, session: Any, examples: Sequence[Example], max_tokens: int | None
    ) -> float:
        return exact_match(
            self._kitchen.completer,
            self._client.save_weights_for_sampler(session),
            examples,
            self._client.helper("get_tokenizer")(session),
            max_tokens=max_tokens,
            batch_size=self._config.eval_batch_size,
            ignore_thinking=self._config.ignore_thinking,
        )


def check(kitchen: Kitchen, config: SupervisedConfig) -> Iterator[tuple[str, str]]:
    """Try what a run needs before its first step; yield what is in order, and how.

    Raises:
        CrucibleError: names what is not.
    """
    _check_capabilities(kitchen, config)
    with trial_session(kitchen, config) as session:
        yield from check_training(kitchen, config, session)
        yield from try_rows(kitchen, session, config)


def preview(kitchen: Kitchen, config: SupervisedConfig, count: int) -> Iterator[str]:
    """Yield the text of the first `count` training rows, what is trained on between ⟦ and ⟧."""
    with trial_session(kitchen, config) as session:
        yield from show_rows(kitchen, session, config, count)


def _check_capabilities(kitchen: Kitchen, config: SupervisedConfig) -> None:
    client = kitchen.training_client
    if config.evaluates and not client.supports("forward"):
        raise ConfigurationError(
            f"workflow.test_dataset: the training client {client.adapter!r} has no forward, "
            "so nothing can be evaluated; leave out test_dataset and test_split"
        )
    if config.exact_match and not client.supports("save_weights_for_sampler"):
        raise ConfigurationError(
            f"workflow.exact_match: the training client {client.adapter!r} has no "
            "save_weights_for_sampler, so the completer cannot use the weights"
        )
