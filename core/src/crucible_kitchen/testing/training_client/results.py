"""What a pass returns: log probabilities and a loss."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ...errors import InvalidInput, Unsupported
from ...types import Datum, EncodedTextChunk, ImageChunk, ModelInput
from ..conformance import since, unless_synthetic
from ..images import PNG
from .bench import EPS, SGD, Bench, datum, joined, values, with_inputs
from .fixtures import TrainingClientFixtures


class Results(TrainingClientFixtures):
    """The numbers of `forward_backward`."""

    def test_logprobs_are_one_float32_for_each_target(self, bench: Bench) -> None:
        """`outputs[i]["logprobs"]` is float32 of shape `(N_i,)`, finite, and not above 0.

        Usually broken by a backend that leaves out the first or the last position, or pads all
        to one length.
        """
        session = bench.start()
        datums = bench.batch(1, sizes=(1, 7, 3, 3))
        runs = [bench.forward_backward]
        if bench.client.supports("forward"):
            runs.append(bench.forward)
        for run in runs:
            result = run(session, datums)
            assert len(result.outputs) == len(datums)
            for each, output in zip(datums, result.outputs, strict=True):
                logprobs = output["logprobs"]
                assert logprobs.dtype == np.float32
                assert logprobs.shape == (each.model_input.length,)
                assert np.isfinite(logprobs).all()
                assert (logprobs <= 1e-6).all()

    @unless_synthetic
    def test_logprobs_are_of_a_distribution_in_nats(
        self, bench: Bench, vocab_size: int | str | None
    ) -> None:
        """The probabilities of all tokens at one place add up to 1.

        Usually broken by a logarithm to another base, by a padded or a cut vocabulary, and by a
        temperature.
        """
        if vocab_size is None or int(vocab_size) > 5000:
            pytest.skip("the fixture `vocab_size` is not given, or large")
        datums = [datum([1, 2, token], weights=[1, 1]) for token in range(int(vocab_size))]
        result = bench.evaluate(bench.start(), datums)
        logprobs = np.array([output["logprobs"][1] for output in result.outputs], np.float64)
        assert np.exp(logprobs).sum() == pytest.approx(1, rel=100 * bench.tolerance)

    def test_the_loss_is_the_sum_over_tokens(self, bench: Bench) -> None:
        """The loss of `cross_entropy` is -sum w p over all tokens of all datums: no mean, over
        tokens or over datums.

        Usually broken by a backend that divides by a number of tokens, of datums, or by the sum
        of the weights (SkyRL 0.3 divides each sequence by its own).
        """
        rng = np.random.default_rng(0)
        datums = [
            with_inputs(each, weights=rng.normal(size=each.model_input.length))
            for each in bench.batch(1)
        ]
        result = bench.forward_backward(bench.start(), datums)
        bench.same_sum(result.loss, -values(datums, "weights") * joined(result))

    @since("1.4")
    def test_a_logprob_that_does_not_count_is_right_or_zero(self, bench: Bench) -> None:
        """Where the weight of a token is 0, its logprob is what it is with another weight, or
        exactly 0; where it is not 0, the other weights do not change it.

        Usually broken by logprobs that are multiplied with the weights, and by memory that is not
        initialised.
        """
        session = bench.start()
        whole = bench.batch(1)
        rng = np.random.default_rng(2)
        some = [
            with_inputs(each, weights=rng.integers(0, 2, each.model_input.length) * 0.5)
            for each in whole
        ]
        expected = joined(bench.evaluate(session, whole))
        found, weights = joined(bench.evaluate(session, some)), values(some, "weights")
        assert 0 < weights.sum() < 0.5 * len(weights)
        bench.same(found, np.where((weights == 0) & (found == 0), 0, expected))

    def test_a_logprob_does_not_depend_on_what_follows(self, bench: Bench) -> None:
        """The logprobs of the beginning of a text are those that it has in the whole.

        Usually broken by padding on the wrong side, by attention that is not causal, or by
        targets that are moved by one.
        """
        [whole] = bench.batch(1, sizes=(9,))
        sequence = [*whole.model_input.to_ints(), int(whole.loss_fn_inputs["target_tokens"][-1])]
        starts = [datum(sequence[:end], weights=np.ones(end - 1)) for end in range(2, 11)]
        result = bench.evaluate(bench.start(), starts)
        for output in result.outputs:
            logprobs = output["logprobs"]
            bench.same(logprobs, result.outputs[-1]["logprobs"][: len(logprobs)])

    def test_how_a_batch_is_cut_is_invisible(self, bench: Bench) -> None:
        """Datums of any lengths in any order have the logprobs that each has alone, in their
        order, and the sum of their losses.

        Usually broken by sorting by length without sorting back, and by padding.
        """
        session = bench.start()

        @self.hypothesis_settings()
        @given(sizes=st.lists(st.integers(1, 9), min_size=1, max_size=10), seed=st.integers(0, 99))
        def check(sizes: list[int], seed: int) -> None:
            datums = bench.batch(seed, sizes=sizes)
            alone = [bench.evaluate(session, [each]) for each in datums]
            result = bench.evaluate(session, datums)
            for output, one in zip(result.outputs, alone, strict=True):
                bench.same(output["logprobs"], one.outputs[0]["logprobs"])
            bench.same_sum(result.loss, np.array([one.loss for one in alone]))

        check()

    def test_a_large_batch_is_one_batch(self, bench: Bench) -> None:
        """A batch that a backend must cut into pieces has the results, the loss and the gradient
        of all of it.

        Usually broken by a loss, or a gradient, of the last piece alone, or by a mean of the
        pieces.
        """
        datums = bench.batch(5, sizes=[1 + 5 * n % 12 for n in range(150)], weight=0.02)
        parts = [datums[start : start + 37] for start in range(0, len(datums), 37)]
        whole, pieces = bench.start(), bench.start()
        before = bench.logprobs(whole, bench.probe)
        one = bench.forward_backward(whole, datums)
        many = [bench.forward_backward(pieces, part) for part in parts]
        bench.same(joined(one), np.concatenate([joined(result) for result in many]))
        bench.same_sum(one.loss, np.array([result.loss for result in many]))
        norms = [bench.optim_step(session, adam=SGD).grad_norm for session in (whole, pieces)]
        bench.same_norm(*norms)
        bench.same_step(
            before,
            bench.logprobs(whole, bench.probe),
            bench.logprobs(pieces, bench.probe),
        )

    def test_tokens_in_several_chunks_are_one_text(self, bench: Bench) -> None:
        """Text that comes in several chunks, an empty one among them, is read as one.

        Usually broken by taking the first chunk.
        """
        [whole] = bench.batch(1, sizes=(7,))
        ids = np.array(whole.model_input.to_ints())
        chunks = tuple(EncodedTextChunk(ids[a:b]) for a, b in ((0, 1), (1, 1), (1, 5), (5, 7)))
        cut = replace(whole, model_input=ModelInput(chunks))
        session = bench.start()
        one, many = (bench.evaluate(session, [each]) for each in (whole, cut))
        bench.same(joined(many), joined(one))

    def test_an_image_counts_or_is_refused(self, bench: Bench) -> None:
        """A datum with an image is refused at submission, or its positions are counted.

        Usually broken by skipping what is not text: the weights then belong to other tokens.
        """
        session = bench.start()
        seen = ModelInput((ImageChunk(PNG, "png", 2), EncodedTextChunk(np.array([3, 4]))))
        inputs = {
            "target_tokens": np.array([0, 0, 4, 5]),
            "weights": np.array([0, 0, 1, 1], np.float32),
        }
        try:
            future = bench.client.forward_backward(session, [Datum(seen, inputs)])
        except (InvalidInput, Unsupported):
            bench.check_nothing_is_queued(session)
        else:
            result = bench.client.await_(future)
            assert joined(result).shape == (4,)
            bench.same_sum(result.loss, -joined(result)[2:].astype(np.float64))

    @pytest.mark.parametrize("scale", [3.0, 0.25])
    def test_weights_scale_the_loss_and_the_gradient(self, bench: Bench, scale: float) -> None:
        """With all weights multiplied, so are the loss and the gradient.

        Usually broken by dividing by the sum of the weights (SkyRL 0.3: weights of 1 and of 10
        make one gradient).
        """
        one, many = bench.start(), bench.start()
        before = bench.logprobs(one, bench.probe)
        single = bench.step(one, bench.batch(1), bench.learning_rate * EPS * scale, SGD)
        scaled = bench.step(many, bench.batch(1, weight=scale), bench.learning_rate * EPS, SGD)
        bench.same(scaled.loss, scale * single.loss)
        bench.same_step(before, bench.logprobs(many, bench.probe), bench.logprobs(one, bench.probe))

    def test_a_negative_weight_takes_away(self, bench: Bench) -> None:
        """A weight may be negative: a batch and its negative cancel, and what is left is the
        gradient of a third.

        Usually broken by masks (`weights > 0`), absolute values, and divisions by a sum that is
        0 then (SkyRL 0.3: a gradient of norm 4.5e10).
        """
        both, alone = bench.start(), bench.start()
        before = bench.logprobs(both, bench.probe)
        plus = bench.forward_backward(both, bench.batch(2))
        minus = bench.forward_backward(both, bench.batch(2, weight=-1))
        bench.same(minus.loss, -plus.loss)
        bench.step(both, bench.batch(1), adam=SGD)
        bench.step(alone, bench.batch(1), adam=SGD)
        bench.same_step(
            before, bench.logprobs(both, bench.probe), bench.logprobs(alone, bench.probe)
        )

    def test_a_token_of_weight_zero_does_not_count(self, bench: Bench) -> None:
        """A text whose end has weight 0 has the loss and the gradient of its beginning; a datum
        of zeros adds nothing.

        Usually broken by a loss over whatever is in the text, prompt and all.
        """
        [whole] = bench.batch(1, sizes=(8,))
        ids, targets = whole.model_input.to_ints(), whole.loss_fn_inputs["target_tokens"]
        begin = datum([*ids[:5], targets[4]], weights=np.ones(5))
        weighted = with_inputs(whole, weights=[1, 1, 1, 1, 1, 0, 0, 0])
        short, long = bench.start(), bench.start()
        before = bench.logprobs(short, bench.probe)
        expected = bench.step(short, [begin], adam=SGD)
        found = bench.step(long, [weighted, *bench.batch(2, weight=0.0)], adam=SGD)
        bench.same(found.loss, expected.loss)
        bench.same_step(
            before, bench.logprobs(long, bench.probe), bench.logprobs(short, bench.probe)
        )
