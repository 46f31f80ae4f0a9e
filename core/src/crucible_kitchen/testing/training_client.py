"""What a training client promises."""

from __future__ import annotations

import concurrent.futures
import contextlib
import functools
import json
import math
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import pytest
from hypothesis import Phase, given
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from ..errors import (
    AdapterError,
    AdapterTimeout,
    InvalidInput,
    NotFound,
    SessionClosed,
    SessionFailed,
    Unsupported,
)
from ..ports import TrainingClient
from ..types import (
    AdamParams,
    Datum,
    EncodedTextChunk,
    FloatArray,
    ImageChunk,
    LoraConfig,
    ModelInput,
    SessionConfig,
)
from .conformance import Conformance, needs, since, unless_synthetic
from .training_bench import (
    ADAM,
    BAD_INPUT,
    EPS,
    GOOD,
    LOSSES,
    PNG,
    SGD,
    Bench,
    datum,
    joined,
    terms_and_slopes,
    values,
    with_inputs,
)


class TrainingClientConformance(Conformance):
    """Tests of a training client. Override the fixture `training_client`, then `model` and
    `lora_rank` to say what is trained, and the others where you can. Sessions are closed, and
    checkpoints deleted where that is supported.

    Models are compared by the log probabilities that they give. Whatever dropout there is must be
    0 in the model that is given.
    """

    port = TrainingClient
    labels: ClassVar[tuple[str, ...]] = (
        "",
        "plain",
        "step 10",
        "a/b/c",
        "../outside",
        "/absolute",
        ".hidden.",
        "naïve-Übung-数据-🙂",
        "percent%20and%2F",
        "[bracket]*{brace}?",
        "quote'and\"and`",
        "back\\slash:colon",
        "two\nlines\t",
        "nul\0",
        "long" * 100,
    )
    """What labels of checkpoints may end with."""

    @pytest.fixture
    def training_client(self) -> Any:
        """The adapter, bound. Required: `bound("training_client", <name or module>, ...)`."""
        raise NotImplementedError(
            "give the fixture `training_client`, which yields the adapter to be tested; "
            "crucible_kitchen.testing.bound makes one"
        )

    @pytest.fixture
    def reopen(self) -> Callable[[], contextlib.AbstractContextManager[TrainingClient]] | None:
        """A function that binds the adapter once more, under equal options, as another process
        would. Optional.
        """
        return None

    @pytest.fixture
    def model(self) -> str:
        """The model to be trained, without dropout; a small one will do. Token ids 0 to 31 are
        used.
        """
        return "any"

    @pytest.fixture
    def lora_rank(self) -> int | str | None:
        """The rank of the low-rank update to be trained. None, the default, trains every weight."""
        return None

    @pytest.fixture
    def unknown_model(self) -> str:
        """The name of a model that does not exist. By default it looks like a path."""
        return "./conformance-no-such-model"

    @pytest.fixture
    def vocab_size(self) -> int | str | None:
        """How many tokens the model's vocabulary has. Optional."""
        return None

    @pytest.fixture
    def max_length(self) -> int | str | None:
        """The longest input that the model reads, in tokens. Optional."""
        return None

    @pytest.fixture
    def learning_rate(self) -> float | str:
        """A rate at which ten steps on three short texts lower their loss, and one step changes
        log probabilities by 0.001 at least. The default suits a tiny model.
        """
        return 1e-2

    @pytest.fixture
    def tolerance(self) -> float | str:
        """The relative error of a log probability. The default is that of float32; a backend that
        computes in bfloat16 needs 1e-2.
        """
        return 1e-5

    @pytest.fixture
    def paused(self) -> Callable[[Any], contextlib.AbstractContextManager[None]] | None:
        """A function of a session that makes a context, inside which none of its operations is
        finished. Optional.
        """
        return None

    @pytest.fixture
    def score(self) -> Callable[[Sequence[Sequence[int]], str], Sequence[FloatArray]] | None:
        """The `score` of a completer that is paired with the client. Optional."""
        return None

    @pytest.fixture
    def break_session(
        self, training_client: TrainingClient, bench: Bench
    ) -> Callable[[Any], list[Any]]:
        """A function that submits operations to a session of which one fails, and returns their
        futures. By default it is a step with a gradient that is infinite: the
        logprob of a sampled token is recorded as -10,000.
        """

        def break_it(session: Any) -> list[Any]:
            exploding = datum([1, 2], logprobs=[-1e4], advantages=[1.0])
            futures: list[Any] = [
                training_client.forward_backward(session, [exploding], "importance_sampling")
            ]
            # Whether an infinite loss fails the pass itself is the backend's choice.
            with contextlib.suppress(SessionFailed):
                futures.append(training_client.optim_step(session, bench.learning_rate))
            return futures

        return break_it

    @pytest.fixture
    def bench(
        self,
        training_client: TrainingClient,
        model: str,
        lora_rank: int | str | None,
        vocab_size: int | str | None,
        learning_rate: float | str,
        tolerance: float | str,
    ) -> Iterator[Bench]:
        """What the tests work with, made of the other fixtures."""
        lora = None if lora_rank is None else LoraConfig(rank=int(lora_rank))
        bench = Bench(
            client=training_client,
            config=SessionConfig(model, lora=lora),
            learning_rate=float(learning_rate),
            tolerance=float(tolerance),
            tokens=32 if vocab_size is None else min(32, int(vocab_size)),
        )
        yield bench
        bench.clean()

    # --- futures ---

    def test_operations_run_in_the_order_of_submission(
        self, training_client: TrainingClient, bench: Bench
    ) -> None:
        """What is submitted without waiting, and awaited from the last to the first, has the
        results of waiting for each before the next is submitted.

        Usually broken by work that is done when somebody waits for it, or by a pool of workers.
        """
        patient, hasty = bench.start(), bench.start()
        expected = bench.losses(patient, [1, 2, 1, 2])
        futures = []
        for seed in (1, 2, 1, 2):
            futures.append(training_client.forward_backward(hasty, bench.batch(seed)))
            last = training_client.optim_step(hasty, bench.learning_rate)
        training_client.await_(last)
        losses = [training_client.await_(future).loss for future in reversed(futures)]
        bench.same(losses[::-1], expected)
        bench.same(bench.logprobs(hasty, bench.probe), bench.logprobs(patient, bench.probe))

    @needs("forward")
    def test_a_forward_sees_the_weights_of_its_place_in_the_queue(
        self, training_client: TrainingClient, bench: Bench
    ) -> None:
        """A `forward` that is submitted before a step sees the weights before it, whenever it is
        awaited; one that is submitted after it those after.

        Usually broken by evaluations that do not stand in the session's queue.
        """
        session, other = bench.start(), bench.start()
        before = bench.logprobs(other, bench.probe)
        bench.step(other, bench.batch(1))
        after = bench.logprobs(other, bench.probe)
        early = training_client.forward(session, bench.probe)
        training_client.forward_backward(session, bench.batch(1))
        training_client.optim_step(session, bench.learning_rate)
        late = training_client.forward(session, bench.probe)
        bench.same(joined(training_client.await_(late)), after)
        bench.same(joined(training_client.await_(early)), before)
        bench.other_step(before, before, after)

    def test_a_result_may_be_asked_for_again_from_any_thread(
        self, training_client: TrainingClient, bench: Bench
    ) -> None:
        """`await_` gives the same result to whoever asks, however often, from any thread.

        Usually broken by a result that is taken from a queue, so that a repeat after a lost
        answer waits for ever.
        """
        session = bench.start()
        passed = training_client.forward_backward(session, bench.batch(1))
        stepped = training_client.optim_step(session, bench.learning_rate)
        with ThreadPoolExecutor(4) as pool:
            results = list(pool.map(training_client.await_, [passed] * 8))
            steps = list(pool.map(training_client.await_, [stepped] * 8))
        results.append(training_client.await_(passed))
        for result in results:
            assert result.loss == results[0].loss
            np.testing.assert_array_equal(joined(result), joined(results[0]))
        assert len({step.grad_norm for step in steps}) == 1

    def test_results_are_those_of_their_futures(
        self, training_client: TrainingClient, bench: Bench
    ) -> None:
        """Of two operations in flight each future has its own result, also when the second is
        awaited first.

        Usually broken by answers that are given out in the order in which somebody asks.
        """
        first, second = bench.batch(1), bench.batch(2, sizes=(4, 6))
        session = bench.start()
        expected = [bench.logprobs(session, datums) for datums in (first, second)]
        futures = [training_client.forward_backward(session, d) for d in (first, second)]
        found = [training_client.await_(future) for future in reversed(futures)][::-1]
        for result, logprobs in zip(found, expected, strict=True):
            bench.same(joined(result), logprobs)
            bench.same_sum(result.loss, -logprobs.astype(np.float64))

    def test_a_timeout_leaves_the_operation_running(
        self, training_client: TrainingClient, bench: Bench
    ) -> None:
        """With a timeout, even of 0, `await_` returns the right result or raises
        `AdapterTimeout`; asked again later it returns the right result, and nothing is lost.

        Usually broken by a client whose timeout cancels what is awaited, or forgets it.
        """
        session, patient = bench.start(), bench.start()
        batches = [bench.batch(seed) for seed in (1, 2)] * 10
        expected = [bench.forward_backward(patient, datums).loss for datums in batches]
        bench.optim_step(patient, adam=SGD)

        futures = [training_client.forward_backward(session, datums) for datums in batches]
        for future, loss in zip(reversed(futures), reversed(expected), strict=True):
            for timeout in (0, 0.0001):
                with contextlib.suppress(AdapterTimeout):
                    bench.same(training_client.await_(future, timeout=timeout).loss, loss)
        bench.same([training_client.await_(future).loss for future in futures], expected)
        bench.optim_step(session, adam=SGD)
        bench.same(bench.logprobs(session, bench.probe), bench.logprobs(patient, bench.probe))

    def test_a_call_returns_before_its_work_is_done(
        self,
        training_client: TrainingClient,
        bench: Bench,
        paused: Callable[[Any], contextlib.AbstractContextManager[None]] | None,
    ) -> None:
        """Operations are submitted at once while the session is busy; waiting for one raises
        `AdapterTimeout` when its time is over, and its result comes later.

        Usually broken by a call that does the work itself: a step then never overlaps with the
        preparation of the next.
        """
        if paused is None:
            pytest.skip("the fixture `paused` is not given")
        session, patient = bench.start(), bench.start()
        [expected] = bench.losses(patient, [1])

        def submit() -> list[Any]:
            return [
                training_client.forward_backward(session, bench.batch(1)),
                training_client.optim_step(session, bench.learning_rate),
            ]

        with ThreadPoolExecutor(1) as pool, paused(session):
            submitted = pool.submit(submit)
            done, _ = concurrent.futures.wait([submitted], timeout=30)
            assert done, "the calls wait for their work"
            passed, stepped = submitted.result()
            for timeout in (0, 0.01):
                with pytest.raises(AdapterTimeout):
                    training_client.await_(passed, timeout=timeout)
                with pytest.raises(AdapterTimeout):
                    training_client.await_(stepped, timeout=timeout)
        training_client.await_(stepped)
        bench.same(training_client.await_(passed).loss, expected)

    def test_threads_may_submit_to_one_session(
        self, training_client: TrainingClient, bench: Bench
    ) -> None:
        """What several threads submit at once is all accumulated.

        Usually broken by a sum, or a count of what is pending, that threads overwrite.
        """
        datums = [bench.batch(seed, sizes=(5,), weight=0.2)[0] for seed in range(32)]
        session, other = bench.start(), bench.start()
        before = bench.logprobs(session, bench.probe)
        bench.forward_backward(other, datums)
        expected = bench.optim_step(other, adam=SGD).grad_norm

        with ThreadPoolExecutor(8) as pool:
            submit = training_client.forward_backward
            futures = list(pool.map(lambda each: submit(session, [each]), datums))
            results = list(pool.map(training_client.await_, futures))
        for each, result in zip(datums, results, strict=True):
            assert len(joined(result)) == each.model_input.length
        bench.same_norm(bench.optim_step(session, adam=SGD).grad_norm, expected)
        found, alone = (bench.logprobs(s, bench.probe) for s in (session, other))
        bench.same_step(before, found, alone)

    # --- results ---

    def test_logprobs_are_one_float32_for_each_target(
        self, training_client: TrainingClient, bench: Bench
    ) -> None:
        """`outputs[i]["logprobs"]` is float32 of shape `(N_i,)`, finite, and not above 0.

        Usually broken by a backend that leaves out the first or the last position, or pads all
        to one length.
        """
        session = bench.start()
        datums = bench.batch(1, sizes=(1, 7, 3, 3))
        runs = [bench.forward_backward]
        if training_client.supports("forward"):
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
        self, training_client: TrainingClient, bench: Bench, vocab_size: int | str | None
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

    def test_the_loss_is_the_sum_over_tokens(
        self, training_client: TrainingClient, bench: Bench
    ) -> None:
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

    def test_a_logprob_does_not_depend_on_what_follows(
        self, training_client: TrainingClient, bench: Bench
    ) -> None:
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

    def test_how_a_batch_is_cut_is_invisible(
        self, training_client: TrainingClient, bench: Bench
    ) -> None:
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

    def test_a_large_batch_is_one_batch(
        self, training_client: TrainingClient, bench: Bench
    ) -> None:
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

    def test_tokens_in_several_chunks_are_one_text(
        self, training_client: TrainingClient, bench: Bench
    ) -> None:
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

    def test_an_image_counts_or_is_refused(
        self, training_client: TrainingClient, bench: Bench
    ) -> None:
        """A datum with an image is refused at submission, or its positions are counted.

        Usually broken by passing over what is no text: the weights then belong to other tokens.
        """
        session = bench.start()
        seen = ModelInput((ImageChunk(PNG, "png", 2), EncodedTextChunk(np.array([3, 4]))))
        inputs = {
            "target_tokens": np.array([0, 0, 4, 5]),
            "weights": np.array([0, 0, 1, 1], np.float32),
        }
        try:
            future = training_client.forward_backward(session, [Datum(seen, inputs)])
        except (InvalidInput, Unsupported):
            _nothing_is_queued(bench, session)
        else:
            result = training_client.await_(future)
            assert joined(result).shape == (4,)
            bench.same_sum(result.loss, -joined(result)[2:].astype(np.float64))

    @pytest.mark.parametrize("scale", [3.0, 0.25])
    def test_weights_scale_the_loss_and_the_gradient(
        self, training_client: TrainingClient, bench: Bench, scale: float
    ) -> None:
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

    def test_a_negative_weight_takes_away(
        self, training_client: TrainingClient, bench: Bench
    ) -> None:
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

    def test_a_token_of_weight_zero_does_not_count(
        self, training_client: TrainingClient, bench: Bench
    ) -> None:
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

    # --- losses ---

    @pytest.mark.parametrize("loss", LOSSES)
    def test_the_loss_is_that_of_its_formula(
        self, training_client: TrainingClient, bench: Bench, loss: str
    ) -> None:
        """The four losses are those of `crucible_kitchen.losses`, with their thresholds, for
        ratios on both sides of each threshold and advantages of both signs.

        Usually broken by the backend's own defaults for the thresholds, by a threshold that is
        taken for a distance from 1, or by clipping without the minimum.
        """
        loss_fn, config = LOSSES[loss]
        session = bench.start()
        datums = bench.for_loss(session, loss_fn)
        submits = [training_client.forward_backward]
        if training_client.supports("forward"):
            submits.append(training_client.forward)
        for submit in submits:
            result = training_client.await_(submit(session, datums, loss_fn, config))
            terms, _ = terms_and_slopes(loss_fn, config, joined(result), datums)
            bench.same_sum(result.loss, terms)

    @pytest.mark.parametrize("loss", LOSSES)
    def test_the_gradient_is_that_of_the_loss(
        self, training_client: TrainingClient, bench: Bench, loss: str
    ) -> None:
        """The gradient of a loss C is that of `cross_entropy` with the weights -dC/dp, by the
        chain rule.

        Usually broken by a missing stop-gradient, or by a gradient through tokens whose ratio was
        clipped.
        """
        loss_fn, config = LOSSES[loss]
        session, other = bench.start(), bench.start()
        before = bench.logprobs(session, bench.batch(3))
        datums = bench.for_loss(session, loss_fn)
        future = training_client.forward_backward(session, datums, loss_fn, config)
        _, slopes = terms_and_slopes(
            loss_fn, config, joined(training_client.await_(future)), datums
        )
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
    def test_a_step_goes_down_the_gradient_as_far_as_it_is_steep(
        self, training_client: TrainingClient, bench: Bench
    ) -> None:
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

    # --- gradients and steps ---

    def test_gradients_accumulate(self, training_client: TrainingClient, bench: Bench) -> None:
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

    def test_a_step_clears_the_gradient(
        self, training_client: TrainingClient, bench: Bench
    ) -> None:
        """After a step nothing is accumulated: the next one sees only what came after.

        Usually broken by a missing `zero_grad`, which makes every gradient the sum of all.
        """
        used, fresh = bench.start(), bench.start()
        before = bench.logprobs(used, bench.probe)
        bench.step(used, bench.batch(2), rate=0.0, adam=SGD)
        with pytest.raises(InvalidInput):
            training_client.optim_step(used, bench.learning_rate)
        norms = []
        for session in (used, fresh):
            bench.forward_backward(session, bench.batch(1))
            norms.append(bench.optim_step(session, adam=SGD).grad_norm)
        bench.same_norm(*norms)
        bench.same_step(
            before, bench.logprobs(used, bench.probe), bench.logprobs(fresh, bench.probe)
        )

    def test_a_step_without_a_gradient_is_refused(
        self, training_client: TrainingClient, bench: Bench
    ) -> None:
        """`optim_step` with nothing accumulated is `InvalidInput`, and the session goes on.

        Usually broken by a step on a gradient of zero: momentum moves the weights.
        """
        session = bench.start()
        with pytest.raises(InvalidInput):
            training_client.optim_step(session, bench.learning_rate)
        bench.step(session, bench.batch(1))
        with pytest.raises(InvalidInput):
            training_client.optim_step(session, bench.learning_rate)
        assert math.isfinite(bench.step(session, bench.batch(1)).loss)

    def test_a_gradient_of_zero_is_a_gradient(
        self, training_client: TrainingClient, bench: Bench
    ) -> None:
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

    def test_the_gradient_norm_is_that_before_clipping(
        self, training_client: TrainingClient, bench: Bench
    ) -> None:
        """`grad_norm` is the norm of what was accumulated, whatever `grad_clip_norm` is.

        Usually broken by measuring after clipping: the number then never tells that a run
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
    def test_clipping_bounds_the_whole_gradient(
        self, training_client: TrainingClient, bench: Bench
    ) -> None:
        """A gradient longer than `grad_clip_norm` is scaled to that length as a whole, a shorter
        one is left alone, and 0 turns clipping off.

        Usually broken by clipping each tensor, or each number, on its own, or by dropping the
        setting without a word (SkyRL 0.3).
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
    def test_what_is_clipped_is_the_accumulated_gradient(
        self, training_client: TrainingClient, bench: Bench
    ) -> None:
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

    def test_a_learning_rate_of_zero_leaves_the_weights(
        self, training_client: TrainingClient, bench: Bench
    ) -> None:
        """A step at rate 0 changes no weight, also with weight decay.

        Usually broken by a decay that is not multiplied by the rate.
        """
        session = bench.start()
        before = bench.logprobs(session, bench.probe)
        bench.step(session, bench.batch(1), rate=0.0)
        bench.same(bench.logprobs(session, bench.probe), before)
        bench.step(session, bench.batch(1), rate=0.0, adam=AdamParams(weight_decay=0.5))
        bench.same(bench.logprobs(session, bench.probe), before)

    @unless_synthetic
    def test_a_learning_rate_of_zero_moves_the_moments(
        self, training_client: TrainingClient, bench: Bench
    ) -> None:
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
        self,
        training_client: TrainingClient,
        bench: Bench,
        betas: tuple[float, float],
        scale: float,
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
    def test_every_setting_of_adam_counts(
        self, training_client: TrainingClient, bench: Bench, change: dict[str, float]
    ) -> None:
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
    def test_weight_decay_is_decoupled(self, training_client: TrainingClient, bench: Bench) -> None:
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
            training_client.load_checkpoint(session, reference, with_optimizer=False)
            for rate, decay in settings:
                bench.step(session, nothing, rate, AdamParams(weight_decay=decay))
            outcomes.append(bench.logprobs(session, bench.probe))
        bench.same_step(before, *outcomes)

    def test_training_lowers_the_loss(self, training_client: TrainingClient, bench: Bench) -> None:
        """Ten steps on one batch lower its loss.

        Usually broken by a step that goes up, or by weights that are trained and not used.
        """
        losses = bench.losses(bench.start(), [1] * 11)
        assert losses[-1] < losses[0]

    @pytest.mark.parametrize("rate", [math.nan, math.inf, -1e-3])
    def test_a_learning_rate_that_is_none_is_refused(
        self, training_client: TrainingClient, bench: Bench, rate: float
    ) -> None:
        """A learning rate that is negative or not finite is `InvalidInput` at submission; the
        gradient stays.

        Usually broken by a schedule's mistake that nobody looks for: all weights are NaN.
        """
        session = bench.start()
        bench.forward_backward(session, bench.batch(1))
        with pytest.raises(InvalidInput):
            training_client.optim_step(session, rate)
        bench.optim_step(session)
        assert np.isfinite(bench.logprobs(session, bench.probe)).all()

    # --- bad input ---

    @pytest.mark.parametrize("problem", BAD_INPUT)
    def test_bad_input_is_refused_at_submission(
        self, training_client: TrainingClient, bench: Bench, problem: str
    ) -> None:
        """Bad input is `InvalidInput`, or `Unsupported`, from `forward_backward` itself. Nothing
        was queued, and the session can be used.

        Usually broken by leaving it to the backend, which finds out later, or never: it pads,
        cuts, converts, or trains on NaN.
        """
        datums, loss_fn, config = BAD_INPUT[problem]
        session = bench.start()
        with pytest.raises((InvalidInput, Unsupported)):
            training_client.forward_backward(session, datums, loss_fn, config)
        _nothing_is_queued(bench, session)

    @needs("forward")
    def test_bad_input_is_refused_by_forward(
        self, training_client: TrainingClient, bench: Bench
    ) -> None:
        """`forward` refuses the same, but for weights that are missing.

        Usually broken by checks that stand in the other callback.
        """
        session = bench.start()
        for problem, (datums, loss_fn, config) in BAD_INPUT.items():
            if problem != "no weights":
                _refused(
                    functools.partial(training_client.forward, session, datums, loss_fn, config),
                    (InvalidInput, Unsupported),
                    problem,
                )
        _nothing_is_queued(bench, session)

    def test_an_input_beyond_max_length_is_refused(
        self, training_client: TrainingClient, bench: Bench
    ) -> None:
        """A session of `max_length` 6 reads 6 tokens and refuses 7, or is refused itself.

        Usually broken by truncation: the end of each text, which is the answer, is never trained
        on.
        """
        try:
            session = bench.start(max_length=6)
        except Unsupported:
            return  # not ignored, which is what matters
        assert joined(bench.forward_backward(session, bench.batch(1, sizes=(6,)))).shape == (6,)
        bench.optim_step(session)
        for submit in ("forward_backward", "forward"):
            if training_client.supports(submit):
                with pytest.raises(InvalidInput):
                    getattr(training_client, submit)(session, bench.batch(1, sizes=(2, 7)))
        _nothing_is_queued(bench, session)

    def test_an_input_beyond_the_model_s_context_is_refused(
        self, training_client: TrainingClient, bench: Bench, max_length: int | str | None
    ) -> None:
        """An input of the longest length is read, one token more is `InvalidInput`, also where
        the session's `max_length` would allow it.

        Usually broken by truncation, or by an error of the backend while others wait behind it.
        """
        if max_length is None:
            pytest.skip("the fixture `max_length` is not given")
        longest = int(max_length)
        sessions = [bench.start()]
        with contextlib.suppress(Unsupported, InvalidInput):
            sessions.append(bench.start(max_length=2 * longest))
        for session in sessions:
            result = bench.evaluate(session, bench.batch(1, sizes=(longest,)))
            assert joined(result).shape == (longest,)
            with pytest.raises(InvalidInput):
                training_client.forward_backward(session, bench.batch(1, sizes=(longest + 1,)))

    def test_the_vocabulary_ends_where_it_ends(
        self, training_client: TrainingClient, bench: Bench, vocab_size: int | str | None
    ) -> None:
        """The last token of the vocabulary is read and predicted, the next one is refused.

        Usually broken by the size of an embedding that was padded, or by one too few.
        """
        if vocab_size is None:
            pytest.skip("the fixture `vocab_size` is not given")
        size = int(vocab_size)
        session = bench.start()
        result = bench.forward_backward(session, [datum([1, size - 1, size - 1], weights=[1, 1])])
        assert np.isfinite(joined(result)).all()
        bench.optim_step(session)
        for sequence in ([1, size, 2], [1, 2, size]):
            with pytest.raises(InvalidInput):
                training_client.forward_backward(session, [datum(sequence, weights=[1, 1])])
        _nothing_is_queued(bench, session)

    # --- forward ---

    @needs("forward")
    def test_forward_and_forward_backward_agree(
        self, training_client: TrainingClient, bench: Bench
    ) -> None:
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
    def test_forward_leaves_no_trace(self, training_client: TrainingClient, bench: Bench) -> None:
        """`forward` accumulates no gradient, and changes neither the weights nor what is
        accumulated.

        Usually broken by a backend that has one call for both.
        """
        watched, plain = bench.start(), bench.start()
        before = bench.logprobs(watched, bench.probe)
        bench.forward(watched, bench.batch(2))
        with pytest.raises(InvalidInput):
            training_client.optim_step(watched, bench.learning_rate)
        bench.same(bench.logprobs(watched, bench.probe), before)
        for session in (watched, plain):
            bench.forward_backward(session, bench.batch(1))
            if session is watched:
                bench.forward(watched, bench.batch(2))
            bench.optim_step(session, adam=SGD)
        found, expected = (bench.logprobs(session, bench.probe) for session in (watched, plain))
        bench.same_step(before, found, expected)

    @needs("forward")
    def test_missing_weights_are_ones_in_forward(
        self, training_client: TrainingClient, bench: Bench
    ) -> None:
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
    def test_dropout_is_on_in_training_alone(
        self, training_client: TrainingClient, bench: Bench
    ) -> None:
        """`forward` has no dropout: it repeats itself. `forward_backward` has it, another each
        time.

        Usually broken by a model that stays in the mode of its last pass.
        """
        session = _with_dropout(bench)
        bench.losses(session, [1, 2])  # an update that begins at zero has nothing to drop
        first, again = (bench.forward(session, bench.probe) for _ in range(2))
        bench.same(joined(again), joined(first))
        one, other = (joined(bench.forward_backward(session, bench.probe)) for _ in range(2))
        assert np.abs(one - other).max() > 10 * bench.tolerance
        bench.same(joined(bench.forward(session, bench.probe)), joined(first))

    # --- checkpoints ---

    def test_training_continues_from_a_checkpoint(
        self, training_client: TrainingClient, bench: Bench
    ) -> None:
        """From a checkpoint training goes on as if it had never been interrupted: in the same
        session, twice, and in another one.

        Usually broken by a checkpoint without the optimizer's state, or of lower precision.
        """
        session = bench.start()
        bench.losses(session, [1, 2, 1])
        reference = bench.save(session)
        before = bench.logprobs(session, bench.probe)
        rest = bench.losses(session, [2, 1, 2])
        for _ in range(2):
            training_client.load_checkpoint(session, reference)
            bench.same(bench.logprobs(session, bench.probe), before)
            bench.same(bench.losses(session, [2, 1, 2]), rest)
        loaded = bench.start()
        training_client.load_checkpoint(loaded, reference)
        started = bench.start(from_checkpoint=reference, with_optimizer=True)
        for other in (loaded, started):
            bench.same(bench.logprobs(other, bench.probe), before)
            bench.same(bench.losses(other, [2, 1, 2]), rest)

    def test_training_with_dropout_continues_from_a_checkpoint(
        self, training_client: TrainingClient, bench: Bench
    ) -> None:
        """A checkpoint holds the state of randomness: what is dropped after it is the same each
        time, and an evaluation in between has no influence.

        Usually broken by a generator that is not saved, or that others draw from.
        """
        session = _with_dropout(bench)
        bench.losses(session, [1, 2])
        reference = bench.save(session)
        rest = bench.losses(session, [1, 1, 2])
        training_client.load_checkpoint(session, reference)
        other = bench.start(lora=_DROPOUT, from_checkpoint=reference, with_optimizer=True)
        for each in (session, other):
            bench.logprobs(each, bench.probe)
            bench.same(bench.losses(each, [1, 1, 2]), rest)

    @unless_synthetic
    def test_another_process_continues(
        self,
        training_client: TrainingClient,
        bench: Bench,
        reopen: Callable[[], contextlib.AbstractContextManager[TrainingClient]] | None,
    ) -> None:
        """Whoever opens the client under the same options may go on from a reference, also after
        the session that saved it was closed.

        Usually broken by a reference to memory, to an open session, or to a temporary folder.
        """
        if reopen is None:
            pytest.skip("the fixture `reopen` is not given")
        session = bench.start()
        bench.losses(session, [1, 2])
        reference = bench.save(session)
        rest = bench.losses(session, [1, 2])
        training_client.close_session(session)
        with reopen() as client:
            other = replace(bench, client=client, sessions=[], references=[])
            started = other.start(from_checkpoint=reference, with_optimizer=True)
            loaded = other.start()
            client.load_checkpoint(loaded, reference)
            for each in (started, loaded):
                bench.same(other.losses(each, [1, 2]), rest)
            other.clean()

    def test_a_checkpoint_outlives_its_session(
        self, training_client: TrainingClient, bench: Bench
    ) -> None:
        """A reference is good after its session was closed.

        Usually broken by freeing what belongs to a session together with it.
        """
        session = bench.start()
        bench.losses(session, [1])
        before = bench.logprobs(session, bench.probe)
        reference = bench.save(session)
        training_client.close_session(session)
        bench.same(bench.logprobs(bench.start(from_checkpoint=reference), bench.probe), before)

    def test_without_the_optimizer_its_state_starts_afresh(
        self, training_client: TrainingClient, bench: Bench
    ) -> None:
        """With `with_optimizer=False`, which is the default of a new session and not of
        `load_checkpoint`, the weights are those of the checkpoint, and Adam begins anew.

        Usually broken by a backend that restores both anyway (SkyRL 0.3), or clears the moments
        and not the count of steps.
        """
        session = bench.start()
        before = bench.logprobs(session, bench.probe)
        early = bench.save(session)
        for seed in (1, 2, 1):
            bench.step(session, bench.batch(seed), rate=0.0)  # of one weights, other moments
        late = bench.save(session)
        training_client.load_checkpoint(session, early)
        bench.step(session, bench.batch(2))
        expected = bench.logprobs(session, bench.probe)
        training_client.load_checkpoint(session, late, with_optimizer=False)
        for each in (session, bench.start(from_checkpoint=late)):
            bench.same(bench.logprobs(each, bench.probe), before)
            bench.step(each, bench.batch(2))
            bench.same_step(before, bench.logprobs(each, bench.probe), expected)

    @unless_synthetic
    def test_with_the_optimizer_its_state_is_kept(
        self, training_client: TrainingClient, bench: Bench
    ) -> None:
        """With the optimizer, two checkpoints of the same weights and other moments lead to
        other places.

        Usually broken by checkpoints of the weights alone: after each resume a run learns as if
        it had just begun.
        """
        session = bench.start()
        before = bench.logprobs(session, bench.probe)
        early = bench.save(session)
        for seed in (1, 2, 1):
            bench.step(session, bench.batch(seed), rate=0.0)
        late = bench.save(session)
        outcomes = []
        for reference in (early, late):
            training_client.load_checkpoint(session, reference)
            bench.step(session, bench.batch(2))
            outcomes.append(bench.logprobs(session, bench.probe))
        bench.other_step(before, *outcomes)
        started = bench.start(from_checkpoint=late, with_optimizer=True)
        bench.step(started, bench.batch(2))
        bench.same_step(before, bench.logprobs(started, bench.probe), outcomes[1])

    def test_saving_with_gradients_pending_is_refused(
        self, training_client: TrainingClient, bench: Bench
    ) -> None:
        """`save_checkpoint` with gradients accumulated is `InvalidInput`: they would be lost.
        They stay, and the session goes on.

        Usually broken by saving what there is; resumed, the run misses a batch.
        """
        session, other = bench.start(), bench.start()
        before = bench.logprobs(session, bench.probe)
        bench.forward_backward(session, bench.batch(1))
        with pytest.raises(InvalidInput):
            bench.save(session)
        if training_client.supports("list_checkpoints"):
            assert list(training_client.list_checkpoints(bench.label)) == []
        bench.optim_step(session, adam=SGD)
        bench.step(other, bench.batch(1), adam=SGD)
        found, expected = (bench.logprobs(each, bench.probe) for each in (session, other))
        bench.same_step(before, found, expected)
        bench.save(session)

    def test_loading_drops_pending_gradients(
        self, training_client: TrainingClient, bench: Bench
    ) -> None:
        """After `load_checkpoint` nothing is accumulated.

        Usually broken by a gradient of other weights that stays in its buffer.
        """
        session, fresh = bench.start(), bench.start()
        before = bench.logprobs(session, bench.probe)
        reference = bench.save(session)
        training_client.forward_backward(session, bench.batch(2))
        training_client.load_checkpoint(session, reference)
        with pytest.raises(InvalidInput):
            training_client.optim_step(session, bench.learning_rate)
        for each in (session, fresh):
            bench.step(each, bench.batch(1), adam=SGD)
        found, expected = (bench.logprobs(each, bench.probe) for each in (session, fresh))
        bench.same_step(before, found, expected)

    def test_saving_waits_for_what_is_queued(
        self, training_client: TrainingClient, bench: Bench
    ) -> None:
        """A checkpoint holds every step that was submitted before it, and loading one comes
        after them.

        Usually broken by saving around the queue.
        """
        session, patient = bench.start(), bench.start()
        before = bench.logprobs(session, bench.probe)
        first = bench.save(session)
        for seed in (1, 2):
            training_client.forward_backward(session, bench.batch(seed))
            training_client.optim_step(session, bench.learning_rate)
        second = bench.save(session)
        training_client.forward_backward(session, bench.batch(1))
        training_client.optim_step(session, bench.learning_rate)
        training_client.load_checkpoint(session, first)
        bench.same(bench.logprobs(session, bench.probe), before)
        training_client.load_checkpoint(session, second)
        bench.losses(patient, [1, 2])
        bench.same(bench.logprobs(session, bench.probe), bench.logprobs(patient, bench.probe))

    def test_saving_never_replaces(self, training_client: TrainingClient, bench: Bench) -> None:
        """Each save returns a reference of its own, under the same label too, and the old ones
        stay what they were while training goes on.

        Usually broken by a label that is the name of a folder.
        """
        session = bench.start()
        saved = {}
        for seed in (1, 2, 1):
            saved[bench.save(session, "same")] = bench.logprobs(session, bench.probe)
            saved[bench.save(session, "same")] = bench.logprobs(session, bench.probe)
            bench.losses(session, [seed])
        assert len(saved) == 6
        for reference, logprobs in reversed(saved.items()):
            training_client.load_checkpoint(session, reference)
            bench.same(bench.logprobs(session, bench.probe), logprobs)

    def test_any_label_works(self, training_client: TrainingClient, bench: Bench) -> None:
        """A label may have any characters and any length.

        Usually broken by a label that becomes a path or a part of a URL: a name that the backend
        refuses (SkyRL takes `[a-zA-Z0-9_-]`), or a file somewhere else.
        """
        session = bench.start()
        references = [bench.save(session, label) for label in self.labels]
        assert len(set(references)) == len(references)
        before = bench.logprobs(session, bench.probe)
        for reference in references:
            training_client.load_checkpoint(session, reference)
        bench.same(bench.logprobs(session, bench.probe), before)

    def test_an_unknown_checkpoint_is_not_found(
        self, training_client: TrainingClient, bench: Bench
    ) -> None:
        """Loading a reference that was never returned, a label among them, is `NotFound` and
        changes nothing, pending gradients included; starting from one, too.

        Usually broken by joining a reference to a path, or by clearing before looking.
        """
        session, other = bench.start(), bench.start()
        before = bench.logprobs(session, bench.probe)
        saved = bench.save(session)
        bench.forward_backward(session, bench.batch(1))
        unknown = ("", ".", "..", "/", f"{bench.label}x", f"{saved}x", f"../{saved}", "é\0")
        for reference in unknown:
            with pytest.raises(NotFound):
                training_client.load_checkpoint(session, reference)
            with pytest.raises(NotFound):
                bench.start(from_checkpoint=reference)
        bench.optim_step(session, adam=SGD)
        bench.step(other, bench.batch(1), adam=SGD)
        found, expected = (bench.logprobs(each, bench.probe) for each in (session, other))
        bench.same_step(before, found, expected)

    @needs("list_checkpoints")
    def test_checkpoints_are_listed_by_label_oldest_first(
        self, training_client: TrainingClient, bench: Bench
    ) -> None:
        """`list_checkpoints` returns the references whose label begins with the prefix, oldest
        first.

        Usually broken by sorting by name (step-10 before step-9), by a prefix that is taken for
        a pattern, or by listing the labels.
        """
        session = bench.start()
        labels = ["step-9", "step-10", "other", "step-9", "[ab]*", "b"]
        saved = [(label, bench.save(session, label)) for label in labels]
        assert list(training_client.list_checkpoints(bench.label)) == [ref for _, ref in saved]
        for prefix in ("step-", "step-1", "step-9", "[ab]", "*", "B", "none"):
            expected = [reference for label, reference in saved if label.startswith(prefix)]
            found = training_client.list_checkpoints(f"{bench.label}{prefix}")
            assert list(found) == expected, prefix
        assert {reference for _, reference in saved} <= set(training_client.list_checkpoints())
        assert list(training_client.list_checkpoints(bench.label[1:])) == []

    @needs("delete_checkpoint")
    def test_a_deleted_checkpoint_is_gone(
        self, training_client: TrainingClient, bench: Bench
    ) -> None:
        """After `delete_checkpoint` a reference is `NotFound` and stays so when its label is
        saved again; others stay; deleting again, or what never was, is fine.

        Usually broken by deleting by label, or by a repeat that is an error.
        """
        session = bench.start()
        doomed, kept = bench.save(session), bench.save(session)
        for reference in (doomed, doomed, "", "..", f"{doomed}x"):
            training_client.delete_checkpoint(reference)
        later = bench.save(session)
        with pytest.raises(NotFound):
            training_client.load_checkpoint(session, doomed)
        if training_client.supports("list_checkpoints"):
            assert list(training_client.list_checkpoints(bench.label)) == [kept, later]
        for reference in (kept, later):
            training_client.load_checkpoint(session, reference)

    # --- what killed processes leave, and what is known before training ---

    @since("1.2")
    @needs("clean")
    @pytest.mark.parametrize("run", ["run", "long" * 100, "ü/[*]?", "%2F"])
    def test_cleaning_removes_what_its_prefix_names_and_is_not_kept(
        self, training_client: TrainingClient, bench: Bench, run: str
    ) -> None:
        """`clean(prefix, keep)` removes the checkpoints, and the weights that were saved with a
        name, that begin with the prefix and are not in `keep`, and names them by their references;
        again it finds nothing. A dry run names the same, and removes nothing.

        Usually broken by comparing names of files, which are cut and encoded, so that another
        run's checkpoints go, too.
        """
        session = bench.start()
        names = [f"{run}/1/a", f"{run}/1/b", f"{run}/1/b", f"{run}/10/a", f"{run}/2/a", f"{run}/1"]
        saved = [bench.save(session, name) for name in names]
        if training_client.supports("save_weights_for_sampler"):
            export = training_client.save_weights_for_sampler
            saved += [export(session, f"{bench.label}{name}") for name in names]
        keep, doomed, others = saved[::6], sorted(saved[1::6] + saved[2::6]), saved[3:6]
        prefix = f"{bench.label}{run}/1/"
        assert sorted(training_client.clean(prefix, keep, dry_run=True)) == doomed
        for reference in saved[:6]:
            training_client.load_checkpoint(session, reference)
        assert sorted(training_client.clean(prefix, keep)) == doomed
        for reference in saved[1:3]:
            with pytest.raises(NotFound):
                training_client.load_checkpoint(session, reference)
        for reference in (saved[0], *others):
            training_client.load_checkpoint(session, reference)
        assert training_client.clean(prefix, keep) == []
        assert sorted(training_client.clean(bench.label)) == sorted({*saved} - {*doomed})

    @since("1.2")
    @needs("clean")
    def test_cleaning_without_a_prefix_leaves_what_is_complete(
        self, training_client: TrainingClient, bench: Bench
    ) -> None:
        """`clean()` removes no checkpoint and no saved weights, whatever their labels.

        Usually broken by an empty prefix, with which everything begins.
        """
        session = bench.start()
        saved = [bench.save(session), training_client.save_checkpoint(session, "")]
        bench.references.append(saved[1])
        training_client.clean()
        for reference in saved:
            training_client.load_checkpoint(session, reference)

    @since("1.2")
    @needs("get_info")
    def test_what_results_depend_on_is_plain_and_does_not_change(
        self,
        training_client: TrainingClient,
        bench: Bench,
        reopen: Callable[[], contextlib.AbstractContextManager[TrainingClient]] | None,
    ) -> None:
        """`get_info` returns texts, numbers, truth values and None by name, the same for each
        session of the same options, trained or not, in another process, too.

        Usually broken by a number of NumPy's, the name of a session, or a step count: a run is
        refused to go on where one of them differs.
        """
        session = bench.start()
        info = training_client.get_info(session)
        assert info, "it tells nothing: leave it out"
        assert all(isinstance(name, str) for name in info)
        assert all(v is None or type(v) in (str, int, float, bool) for v in info.values())
        json.dumps(dict(info), allow_nan=False)
        bench.step(session, bench.batch(1))
        assert dict(training_client.get_info(session)) == dict(info)
        assert dict(training_client.get_info(bench.start())) == dict(info)
        if reopen is not None:
            with reopen() as client:
                other = client.start_session(bench.config)
                assert dict(client.get_info(other)) == dict(info)
                client.close_session(other)

    @since("1.2")
    @needs("check_storage")
    def test_trying_the_storage_leaves_nothing(
        self, training_client: TrainingClient, bench: Bench
    ) -> None:
        """`check_storage` returns where a checkpoint can be saved, and changes nothing: there is
        no checkpoint more, and gradients that are pending are pending still.

        Usually broken by saving a checkpoint to see whether it works.
        """
        session, other = bench.start(), bench.start()
        bench.save(session)
        listed = training_client.supports("list_checkpoints")
        before = training_client.list_checkpoints() if listed else ()
        training_client.check_storage(session, 2)
        training_client.forward_backward(session, bench.batch(1))
        for checkpoints in (0, 1, 3):
            training_client.check_storage(session, checkpoints)
        bench.optim_step(session)
        bench.step(other, bench.batch(1))
        bench.same(bench.logprobs(session, bench.probe), bench.logprobs(other, bench.probe))
        if listed and training_client.supports("forward"):  # else `logprobs` saves some
            assert list(training_client.list_checkpoints()) == list(before)

    @since("1.2")
    @pytest.mark.parametrize("callback", ["get_info", "check_storage"])
    def test_a_closed_session_tells_nothing(
        self, training_client: TrainingClient, bench: Bench, callback: str
    ) -> None:
        """`get_info` and `check_storage` of a closed session are `SessionClosed`.

        Usually broken by an error of what was freed.
        """
        if not training_client.supports(callback):
            pytest.skip(f"does not implement {callback}, which is optional")
        session = bench.start()
        training_client.close_session(session)
        with pytest.raises(SessionClosed):
            getattr(training_client, callback)(session)

    # --- sessions ---

    def test_a_seed_makes_one_session(self, training_client: TrainingClient, bench: Bench) -> None:
        """Two sessions of one seed begin with the same weights and train alike.

        Usually broken by weights, or an update, drawn from a generator of the process.
        """
        for seed in (5, 6):
            first, second = (bench.start(seed=seed) for _ in range(2))
            bench.same(bench.logprobs(second, bench.probe), bench.logprobs(first, bench.probe))
            bench.same(bench.losses(second, [1, 2]), bench.losses(first, [1, 2]))

    def test_two_sessions_do_not_disturb_each_other(
        self, training_client: TrainingClient, bench: Bench
    ) -> None:
        """Sessions that train at once, on threads of their own, train as each would alone.

        Usually broken by a model, a gradient or an optimizer that belongs to the process.
        """
        seeds = ([1, 2, 1, 2, 1], [2, 2, 1, 1, 2])
        alone = [bench.losses(bench.start(), each) for each in seeds]
        sessions = [bench.start() for _ in seeds]
        with ThreadPoolExecutor(2) as pool:
            together = list(pool.map(bench.losses, sessions, seeds))
        bench.same(together, alone)
        training_client.close_session(sessions[0])
        assert math.isfinite(bench.step(sessions[1], bench.batch(1)).loss)

    def test_a_closed_session_is_refused_by_every_callback(
        self, training_client: TrainingClient, bench: Bench
    ) -> None:
        """After `close_session`, which may be repeated, any use is `SessionClosed`.

        Usually broken by a check in some callbacks only, or by an error of what was freed.
        """
        session = bench.start()
        reference = bench.save(session)
        training_client.close_session(session)
        training_client.close_session(session)
        for name, use in bench.uses(session, reference).items():
            _refused(use, SessionClosed, f"{name} of a closed session")
        training_client.close_session(session)

    def test_closing_ends_what_is_queued(
        self, training_client: TrainingClient, bench: Bench
    ) -> None:
        """Whoever awaits an operation of a session that is closed gets its result or
        `SessionClosed`, and does not wait for ever.

        Usually broken by futures that nobody completes any more.
        """
        session = bench.start()
        futures: list[Any] = []
        for _ in range(10):
            futures.append(training_client.forward_backward(session, bench.batch(1)))
            futures.append(training_client.optim_step(session, bench.learning_rate))
        training_client.close_session(session)
        for future in futures:
            with contextlib.suppress(SessionClosed):
                training_client.await_(future, timeout=60)

    @unless_synthetic
    def test_an_unknown_model_is_not_found(
        self, training_client: TrainingClient, bench: Bench, unknown_model: str
    ) -> None:
        """`start_session` itself raises `NotFound` for a model that does not exist.

        Usually broken by a session that is made now and loaded later: the error comes when the
        data is ready, or from another call.
        """
        with pytest.raises(NotFound):
            bench.start(model=unknown_model)

    @unless_synthetic
    def test_what_a_session_cannot_honour_is_refused(
        self, training_client: TrainingClient, bench: Bench
    ) -> None:
        """A revision that does not exist, and a target of a low-rank update that does not, are
        errors of `start_session`.

        Usually broken by fields of the config that are never read.
        """
        with pytest.raises((NotFound, InvalidInput, Unsupported)):
            bench.start(revision="conformance-no-such-revision")
        with pytest.raises((InvalidInput, Unsupported)):
            bench.start(lora=LoraConfig(rank=2, targets=("conformance-no-such-target",)))

    def test_a_low_rank_update_begins_at_the_model(
        self, training_client: TrainingClient, bench: Bench
    ) -> None:
        """A session that trains a low-rank update begins with the weights of one that trains all
        of them; either may be refused.

        Usually broken by an update that does not begin at zero, or a config that is not read.
        """
        sessions = []
        for lora in (None, LoraConfig(rank=1), LoraConfig(rank=4, alpha=8.0)):
            with contextlib.suppress(Unsupported):
                sessions.append(bench.start(lora=lora))
        assert sessions
        for session in sessions:
            bench.same(
                bench.logprobs(session, bench.probe), bench.logprobs(sessions[0], bench.probe)
            )

    def test_a_session_that_is_not_trainable_only_evaluates(
        self, training_client: TrainingClient, bench: Bench
    ) -> None:
        """With `trainable=False` a session refuses to train and evaluates as any other, or it is
        refused itself.

        Usually broken by ignoring the field: a reference model that moves.
        """
        try:
            session = bench.start(trainable=False)
        except Unsupported:
            return  # not ignored, which is what matters
        with pytest.raises(InvalidInput):
            training_client.forward_backward(session, bench.batch(1))
        with pytest.raises(InvalidInput):
            training_client.optim_step(session, bench.learning_rate)
        if training_client.supports("forward"):
            other = bench.start()
            bench.same(bench.logprobs(session, bench.probe), bench.logprobs(other, bench.probe))

    def test_the_tokenizer_speaks_the_model_s_tokens(
        self, training_client: TrainingClient, bench: Bench
    ) -> None:
        """The helper `get_tokenizer`, where there is one, gives token ids that the session
        reads and that become the text again.

        Usually broken by the tokenizer of another model.
        """
        session = bench.start()
        try:
            tokenizer = training_client.helper("get_tokenizer")(session)
        except Unsupported:
            pytest.skip("has no helper `get_tokenizer`, which is optional")
        text = "2 + 3 = 5, said the cook."
        ids = tokenizer.encode(text, add_special_tokens=False)
        assert all(isinstance(token, int) and 0 <= token < tokenizer.vocab_size for token in ids)
        assert tokenizer.decode(ids) == text
        assert tokenizer.eos_token_id is None or isinstance(tokenizer.eos_token_id, int)
        result = bench.forward_backward(session, [datum(ids, weights=np.ones(len(ids) - 1))])
        assert joined(result).shape == (len(ids) - 1,)

    # --- failure ---

    def test_a_failed_operation_fails_its_session(
        self,
        training_client: TrainingClient,
        bench: Bench,
        break_session: Callable[[Any], list[Any]],
    ) -> None:
        """An operation that failed raises its own error, as often as it is awaited. Then
        everything but `load_checkpoint` and `close_session` is `SessionFailed`.

        Usually broken by going on: weights that missed a gradient look like any others.
        """
        session = bench.start()
        reference = bench.save(session)
        done = training_client.forward_backward(session, bench.batch(1))
        expected = training_client.await_(done)
        bench.optim_step(session)
        failed, error = _first_failure(training_client, break_session(session))
        assert not isinstance(error, SessionFailed | InvalidInput | Unsupported)
        with pytest.raises(type(error)):
            training_client.await_(failed)
        for name, use in bench.uses(session, reference).items():
            if name != "load_checkpoint":
                _refused(use, SessionFailed, f"{name} of a failed session")
        assert training_client.await_(done).loss == expected.loss

    def test_what_is_queued_behind_a_failure_fails(
        self,
        training_client: TrainingClient,
        bench: Bench,
        break_session: Callable[[Any], list[Any]],
    ) -> None:
        """What was submitted before anybody knew of a failure is `SessionFailed`, and does not
        run.

        Usually broken by a queue whose entries do not know of each other (SkyRL 0.3: the step
        behind a pass that was refused runs on a gradient of zero, and momentum moves the
        weights).
        """
        session = bench.start()
        bench.losses(session, [1])
        break_session(session)
        behind: list[Any] = []
        for submit in (
            lambda: training_client.forward_backward(session, bench.batch(1)),
            lambda: training_client.optim_step(session, bench.learning_rate),
            lambda: training_client.forward_backward(session, bench.batch(2)),
        ):
            with contextlib.suppress(SessionFailed):
                behind.append(submit())
        for future in behind:
            with pytest.raises(SessionFailed):
                training_client.await_(future)
        with pytest.raises(SessionFailed):
            bench.save(session)

    def test_loading_revives_a_failed_session(
        self,
        training_client: TrainingClient,
        bench: Bench,
        break_session: Callable[[Any], list[Any]],
    ) -> None:
        """`load_checkpoint` puts a failed session back to the checkpoint: its weights and
        moments, nothing accumulated, and it trains as if nothing had happened. It does so
        without the optimizer, too. An unknown reference does not revive it.

        Usually broken by a mark that is never taken away, or taken away too early.
        """
        session = bench.start()
        bench.losses(session, [1, 2])
        reference = bench.save(session)
        before = bench.logprobs(session, bench.probe)
        rest = bench.losses(session, [1, 2])
        break_session(session)
        with pytest.raises(NotFound):
            training_client.load_checkpoint(session, "conformance-missing")
        with pytest.raises(SessionFailed):
            bench.forward_backward(session, bench.batch(1))
        training_client.load_checkpoint(session, reference)
        with pytest.raises(InvalidInput):
            training_client.optim_step(session, bench.learning_rate)
        bench.same(bench.logprobs(session, bench.probe), before)
        bench.same(bench.losses(session, [1, 2]), rest)
        break_session(session)
        training_client.load_checkpoint(session, reference, with_optimizer=False)
        bench.same(bench.logprobs(session, bench.probe), before)

    def test_a_failure_stays_in_its_session(
        self,
        training_client: TrainingClient,
        bench: Bench,
        break_session: Callable[[Any], list[Any]],
    ) -> None:
        """Another session, open or started after, does not notice; a failed one can be closed,
        twice.

        Usually broken by a worker that several sessions share and that dies with the first.
        """
        session, other, expected = (bench.start() for _ in range(3))
        future = training_client.forward_backward(other, bench.batch(1))
        break_session(session)
        with pytest.raises(SessionFailed):
            bench.forward_backward(session, bench.batch(1))
        loss = bench.losses(expected, [1])[0]
        bench.same(training_client.await_(future).loss, loss)
        bench.optim_step(other)
        bench.same(bench.losses(bench.start(), [1]), [loss])
        reference = bench.save(other)
        training_client.close_session(session)
        training_client.close_session(session)
        with pytest.raises(SessionClosed):
            training_client.load_checkpoint(session, reference)

    # --- weights for a sampler ---

    @needs("save_weights_for_sampler")
    def test_references_of_weights_are_never_reused(
        self, training_client: TrainingClient, bench: Bench
    ) -> None:
        """Each `save_weights_for_sampler` returns a reference of its own, with or without a
        name, in one session and in the next.

        Usually broken by the name itself: a server that caches by name (vLLM) goes on sampling
        from the old weights.
        """
        name = f"{bench.label}[ü] / ?&#"
        references = []
        for _ in range(2):
            session = bench.start()
            for each in (None, name, name, None):
                references.append(training_client.save_weights_for_sampler(session, each))
            training_client.close_session(session)
        assert all(isinstance(reference, str) and reference for reference in references)
        assert len(set(references)) == 8

    @needs("save_weights_for_sampler")
    def test_the_sampler_gets_the_weights_of_the_session(
        self,
        training_client: TrainingClient,
        bench: Bench,
        score: Callable[[Sequence[Sequence[int]], str], Sequence[FloatArray]] | None,
    ) -> None:
        """The paired completer scores texts as `forward` does, with the weights after everything
        that was queued, also under a named reference after training went on.

        Usually broken by publishing around the queue, by an update that is not merged, or by a
        name that a server has cached.
        """
        if score is None:
            pytest.skip("the fixture `score` is not given")
        texts = [
            [*each.model_input.to_ints(), int(each.loss_fn_inputs["target_tokens"][-1])]
            for each in bench.probe
        ]
        session = bench.start()
        saved = []
        for seed in (1, 2):
            training_client.forward_backward(session, bench.batch(seed))
            training_client.optim_step(session, bench.learning_rate)
            reference = training_client.save_weights_for_sampler(session, f"{bench.label}same")
            saved.append((reference, bench.logprobs(session, bench.probe)))
        ephemeral = training_client.save_weights_for_sampler(session)
        for reference, expected in (*saved, (ephemeral, saved[-1][1])):
            np.testing.assert_allclose(
                np.concatenate(score(texts, reference)), expected, atol=10 * bench.tolerance
            )

    # --- any sequence of calls ---

    def test_any_sequence_of_calls_does_what_its_history_says(
        self,
        training_client: TrainingClient,
        bench: Bench,
        break_session: Callable[[Any], list[Any]],
    ) -> None:
        """However sessions are started, trained, saved, loaded, broken and closed, the weights
        of each are a function of the gradients and steps that led to them, and each call
        succeeds or fails as the state of its session says.

        Usually broken by what one operation leaves behind for another.
        """
        seen: dict[Any, FloatArray] = {}
        batches = [bench.batch(1, sizes=(3,)), bench.batch(2, sizes=(2, 1))]
        some = st.integers(0, 2)

        class Machine(RuleBasedStateMachine):
            def __init__(self) -> None:
                super().__init__()
                first = _Tracked(bench.start())
                self.sessions = [first]
                self.saved = [(bench.save(first.session), first.history)]
                self.looks = 0

            def pick(self, number: int) -> _Tracked:
                return self.sessions[number % len(self.sessions)]

            @precondition(lambda self: len(self.sessions) < 2)
            @rule()
            def start(self) -> None:
                self.sessions.append(_Tracked(bench.start()))

            @precondition(lambda self: len(self.sessions) < 2)
            @rule(number=some, with_optimizer=st.booleans())
            def start_from(self, number: int, with_optimizer: bool) -> None:
                reference, history = self.saved[number % len(self.saved)]
                session = bench.start(from_checkpoint=reference, with_optimizer=with_optimizer)
                self.sessions.append(
                    _Tracked(session, history if with_optimizer else ("fresh", history))
                )

            @rule(number=some, batch=st.integers(0, 1))
            def accumulate(self, number: int, batch: int) -> None:
                tracked = self.pick(number)
                with tracked.expected():
                    training_client.forward_backward(tracked.session, batches[batch])
                    tracked.pending = (*tracked.pending, batch)

            @rule(number=some)
            def step(self, number: int) -> None:
                tracked = self.pick(number)
                with tracked.expected(InvalidInput if not tracked.pending else None):
                    training_client.optim_step(tracked.session, bench.learning_rate)
                    tracked.history = (tracked.history, tracked.pending)
                    tracked.pending = ()

            @rule(number=some)
            def save(self, number: int) -> None:
                tracked = self.pick(number)
                with tracked.expected(InvalidInput if tracked.pending else None):
                    self.saved.append((bench.save(tracked.session), tracked.history))

            @rule(number=some, which=some, with_optimizer=st.booleans())
            def load(self, number: int, which: int, with_optimizer: bool) -> None:
                tracked = self.pick(number)
                reference, history = self.saved[which % len(self.saved)]
                tracked.failed = False
                with tracked.expected():
                    training_client.load_checkpoint(tracked.session, reference, with_optimizer)
                    tracked.history = history if with_optimizer else ("fresh", history)
                    tracked.pending = ()

            @rule(number=some)
            def break_it(self, number: int) -> None:
                tracked = self.pick(number)
                with tracked.expected():
                    _first_failure(training_client, break_session(tracked.session))
                    tracked.failed = True

            @rule(number=some)
            def close(self, number: int) -> None:
                tracked = self.pick(number)
                training_client.close_session(tracked.session)
                if tracked.closed and len(self.sessions) > 1:
                    self.sessions.remove(tracked)
                tracked.closed = True

            @invariant()
            def weights_are_those_of_the_history(self) -> None:
                self.looks += 1
                tracked = self.pick(self.looks)  # each in turn: all of them would take long
                if tracked.pending and not training_client.supports("forward"):
                    return
                with tracked.expected():
                    found = bench.logprobs(tracked.session, [*batches[0], *batches[1]])
                    history = tracked.history
                    while history[:1] == ("fresh",):  # the same weights
                        history = history[1]
                    bench.same(found, seen.setdefault(history, found))

            def teardown(self) -> None:
                for tracked in self.sessions:
                    training_client.close_session(tracked.session)

        settings = self.hypothesis_settings(
            stateful_step_count=15,
            report_multiple_bugs=False,
            phases=(Phase.generate, Phase.shrink),  # to explain a failure takes long
        )
        run_state_machine_as_test(Machine, settings=settings)


