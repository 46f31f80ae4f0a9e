"""Operations run in order, and their results are waited for."""

from __future__ import annotations

import concurrent.futures
import contextlib
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from ...errors import AdapterTimeout
from ..conformance import needs
from ..refusal import refuses
from .bench import SGD, Bench, joined
from .fixtures import Paused, TrainingClientFixtures


class Futures(TrainingClientFixtures):
    """Futures, order, timeouts and threads."""

    def test_operations_run_in_the_order_of_submission(self, bench: Bench) -> None:
        """Operations submitted without waiting, and awaited from the last to the first, have the
        results of waiting for each before the next is submitted.

        Usually broken by work that is done when its future is awaited, or by a pool of workers.
        """
        patient, hasty = bench.start(), bench.start()
        expected = bench.losses(patient, [1, 2, 1, 2])
        futures = []
        for seed in (1, 2, 1, 2):
            futures.append(bench.client.forward_backward(hasty, bench.batch(seed)))
            last = bench.client.optim_step(hasty, bench.learning_rate)
        bench.client.await_(last)
        losses = [bench.client.await_(future).loss for future in reversed(futures)]
        bench.same(losses[::-1], expected)
        bench.same(bench.logprobs(hasty, bench.probe), bench.logprobs(patient, bench.probe))

    @needs("forward")
    def test_a_forward_sees_the_weights_of_its_place_in_the_queue(self, bench: Bench) -> None:
        """A `forward` submitted before a step sees the weights before the step, whenever it is
        awaited; one submitted after it sees the weights after.

        Usually broken by evaluations that bypass the session's queue.
        """
        session, other = bench.start(), bench.start()
        before = bench.logprobs(other, bench.probe)
        bench.step(other, bench.batch(1))
        after = bench.logprobs(other, bench.probe)
        early = bench.client.forward(session, bench.probe)
        bench.client.forward_backward(session, bench.batch(1))
        bench.client.optim_step(session, bench.learning_rate)
        late = bench.client.forward(session, bench.probe)
        bench.same(joined(bench.client.await_(late)), after)
        bench.same(joined(bench.client.await_(early)), before)
        bench.other_step(before, before, after)

    def test_a_result_may_be_asked_for_again_from_any_thread(self, bench: Bench) -> None:
        """`await_` returns the same result however often it is called, from any thread.

        Usually broken by a result that is taken from a queue, so that a repeat after a lost
        answer waits forever.
        """
        session = bench.start()
        passed = bench.client.forward_backward(session, bench.batch(1))
        stepped = bench.client.optim_step(session, bench.learning_rate)
        with ThreadPoolExecutor(4) as pool:
            results = list(pool.map(bench.client.await_, [passed] * 8))
            steps = list(pool.map(bench.client.await_, [stepped] * 8))
        results.append(bench.client.await_(passed))
        for result in results:
            assert result.loss == results[0].loss
            np.testing.assert_array_equal(joined(result), joined(results[0]))
        assert len({step.grad_norm for step in steps}) == 1

    def test_results_are_those_of_their_futures(self, bench: Bench) -> None:
        """Of two operations in flight, each future has its own result, even if the second is
        awaited first.

        Usually broken by results that are handed out in the order in which they are awaited.
        """
        first, second = bench.batch(1), bench.batch(2, sizes=(4, 6))
        session = bench.start()
        expected = [bench.logprobs(session, datums) for datums in (first, second)]
        futures = [bench.client.forward_backward(session, d) for d in (first, second)]
        found = [bench.client.await_(future) for future in reversed(futures)][::-1]
        for result, logprobs in zip(found, expected, strict=True):
            bench.same(joined(result), logprobs)
            bench.same_sum(result.loss, -logprobs.astype(np.float64))

    def test_a_timeout_leaves_the_operation_running(self, bench: Bench) -> None:
        """With a timeout, even of 0, `await_` returns the right result or raises
        `AdapterTimeout`; asked again later it returns the right result, and nothing is lost.

        Usually broken by a client whose timeout cancels what is awaited, or forgets it.
        """
        session, patient = bench.start(), bench.start()
        batches = [bench.batch(seed) for seed in (1, 2)] * 10
        expected = [bench.forward_backward(patient, datums).loss for datums in batches]
        bench.optim_step(patient, adam=SGD)

        futures = [bench.client.forward_backward(session, datums) for datums in batches]
        for future, loss in zip(reversed(futures), reversed(expected), strict=True):
            for timeout in (0, 0.0001):
                with contextlib.suppress(AdapterTimeout):
                    bench.same(bench.client.await_(future, timeout=timeout).loss, loss)
        bench.same([bench.client.await_(future).loss for future in futures], expected)
        bench.optim_step(session, adam=SGD)
        bench.same(bench.logprobs(session, bench.probe), bench.logprobs(patient, bench.probe))

    def test_a_call_returns_before_its_work_is_done(
        self, bench: Bench, paused: Paused | None
    ) -> None:
        """Operations are submitted at once while the session is busy; waiting for one raises
        `AdapterTimeout` when its time is over, and its result comes later.

        Usually broken by a call that does the work itself: a step then never overlaps with the
        preparation of the next.
        """
        pause = self.given(paused, "paused")
        session, patient = bench.start(), bench.start()
        [expected] = bench.losses(patient, [1])

        def submit() -> list[Any]:
            return [
                bench.client.forward_backward(session, bench.batch(1)),
                bench.client.optim_step(session, bench.learning_rate),
            ]

        with ThreadPoolExecutor(1) as pool, pause(session):
            submitted = pool.submit(submit)
            done, _ = concurrent.futures.wait([submitted], timeout=30)
            assert done, "the calls wait for their work"
            passed, stepped = submitted.result()
            for timeout in (0, 0.01):
                refuses(AdapterTimeout, bench.client.await_, passed, timeout=timeout)
                refuses(AdapterTimeout, bench.client.await_, stepped, timeout=timeout)
        bench.client.await_(stepped)
        bench.same(bench.client.await_(passed).loss, expected)

    def test_threads_may_submit_to_one_session(self, bench: Bench) -> None:
        """What several threads submit at once is all accumulated.

        Usually broken by a sum, or a count of what is pending, that threads overwrite.
        """
        datums = [bench.batch(seed, sizes=(5,), weight=0.2)[0] for seed in range(32)]
        session, other = bench.start(), bench.start()
        before = bench.logprobs(session, bench.probe)
        bench.forward_backward(other, datums)
        expected = bench.optim_step(other, adam=SGD).grad_norm

        with ThreadPoolExecutor(8) as pool:
            submit = bench.client.forward_backward
            futures = list(pool.map(lambda each: submit(session, [each]), datums))
            results = list(pool.map(bench.client.await_, futures))
        for each, result in zip(datums, results, strict=True):
            assert len(joined(result)) == each.model_input.length
        bench.same_norm(bench.optim_step(session, adam=SGD).grad_norm, expected)
        found, alone = (bench.logprobs(s, bench.probe) for s in (session, other))
        bench.same_step(before, found, alone)
