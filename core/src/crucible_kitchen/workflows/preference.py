"""Direct preference optimization, Rafailov et al. 2023 (arXiv 2305.18290), and two variants.

With Δ the log ratio of policy and reference, log π(y|x) - log π_ref(y|x), summed over the tokens of
an answer, and h = β (Δ_chosen - Δ_rejected), the loss of a pair is

- `sigmoid`: -log σ(h), equation 7; with label smoothing ε, -(1 - ε) log σ(h) - ε log σ(-h)
  (Mitchell 2023, conservative DPO);
- `ipo`: (h' - 1 / (2β))², where h' is the difference of the Δ as means over the tokens of each
  answer (Azar et al. 2023, arXiv 2310.12036, equation 17, which has sums and calls β τ; TRL has
  means, which the paper's authors confirmed to be what they used).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Literal, Self

import numpy as np
from pydantic import Field, model_validator

from ..kitchen import Kitchen
from ..types import FloatArray
from . import pairs
from .algorithm import Measure, Metrics, Prepared, TrainingResult
from .checks import check_training, trial_session
from .config import TrainingConfig
from .foreign import PREFERENCE_NAMES
from .loop import train
from .losses.custom_loss import check_same_model, custom_loss
from .planning.pairs import plan as plan
from .planning.pairs import preview as preview
from .rows.first_rows import try_rows


class PreferenceConfig(pairs.PairsConfig, TrainingConfig):
    """What to train, on which pairs, and how."""

    foreign_names = PREFERENCE_NAMES

    loss: Literal["sigmoid", "ipo"] = "sigmoid"
    """The loss of DPO, or that of IPO."""
    beta: float = Field(default=0.1, gt=0, allow_inf_nan=False)
    """How much a departure from the starting weights costs."""
    label_smoothing: float = Field(default=0.0, ge=0, lt=0.5)
    """Fraction of the pairs that is taken to be the wrong way round; of `sigmoid` alone."""
    learning_rate: float = Field(default=1e-6, ge=0, allow_inf_nan=False)
    """Peak learning rate. The default is the paper's and TRL's; ten times as much suits `lora`."""

    @model_validator(mode="after")
    def _has_a_gradient_in_closed_form(self) -> Self:
        if self.loss == "ipo" and self.label_smoothing:
            raise ValueError('label_smoothing is of loss = "sigmoid"; IPO has none')
        if self.lora is not None and self.lora.dropout:
            raise ValueError("lora.dropout must be 0: the loss is computed without dropout")
        return self


def preference(kitchen: Kitchen, config: PreferenceConfig) -> TrainingResult:
    """Raise the odds of each chosen answer over the rejected one of the same prompt.

    The reference is the model with the weights that the run starts from. Metrics, one row a step,
    besides those of every loop (see `train`): `dpo_loss`, a mean over the pairs, and those of
    `pairs.measured`; at evaluations the same under `test/`, and those of `pairs.baselines`.

    Raises:
        ConfigurationError: the kitchen's adapters cannot do what the configuration asks for.
        InvalidInput: a row that is not a pair.
        AdapterError: a call failed, and restarts are used up.
    """
    pairs.check_can_compare(kitchen)
    return train(kitchen, "preference", config, Preference)


class Preference:
    """Minimise the loss of pairs, whose gradient is in closed form."""

    def __init__(self, kitchen: Kitchen, config: PreferenceConfig) -> None:
        self._kitchen, self._client, self._config = kitchen, kitchen.training_client, config
        self.evaluates = config.evaluates

    def prepare(self, session: Any) -> Prepared[pairs.Pair]:
        found = pairs.prepare_pairs(self._kitchen, session, self._config, self._config.batch_size)
        self._test = found.test
        return Prepared(found.train, found.depends_on, found.facts)

    def submit(self, session: Any, batch: Sequence[pairs.Pair], step: int) -> Measure:
        sides = [side for pair in batch for side in pair.sides]
        reference = np.array([pair.reference for pair in batch])
        without_dropout: list[FloatArray] = []

        def loss(_: Any, logprobs: Sequence[FloatArray]) -> tuple[float, list[FloatArray], Metrics]:
            without_dropout.extend(logprobs)
            ratios = pairs.of_answers(logprobs, sides) - reference
            losses, slopes = loss_of(ratios, pairs.lengths(sides), self._config)
            gradients = pairs.over_tokens(slopes / len(batch), sides)
            return float(losses.mean()), gradients, self._metrics(losses, ratios, sides)

        datums = [side.datum() for side in sides]
        future, _, metrics = custom_loss(self._client, session, datums, loss)

        def measure() -> Metrics:
            check_same_model(self._client, self._client.await_(future), without_dropout)
            return metrics

        return measure

    def evaluate(self, session: Any) -> Metrics:
        test, size = self._test, self._config.eval_batch_size
        ratios = pairs.log_likelihoods(self._client, session, test.sides, size) - test.reference
        losses, _ = loss_of(ratios, pairs.lengths(test.sides), self._config)
        metrics = {**self._metrics(losses, ratios, test.sides), **pairs.baselines(test)}
        return {f"test/{name}": value for name, value in metrics.items()}

    def _metrics(self, losses: pairs.Doubles, ratios: pairs.Doubles, sides: pairs.Sides) -> Metrics:
        rewards = self._config.beta * ratios
        return {"dpo_loss": float(losses.mean()), **pairs.measured(rewards, sides)}


def loss_of(
    ratios: pairs.Doubles, lengths: pairs.Doubles, config: PreferenceConfig
) -> tuple[pairs.Doubles, pairs.Doubles]:
    """Return the losses of n pairs, `(n,)`, and their derivatives by Δ, `(n, 2)`.

    Args:
        ratios: `(n, 2)`, Δ of each chosen and each rejected answer, in nats.
        lengths: `(n, 2)`, tokens of these answers.
        config: has the loss, β and ε.
    """
    signs, beta, smoothing = np.array([1.0, -1.0]), config.beta, config.label_smoothing
    if config.loss == "ipo":
        scales = signs / lengths
        distance = (scales * ratios).sum(axis=1) - 1 / (2 * beta)
        return distance**2, scales * (2 * distance)[:, None]
    h = beta * (signs * ratios).sum(axis=1)
    right, wrong = np.logaddexp(0, -h), np.logaddexp(0, h)  # -log σ(h), -log σ(-h)
    slopes = np.exp(-right) - (1 - smoothing)
    return (1 - smoothing) * right + smoothing * wrong, beta * signs * slopes[:, None]


def check(kitchen: Kitchen, config: PreferenceConfig) -> Iterator[tuple[str, str]]:
    """Try what a run needs before its first step; yield what is in order, and how."""
    pairs.check_can_compare(kitchen)
    with trial_session(kitchen, config) as session:
        yield from check_training(kitchen, config, session)
        yield from try_rows(kitchen, session, config, config.reader)
