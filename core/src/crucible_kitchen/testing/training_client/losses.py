"""The four losses and their gradients."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import pytest

from ...losses import LOSS_FUNCTIONS
from ...types import Datum, FloatArray
from ..conformance import unless_synthetic
from .bench import EPS, SGD, Bench, Config, Floats, joined, values, with_inputs
from .fixtures import TrainingClientFixtures

LOSSES: Mapping[str, tuple[str, Config]] = {
    "cross_entropy": ("cross_entropy", None),
    "importance_sampling": ("importance_sampling", None),
    "ppo": ("ppo", None),
    "ppo, both thresholds": ("ppo", {"clip_low_threshold": 0.5, "clip_high_threshold": 1.1}),
    "ppo, one threshold": ("ppo", {"clip_high_threshold": 2.0}),
    "cispo": ("cispo", None),
    "cispo, both thresholds": ("cispo", {"clip_low_threshold": 0.5, "clip_high_threshold": 1.2}),
}


class Losses(TrainingClientFixtures):
    """Losses are those of `crucible_kitchen.losses`."""

    @pytest.mark.parametrize("loss", LOSSES)
    def test_the_loss_is_that_of_its_formula(self, bench: Bench, loss: str) -> None:
        """The four losses are those of `crucible_kitchen.losses`, with their thresholds, for
        ratios on both sides of each threshold and advantages of both signs.

        Usually broken by the backend's own defaults for the thresholds, by a threshold that is
        taken for a distance from 1, or by clipping without the minimum.
        """
        loss_fn, config = LOSSES[loss]
        session = bench.start()
        datums = bench.for_loss(session, loss_fn)
        submits = [bench.client.forward_backward]
        if bench.client.supports("forward"):
            submits.append(bench.client.forward)
        for submit in submits:
            result = bench.client.await_(submit(session, datums, loss_fn, config))
            terms, _ = terms_and_slopes(loss_fn, config, joined(result), datums)
            bench.same_sum(result.loss, terms)

    @pytest.mark.parametrize("loss", LOSSES)
    def test_the_gradient_is_that_of_the_loss(self, bench: Bench, loss: str) -> None:
        """The gradient of a loss C is that of `cross_entropy` with the weights -dC/dp, by the
        chain rule.

        Usually broken by a missing stop-gradient, or by a gradient through tokens whose ratio was
        clipped.
        """
        loss_fn, config = LOSSES[loss]
        session, other = bench.start(), bench.start()
        before = bench.logprobs(session, bench.batch(3))
        datums = bench.for_loss(session, loss_fn)
        future = bench.client.forward_backward(session, datums, loss_fn, config)
        _, slopes = terms_and_slopes(loss_fn, config, joined(bench.client.await_(future)), datums)
        weighted = [
            with_inputs(each, weights=-part)
            for each, part in zip(datums, np.split(slopes, len(datums)), strict=True)
        ]
        bench.forward_backward(other, weighted)
        norms = [bench.optim_step(each, adam=SGD).grad_norm for each in (session, other)]
        bench.same_norm(*norms)
        found, expected = (bench.logprobs(each, bench.batch(3)) for each in (session, other))
        bench.same_step(before, found, expected)
        assert not math.isclose(before[0], found[0], abs_tol=bench.tolerance)

    @unless_synthetic
    def test_a_step_goes_down_the_gradient_as_far_as_it_is_steep(self, bench: Bench) -> None:
        """A small step along the gradient changes the loss by the length of the step times
        `grad_norm`, down, and with all weights negative up.

        Usually broken by a gradient that is scaled, partly missing, or of other weights, which
        nothing but a finite difference shows.
        """
        datums, opposite = bench.batch(1), bench.batch(1, weight=-1.0)
        sessions = [bench.start() for _ in range(3)]
        bench.forward_backward(sessions[0], datums)
        norm = bench.optim_step(sessions[0], rate=0.0, adam=SGD).grad_norm
        rate = bench.learning_rate / (norm or 1.0)  # the step is as long as the learning rate
        for session, each in zip(sessions[1:], (datums, opposite), strict=True):
            bench.step(session, each, rate * EPS, SGD)
        start, down, up = (
            -float(bench.logprobs(session, datums).astype(np.float64).sum()) for session in sessions
        )
        assert down < start < up
        if norm is not None:
            length = rate * norm
            error = max(0.02, 1000 * bench.tolerance)
            assert (up - down) / (2 * length) == pytest.approx(norm, rel=error)


def terms_and_slopes(
    loss_fn: str, config: Config, p: FloatArray, datums: Sequence[Datum]
) -> tuple[Floats, Floats]:
    """Return what each token adds to the loss, `(n,)`, and d loss / d p, `(n,)`.

    The formulas are those of `crucible_kitchen.losses`.
    """
    p = p.astype(np.float64)
    if loss_fn == "cross_entropy":
        weights = values(datums, "weights")
        return -weights * p, -weights
    advantages = values(datums, "advantages")
    ratio = np.exp(p - values(datums, "logprobs"))
    if loss_fn == "importance_sampling":
        return -ratio * advantages, -ratio * advantages
    complete = {**LOSS_FUNCTIONS[loss_fn].config, **(config or {})}
    clipped = ratio.clip(complete["clip_low_threshold"], complete["clip_high_threshold"])
    if loss_fn == "cispo":
        return -clipped * p * advantages, -clipped * advantages
    free, bound = ratio * advantages, clipped * advantages
    return -np.minimum(free, bound), -np.where(free <= bound, free, 0.0)