@dataclass(eq=False)
class _Tracked:
    """A session and what is known about it."""

    session: Any
    history: Any = ()
    """Where its weights and moments come from: nested pairs of a history and the batches of the
    step after it."""
    pending: tuple[int, ...] = ()
    failed: bool = False
    closed: bool = False

    @contextlib.contextmanager
    def expected(self, error: type[Exception] | None = None) -> Iterator[None]:
        """Expect the error that the state of the session says, else this one, or none."""
        if self.closed:
            error = SessionClosed
        elif self.failed:
            error = SessionFailed
        if error is None:
            yield
        else:
            with pytest.raises(error):
                yield


_DROPOUT = LoraConfig(rank=4, dropout=0.5)


def _with_dropout(bench: Bench) -> Any:
    try:
        return bench.start(lora=_DROPOUT)
    except Unsupported as error:
        pytest.skip(f"takes no low-rank update with dropout: {error}")


def _nothing_is_queued(bench: Bench, session: Any) -> None:
    """Check that nothing was accumulated, that the session goes on, and as one that is new."""
    with pytest.raises(InvalidInput):
        bench.client.optim_step(session, bench.learning_rate)
    assert math.isfinite(bench.step(session, [GOOD]).loss)


def _first_failure(client: TrainingClient, futures: Sequence[Any]) -> tuple[Any, AdapterError]:
    """Return the first of these futures that fails, and its error."""
    for future in futures:
        try:
            client.await_(future)
        except AdapterError as error:
            return future, error
    pytest.fail("no operation failed: the fixture `break_session` does not do what it should")


def _refused(
    call: Callable[[], Any], errors: type[Exception] | tuple[type[Exception], ...], what: str
) -> None:
    """Check that a call raises one of these errors."""
    with contextlib.suppress(*(errors if isinstance(errors, tuple) else (errors,))):
        call()
        pytest.fail(f"not refused: {what}")
