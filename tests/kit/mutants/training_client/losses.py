"""Faults in weights and losses."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from crucible_kitchen import Datum, TrainingClient, hookimpl

from .bases import BIGRAM, ChangedPass, Delegate, Options, mutants, replace_weights


class AveragesTheGradient(ChangedPass):
    def change(self, datums: Sequence[Datum]) -> list[Datum]:
        return [replace_weights(datum, lambda w: w / len(datums)) for datum in datums]


class DividesByTheWeights(ChangedPass):
    def weights(self, values: Any) -> Any:
        return (values / (values.sum() or 1)).astype(np.float32)


class IgnoresWeights(ChangedPass):
    def weights(self, values: Any) -> Any:
        return np.ones_like(values)


class TakesWeightsForAMask(ChangedPass):
    def weights(self, values: Any) -> Any:
        return (values > 0).astype(np.float32)


class AcceptsNaN(ChangedPass):
    def change_input(self, name: str, values: Any) -> Any:
        return np.nan_to_num(values) if getattr(values, "dtype", None) == np.float32 else values


class ConvertsIntegers(ChangedPass):
    def weights(self, values: Any) -> Any:
        return np.asarray(values, np.float32)


class WrapsNegativeTokens(ChangedPass):
    def change_input(self, name: str, values: Any) -> Any:
        return values % 40 if name == "target_tokens" and values.dtype.kind == "i" else values


class FaultyLoss(Delegate):
    """The base of those that are wrong about one loss."""

    loss_fn = ""

    @hookimpl
    def forward_backward(
        self, opts: Options, session: Any, datums: Any, loss_fn: str, loss_fn_config: Any
    ) -> Any:
        if loss_fn == self.loss_fn:
            return self.run(opts.inner, session, datums, loss_fn_config)
        return opts.inner.forward_backward(session, datums, loss_fn, loss_fn_config)

    def run(self, client: TrainingClient, session: Any, datums: Any, config: Any) -> Any: ...


class NegatesTheAdvantage(FaultyLoss):
    loss_fn = "importance_sampling"

    def run(self, client: TrainingClient, session: Any, datums: Any, config: Any) -> Any:
        negated = []
        for datum in datums:
            inputs = datum.loss_fn_inputs
            inputs = {**inputs, "advantages": -inputs["advantages"]}
            negated.append(Datum(datum.model_input, inputs))
        return client.forward_backward(session, negated, self.loss_fn, config)


class DoesNotClip(FaultyLoss):
    loss_fn = "ppo"

    def run(self, client: TrainingClient, session: Any, datums: Any, config: Any) -> Any:
        return client.forward_backward(session, datums, "importance_sampling")


class HasAGradientWhereItClips(FaultyLoss):
    loss_fn = "ppo"

    def run(self, client: TrainingClient, session: Any, datums: Any, config: Any) -> Any:
        client.forward_backward(session, datums, "importance_sampling")
        return client.forward(session, datums, "ppo", config)


class HasThresholdsOfItsOwn(FaultyLoss):
    loss_fn = "ppo"

    def run(self, client: TrainingClient, session: Any, datums: Any, config: Any) -> Any:
        return client.forward_backward(session, datums, "ppo")


class DifferentiatesTheRatio(FaultyLoss):
    loss_fn = "cispo"

    def run(self, client: TrainingClient, session: Any, datums: Any, config: Any) -> Any:
        future = client.forward(session, datums, "cispo", config)
        low, high = {
            "clip_low_threshold": 0.0,
            "clip_high_threshold": 4.0,
            **(config or {}),
        }.values()
        weighted = []
        for datum, output in zip(datums, client.await_(future).outputs, strict=True):
            inputs, p = datum.loss_fn_inputs, output["logprobs"]
            ratio = np.exp(p - inputs["logprobs"])
            inside = (ratio > low) & (ratio < high)
            slope = (ratio.clip(low, high) + inside * ratio * p) * inputs["advantages"]
            targets = {"target_tokens": inputs["target_tokens"]}
            weighted.append(Datum(datum.model_input, {**targets, "weights": slope}))
        client.forward_backward(session, weighted)
        return future


MUTANTS = mutants(
    BIGRAM,
    (AveragesTheGradient(), "gradients_accumulate"),
    (DividesByTheWeights(), "weights_scale_the_loss_and_the_gradient"),
    (IgnoresWeights(), "a_token_of_weight_zero_does_not_count"),
    (TakesWeightsForAMask(), "a_negative_weight_takes_away"),
    (AcceptsNaN(), "bad_input_is_refused_at_submission"),
    (ConvertsIntegers(), "bad_input_is_refused_at_submission"),
    (WrapsNegativeTokens(), "bad_input_is_refused_at_submission"),
    (NegatesTheAdvantage(), "the_loss_is_that_of_its_formula"),
    (DoesNotClip(), "the_loss_is_that_of_its_formula"),
    (HasAGradientWhereItClips(), "the_gradient_is_that_of_the_loss"),
    (HasThresholdsOfItsOwn(), "the_loss_is_that_of_its_formula"),
    (DifferentiatesTheRatio(), "the_gradient_is_that_of_the_loss"),
)
