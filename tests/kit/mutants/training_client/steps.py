"""Faults in gradients and steps."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from crucible_kitchen import AdamParams, Datum, ModelInput, hookimpl

from .bases import BIGRAM, ZERO, ChangedStep, Delayed, Delegate, Options, drain, mutants


class ReplacesTheGradient(Delayed):
    def due(self, session: Any) -> list[tuple[Any, ...]]:
        return super().due(session)[-1:]


class NeverClearsTheGradient(Delayed):
    @hookimpl
    def optim_step(
        self, opts: Options, session: Any, learning_rate: float, adam: AdamParams
    ) -> Any:
        for each in self.passes[session]:
            opts.inner.forward_backward(session, *each)
        return opts.inner.optim_step(session, learning_rate, adam)


class StepsWithoutAGradient(Delegate):
    @hookimpl
    def optim_step(
        self, opts: Options, session: Any, learning_rate: float, adam: AdamParams
    ) -> Any:
        opts.inner.forward_backward(session, [Datum(ModelInput.from_ints([0]), ZERO)])
        return opts.inner.optim_step(session, learning_rate, adam)


class ClipsEachCall(Delayed):
    @hookimpl
    def optim_step(
        self, opts: Options, session: Any, learning_rate: float, adam: AdamParams
    ) -> Any:
        total = np.zeros_like(session.gradient)
        for each in self.due(session):
            opts.inner.await_(opts.inner.forward_backward(session, *each))
            scale = adam.grad_clip_norm / np.linalg.norm(session.gradient)
            total += session.gradient * (min(1, scale) if adam.grad_clip_norm else 1)
            session.gradient[:] = 0
        session.gradient[:] = total
        return opts.inner.optim_step(session, learning_rate, replace(adam, grad_clip_norm=0.0))


class ClipsEachNumber(ChangedStep):
    def change(self, session: Any, rate: float, adam: AdamParams) -> tuple[float, AdamParams]:
        if adam.grad_clip_norm:
            session.gradient.clip(-adam.grad_clip_norm, adam.grad_clip_norm, session.gradient)
        return rate, replace(adam, grad_clip_norm=0.0)


class MeasuresAfterClipping(ChangedStep):
    def change(self, session: Any, rate: float, adam: AdamParams) -> tuple[float, AdamParams]:
        if adam.grad_clip_norm:
            session.gradient *= min(1, adam.grad_clip_norm / np.linalg.norm(session.gradient))
        return rate, replace(adam, grad_clip_norm=0.0)


class DropsClipping(ChangedStep):
    def change(self, session: Any, rate: float, adam: AdamParams) -> tuple[float, AdamParams]:
        return rate, replace(adam, grad_clip_norm=0.0)


class SkipsStepsAtRateZero(Delegate):
    @hookimpl
    def optim_step(
        self, opts: Options, session: Any, learning_rate: float, adam: AdamParams
    ) -> Any:
        drain(session)
        state = session.state
        future = opts.inner.optim_step(session, learning_rate, adam)
        if learning_rate == 0:
            opts.inner.await_(future)
            session.state = state
        return future


class HasBetasOfItsOwn(ChangedStep):
    def change(self, session: Any, rate: float, adam: AdamParams) -> tuple[float, AdamParams]:
        return rate, replace(adam, beta1=0.9, beta2=0.999)


class DropsEps(ChangedStep):
    def change(self, session: Any, rate: float, adam: AdamParams) -> tuple[float, AdamParams]:
        return rate, replace(adam, eps=1e-8)


class CouplesWeightDecay(ChangedStep):
    def change(self, session: Any, rate: float, adam: AdamParams) -> tuple[float, AdamParams]:
        session.gradient += adam.weight_decay * session.state.weights
        return rate, replace(adam, weight_decay=0.0)


class DecaysAtRateZero(ChangedStep):
    def change(self, session: Any, rate: float, adam: AdamParams) -> tuple[float, AdamParams]:
        decay = 1 - 0.01 * adam.weight_decay
        session.state = replace(session.state, weights=session.state.weights * decay)
        return rate, replace(adam, weight_decay=0.0)


class CorrectsNoBias(ChangedStep):
    def change(self, session: Any, rate: float, adam: AdamParams) -> tuple[float, AdamParams]:
        session.state = replace(session.state, steps=1000)
        return rate, adam


class HalvesTheGradient(ChangedStep):
    """Adam does not notice."""

    def change(self, session: Any, rate: float, adam: AdamParams) -> tuple[float, AdamParams]:
        session.gradient[:, ::2] *= 0.5
        return rate, adam


class GoesUp(ChangedStep):
    def change(self, session: Any, rate: float, adam: AdamParams) -> tuple[float, AdamParams]:
        session.gradient *= -1
        return rate, adam


class AcceptsANegativeRate(ChangedStep):
    def change(self, session: Any, rate: float, adam: AdamParams) -> tuple[float, AdamParams]:
        return abs(rate), adam


MUTANTS = mutants(
    BIGRAM,
    (ReplacesTheGradient(), "gradients_accumulate"),
    (NeverClearsTheGradient(), "a_step_clears_the_gradient"),
    (StepsWithoutAGradient(), "a_step_without_a_gradient_is_refused"),
    (ClipsEachCall(), "what_is_clipped_is_the_accumulated_gradient"),
    (ClipsEachNumber(), "clipping_bounds_the_whole_gradient"),
    (MeasuresAfterClipping(), "the_gradient_norm_is_that_before_clipping"),
    (DropsClipping(), "clipping_bounds_the_whole_gradient"),
    (SkipsStepsAtRateZero(), "a_learning_rate_of_zero_moves_the_moments"),
    (HasBetasOfItsOwn(), "the_step_is_that_of_adam"),
    (DropsEps(), "every_setting_of_adam_counts"),
    (CouplesWeightDecay(), "weight_decay_is_decoupled"),
    (DecaysAtRateZero(), "a_learning_rate_of_zero_leaves_the_weights"),
    (CorrectsNoBias(), "the_step_is_that_of_adam"),
    (HalvesTheGradient(), "a_step_goes_down_the_gradient_as_far_as_it_is_steep"),
    (GoesUp(), "training_lowers_the_loss"),
    (AcceptsANegativeRate(), "a_learning_rate_that_is_none_is_refused"),
)
