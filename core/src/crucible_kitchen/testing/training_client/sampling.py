"""Weights for a sampler."""

from __future__ import annotations

import numpy as np

from ..conformance import needs
from .bench import Bench
from .fixtures import Score, TrainingClientFixtures


class Sampling(TrainingClientFixtures):
    """`save_weights_for_sampler`."""

    @needs("save_weights_for_sampler")
    def test_references_of_weights_are_never_reused(self, bench: Bench) -> None:
        """Each `save_weights_for_sampler` returns a new reference, with or without a name, in
        one session and in the next.

        Usually broken by the name itself: a server that caches by name (vLLM) goes on sampling
        from the old weights.
        """
        name = f"{bench.label}[ü] / ?&#"
        references = []
        for _ in range(2):
            session = bench.start()
            for each in (None, name, name, None):
                references.append(bench.client.save_weights_for_sampler(session, each))
            bench.client.close_session(session)
        assert all(isinstance(reference, str) and reference for reference in references)
        assert len(set(references)) == 8

    @needs("save_weights_for_sampler")
    def test_the_sampler_gets_the_weights_of_the_session(
        self, bench: Bench, score: Score | None
    ) -> None:
        """The paired completer scores texts as `forward` does, with the weights after everything
        that was queued, also under a named reference after training went on.

        Usually broken by publishing around the queue, by an update that is not merged, or by a
        name that a server has cached.
        """
        scored = self.given(score, "score")
        texts = [
            [*each.model_input.to_ints(), int(each.loss_fn_inputs["target_tokens"][-1])]
            for each in bench.probe
        ]
        session = bench.start()
        saved = []
        for seed in (1, 2):
            bench.client.forward_backward(session, bench.batch(seed))
            bench.client.optim_step(session, bench.learning_rate)
            reference = bench.client.save_weights_for_sampler(session, f"{bench.label}same")
            saved.append((reference, bench.logprobs(session, bench.probe)))
        ephemeral = bench.client.save_weights_for_sampler(session)
        for reference, expected in (*saved, (ephemeral, saved[-1][1])):
            np.testing.assert_allclose(
                np.concatenate(scored(texts, reference)), expected, atol=10 * bench.tolerance
            )
