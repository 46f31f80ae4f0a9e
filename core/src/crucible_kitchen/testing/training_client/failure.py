"""What a failed operation does to its session."""

from __future__ import annotations

import contextlib
from typing import Any

from ...errors import InvalidInput, NotFound, SessionClosed, SessionFailed, Unsupported
from ..refusal import refuses
from .bench import Bench
from .fixtures import BreakSession, TrainingClientFixtures


class Failure(TrainingClientFixtures):
    """After a failure a session is restored or closed."""

    def test_a_failed_operation_fails_its_session(
        self, bench: Bench, break_session: BreakSession
    ) -> None:
        """An operation that failed raises its own error, as often as it is awaited. Then
        everything but `load_checkpoint` and `close_session` is `SessionFailed`.

        Usually broken by going on: weights that missed a gradient look like any others.
        """
        session = bench.start()
        reference = bench.save(session)
        done = bench.client.forward_backward(session, bench.batch(1))
        expected = bench.client.await_(done)
        bench.optim_step(session)
        failed, error = bench.first_failure(break_session(session))
        assert not isinstance(error, SessionFailed | InvalidInput | Unsupported)
        refuses(type(error), bench.client.await_, failed)
        for name, use in bench.uses(session, reference).items():
            if name != "load_checkpoint":
                refuses(SessionFailed, use)
        assert bench.client.await_(done).loss == expected.loss

    def test_what_is_queued_behind_a_failure_fails(
        self, bench: Bench, break_session: BreakSession
    ) -> None:
        """What was submitted before the failure was known is `SessionFailed`, and does not run.

        Usually broken by a queue whose entries do not know of each other (SkyRL 0.3: the step
        behind a pass that was refused runs on a gradient of zero, and momentum moves the
        weights).
        """
        session = bench.start()
        bench.losses(session, [1])
        break_session(session)
        behind: list[Any] = []
        for submit in (
            lambda: bench.client.forward_backward(session, bench.batch(1)),
            lambda: bench.client.optim_step(session, bench.learning_rate),
            lambda: bench.client.forward_backward(session, bench.batch(2)),
        ):
            with contextlib.suppress(SessionFailed):
                behind.append(submit())
        for future in behind:
            refuses(SessionFailed, bench.client.await_, future)
        refuses(SessionFailed, bench.client.save_checkpoint, session, bench.label)

    def test_loading_revives_a_failed_session(
        self, bench: Bench, break_session: BreakSession
    ) -> None:
        """`load_checkpoint` puts a failed session back to the checkpoint: its weights and
        moments, nothing accumulated, and it trains as if nothing had happened. So it does
        without the optimizer. An unknown reference does not revive it.

        Usually broken by a mark that is never taken away, or taken away too early.
        """
        session = bench.start()
        bench.losses(session, [1, 2])
        reference = bench.save(session)
        before = bench.logprobs(session, bench.probe)
        rest = bench.losses(session, [1, 2])
        break_session(session)
        refuses(NotFound, bench.client.load_checkpoint, session, "conformance-missing")
        refuses(SessionFailed, bench.forward_backward, session, bench.batch(1))
        bench.client.load_checkpoint(session, reference)
        refuses(InvalidInput, bench.client.optim_step, session, bench.learning_rate)
        bench.same(bench.logprobs(session, bench.probe), before)
        bench.same(bench.losses(session, [1, 2]), rest)
        break_session(session)
        bench.client.load_checkpoint(session, reference, with_optimizer=False)
        bench.same(bench.logprobs(session, bench.probe), before)

    def test_a_failure_stays_in_its_session(
        self, bench: Bench, break_session: BreakSession
    ) -> None:
        """Another session, open or started after, does not notice; a failed one can be closed,
        twice.

        Usually broken by a worker that several sessions share and that dies with the first.
        """
        session, other, expected = (bench.start() for _ in range(3))
        future = bench.client.forward_backward(other, bench.batch(1))
        break_session(session)
        refuses(SessionFailed, bench.forward_backward, session, bench.batch(1))
        loss = bench.losses(expected, [1])[0]
        bench.same(bench.client.await_(future).loss, loss)
        bench.optim_step(other)
        bench.same(bench.losses(bench.start(), [1]), [loss])
        reference = bench.save(other)
        bench.client.close_session(session)
        bench.client.close_session(session)
        refuses(SessionClosed, bench.client.load_checkpoint, session, reference)
