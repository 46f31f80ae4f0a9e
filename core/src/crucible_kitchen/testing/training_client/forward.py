"""Evaluation without gradients."""

from __future__ import annotations

import numpy as np

from ...errors import InvalidInput
from ..conformance import needs, unless_synthetic
from ..refusal import refuses
from .bench import SGD, Bench, joined, with_inputs
from .fixtures import TrainingClientFixtures


class Forward(TrainingClientFixtures):
    """`forward`."""

    @needs("forward")
    def test_forward_and_forward_backward_agree(self, bench: Bench) -> None:
        """`forward` has the logprobs of `forward_backward` on the same weights.

        Usually broken by dropout that is on, or another precision.
        """
        session = bench.start()
        bench.losses(session, [1, 2])
        bench.same(
            joined(bench.forward(session, bench.probe)),
            joined(bench.forward_backward(session, bench.probe)),
        )

    @needs("forward")
    def test_forward_leaves_no_trace(self, bench: Bench) -> None:
        """`forward` accumulates no gradient, and changes neither the weights nor the gradients
        accumulated before.

        Usually broken by a backend that has one call for both.
        """
        watched, plain = bench.start(), bench.start()
        before = bench.logprobs(watched, bench.probe)
        bench.forward(watched, bench.batch(2))
        refuses(InvalidInput, bench.client.optim_step, watched, bench.learning_rate)
        bench.same(bench.logprobs(watched, bench.probe), before)
        for session in (watched, plain):
            bench.forward_backward(session, bench.batch(1))
            if session is watched:
                bench.forward(watched, bench.batch(2))
            bench.optim_step(session, adam=SGD)
        found, expected = (bench.logprobs(session, bench.probe) for session in (watched, plain))
        bench.same_step(before, found, expected)

    @needs("forward")
    def test_missing_weights_are_ones_in_forward(self, bench: Bench) -> None:
        """Without weights `forward` has the loss of weights of 1.

        Usually broken by demanding them, or by zeros.
        """
        session = bench.start()
        plain = [with_inputs(each) for each in bench.batch(1)]
        result = bench.forward(session, plain)
        bench.same_sum(result.loss, -joined(result).astype(np.float64))
        mixed = [plain[0], *bench.batch(1)[1:]]
        bench.same(bench.forward(session, mixed).loss, result.loss)

    @needs("forward")
    @unless_synthetic
    def test_dropout_is_on_in_training_alone(self, bench: Bench) -> None:
        """`forward` has no dropout: it repeats itself. `forward_backward` has it, another each
        time.

        Usually broken by a model that stays in the mode of its last pass.
        """
        session = bench.start_with_dropout()
        bench.losses(session, [1, 2])  # an update that begins at zero has nothing to drop
        first, again = (bench.forward(session, bench.probe) for _ in range(2))
        bench.same(joined(again), joined(first))
        one, other = (joined(bench.forward_backward(session, bench.probe)) for _ in range(2))
        assert np.abs(one - other).max() > 10 * bench.tolerance
        bench.same(joined(bench.forward(session, bench.probe)), joined(first))
