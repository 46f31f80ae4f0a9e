"""Gradients accumulate, and the optimizer is AdamW."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from ...errors import InvalidInput
from ...types import AdamParams, FloatArray
from ..conformance import unless_synthetic
from ..refusal import refuses
from .bench import ADAM, EPS, SGD, Bench
from .fixtures import TrainingClientFixtures


class Steps(TrainingClientFixtures):
    """`optim_step`."""

    def test_gradients_accumulate(self, bench: Bench) -> None:
        """Two calls and one step equal one call with both batches and one step.

        Usually broken by a call that replaces the gradient of the one before, or by a mean over
        the datums of each call.
        """
        first, second = bench.batch(1), bench.batch(2, sizes=(4, 6))
        together, apart = bench.start(), bench.start()
        before = bench.logprobs(together, bench.probe)
        bench.forward_backward(together, [*first, *second])
        for part in (first, second):
            bench.forward_backward(apart, part)
        norms = [bench.optim_step(session, adam=SGD).grad_norm for session in (together, apart)]
        bench.same_norm(*norms)
        bench.same_step(
            before, bench.logprobs(apart, bench.probe), bench.logprobs(together, bench.probe)
        )

    def test_a_step_clears_the_gradient(self, bench: Bench) -> None:
        """After a step nothing is accumulated: the next one sees only what came after.

        Usually broken by a missing `zero_grad`, which makes every gradient the sum of all.
        """
        used, fresh = bench.start(), bench.start()
        before = bench.logprobs(used, bench.probe)
        bench.step(used, bench.batch(2), rate=0.0, adam=SGD)
        refuses(InvalidInput, bench.client.optim_step, used, bench.learning_rate)
        norms = []
        for session in (used, fresh):
            bench.forward_backward(session, bench.batch(1))
            norms.append(bench.optim_step(session, adam=SGD).grad_norm)
        bench.same_norm(*norms)
        bench.same_step(
            before, bench.logprobs(used, bench.probe), bench.logprobs(fresh, bench.probe)
        )

    def test_a_step_without_a_gradient_is_refused(self, bench: Bench) -> None:
        """`optim_step` with nothing accumulated is `InvalidInput`, and the session goes on.

        Usually broken by a step on a gradient of zero: momentum moves the weights.
        """
        session = bench.start()
        refuses(InvalidInput, bench.client.optim_step, session, bench.learning_rate)
        bench.step(session, bench.batch(1))
        refuses(InvalidInput, bench.client.optim_step, session, bench.learning_rate)
        assert math.isfinite(bench.step(session, bench.batch(1)).loss)

    def test_a_gradient_of_zero_is_a_gradient(self, bench: Bench) -> None:
        """A batch whose weights are all 0 accumulates a gradient of 0, and a step with it is a
        step.

        Usually broken by a division by the sum of the weights, or by asking the gradient whether
        there is one.
        """
        session = bench.start()
        result = bench.forward_backward(session, bench.batch(1, weight=0.0))
        assert result.loss == 0
        norm = bench.optim_step(session).grad_norm
        assert norm is None or norm == pytest.approx(0, abs=bench.tolerance)
        assert np.isfinite(bench.logprobs(session, bench.probe)).all()

    def test_the_gradient_norm_is_that_before_clipping(self, bench: Bench) -> None:
        """`grad_norm` is the norm of what was accumulated, whatever `grad_clip_norm` is.

        Usually broken by measuring after clipping: the number then never shows that a run
        diverges.
        """
        norms = []
        for clip in (0.0, 1e-3, 1e6):
            session = bench.start()
            bench.forward_backward(session, bench.batch(1))
            adam = AdamParams(grad_clip_norm=clip)
            norms.append(bench.optim_step(session, adam=adam).grad_norm)
        if norms[0] is None:
            pytest.skip("does not tell the norm, which is optional")
        assert norms[0] > 1e-2
        bench.same(norms[1:], norms[0])

    @unless_synthetic
    def test_clipping_bounds_the_whole_gradient(self, bench: Bench) -> None:
        """A gradient longer than `grad_clip_norm` is scaled to that length as a whole, a shorter
        one is left alone, and 0 turns clipping off.

        Usually broken by clipping each tensor, or each number, on its own, or by silently
        dropping the setting (SkyRL 0.3).
        """

        def after(clip: float, rate: float) -> tuple[FloatArray, float | None]:
            session = bench.start()
            bench.forward_backward(session, bench.batch(1))
            adam = replace(SGD, grad_clip_norm=clip)
            norm = bench.optim_step(session, rate * EPS, adam).grad_norm
            return bench.logprobs(session, bench.probe), norm

        before = bench.logprobs(bench.start(), bench.probe)
        free, norm = after(0.0, bench.learning_rate)
        bench.same_step(before, after(1e6, bench.learning_rate)[0], free)
        # However steep, the step has the length of rate * clip.
        clip, length = 1e-3, 10 * bench.learning_rate
        clipped, _ = after(clip, length / clip)
        bench.same_step(before, after(2 * clip, length / (2 * clip))[0], clipped)
        if norm is not None:
            bench.same_step(before, after(0.0, length / norm)[0], clipped)

    @unless_synthetic
    def test_what_is_clipped_is_the_accumulated_gradient(self, bench: Bench) -> None:
        """Clipping applies once, to the sum of all calls since the last step.

        Usually broken by clipping in each backward pass: batches of different size then count
        alike.
        """
        first, second = bench.batch(1, sizes=(9, 8, 9)), bench.batch(2, sizes=(2,))
        together, apart = bench.start(), bench.start()
        before = bench.logprobs(together, bench.probe)
        bench.forward_backward(together, [*first, *second])
        for part in (first, second):
            bench.forward_backward(apart, part)
        clip = 1e-3
        for session in (together, apart):
            rate = 10 * bench.learning_rate / clip * EPS
            bench.optim_step(session, rate, replace(SGD, grad_clip_norm=clip))
        bench.same_step(
            before, bench.logprobs(apart, bench.probe), bench.logprobs(together, bench.probe)
        )

    def test_a_learning_rate_of_zero_leaves_the_weights(self, bench: Bench) -> None:
        """A step at rate 0 changes no weight, even with weight decay.

        Usually broken by a decay that is not multiplied by the rate.
        """
        session = bench.start()
        before = bench.logprobs(session, bench.probe)
        bench.step(session, bench.batch(1), rate=0.0)
        bench.same(bench.logprobs(session, bench.probe), before)
        bench.step(session, bench.batch(1), rate=0.0, adam=AdamParams(weight_decay=0.5))
        bench.same(bench.logprobs(session, bench.probe), before)

    @unless_synthetic
    def test_a_learning_rate_of_zero_moves_the_moments(self, bench: Bench) -> None:
        """A step at rate 0 updates Adam's moments: the next one goes elsewhere than without it,
        unless the moments are switched off.

        Usually broken by skipping a step that seems to do nothing: the first step of a warm-up.
        """
        for adam in (ADAM, AdamParams(beta1=0.0, beta2=0.0)):
            warm, cold = bench.start(), bench.start()
            before = bench.logprobs(warm, bench.probe)
            bench.step(warm, bench.batch(1), rate=0.0, adam=adam)
            for session in (warm, cold):
                bench.step(session, bench.batch(2), adam=adam)
            found, other = (bench.logprobs(session, bench.probe) for session in (warm, cold))
            compare = bench.other_step if adam == ADAM else bench.same_step
            compare(before, found, other)

    @unless_synthetic
    @pytest.mark.parametrize("scale", [3.0, -1.0])
    @pytest.mark.parametrize("betas", [(0.9, 0.95), (0.5, 0.999), (0.0, 0.9)], ids=str)
    def test_the_step_is_that_of_adam(
        self, bench: Bench, betas: tuple[float, float], scale: float
    ) -> None:
        """After a step at rate 0 with k times a gradient, a step with the gradient itself goes as
        far as a first step at (b1 k + 1) / (1 + b1) / sqrt((b2 k^2 + 1) / (1 + b2)) times its
        rate, as the formulas of Adam with their bias correction say.

        Usually broken by betas of the backend's own, by a correction that is missing, and by
        moments that are not kept.
        """
        adam = AdamParams(*betas)
        mean = (betas[0] * scale + 1) / (1 + betas[0])
        variance = (betas[1] * scale**2 + 1) / (1 + betas[1])
        session, first = bench.start(), bench.start()
        before = bench.logprobs(session, bench.probe)
        bench.step(session, bench.batch(1, weight=scale), rate=0.0, adam=adam)
        rate = bench.learning_rate / (mean / math.sqrt(variance))
        bench.step(session, bench.batch(1), rate=rate, adam=adam)
        bench.step(first, bench.batch(1), adam=adam)
        found, expected = (bench.logprobs(each, bench.probe) for each in (session, first))
        bench.same_step(before, found, expected)

    @unless_synthetic
    @pytest.mark.parametrize(
        "change", [{"beta1": 0.5}, {"beta2": 0.5}, {"eps": 1.0}, {"weight_decay": 10.0}], ids=str
    )
    def test_every_setting_of_adam_counts(self, bench: Bench, change: dict[str, float]) -> None:
        """A setting that is changed changes what two steps do, or is refused.

        Usually broken by settings that are read at the first step and never again, or dropped.
        """
        plain, changed = bench.start(), bench.start()
        before = bench.logprobs(plain, bench.probe)
        for seed in (1, 2):
            bench.step(plain, bench.batch(seed))
            bench.step(changed, bench.batch(seed), bench.learning_rate, replace(ADAM, **change))
        found, other = (bench.logprobs(session, bench.probe) for session in (changed, plain))
        bench.other_step(before, found, other)

    @unless_synthetic
    def test_weight_decay_is_decoupled(self, bench: Bench) -> None:
        """A step multiplies the weights by 1 - rate * weight_decay, whatever the gradient: with
        none, two steps by 0.9 equal one by 0.81, however rate and decay make up these.

        Usually broken by adding the weights to the gradient, which Adam then rescales (the L2
        regularisation of Adam, not AdamW).
        """
        session = bench.start()
        bench.losses(session, [1, 2, 1])
        reference = bench.save(session)
        before = bench.logprobs(session, bench.probe)
        nothing = bench.batch(1, weight=0.0)
        outcomes = []
        for settings in ([(0.1, 1.0), (0.2, 0.5)], [(0.38, 0.5)]):
            bench.client.load_checkpoint(session, reference, with_optimizer=False)
            for rate, decay in settings:
                bench.step(session, nothing, rate, AdamParams(weight_decay=decay))
            outcomes.append(bench.logprobs(session, bench.probe))
        bench.same_step(before, *outcomes)

    def test_training_lowers_the_loss(self, bench: Bench) -> None:
        """Ten steps on one batch lower its loss.

        Usually broken by a step that goes up, or by weights that are trained and not used.
        """
        losses = bench.losses(bench.start(), [1] * 11)
        assert losses[-1] < losses[0]

    @pytest.mark.parametrize("rate", [math.nan, math.inf, -1e-3])
    def test_a_learning_rate_that_is_none_is_refused(self, bench: Bench, rate: float) -> None:
        """A learning rate that is negative or not finite is `InvalidInput` at submission; the
        gradient stays.

        Usually broken by a mistake in a schedule, which goes unnoticed: all weights are NaN.
        """
        session = bench.start()
        bench.forward_backward(session, bench.batch(1))
        refuses(InvalidInput, bench.client.optim_step, session, rate)
        bench.optim_step(session)
        assert np.isfinite(bench.logprobs(session, bench.probe)).all()
