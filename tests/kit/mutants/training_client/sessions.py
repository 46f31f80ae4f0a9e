"""Faults in sessions and their failures."""

from __future__ import annotations

from typing import Any

from crucible_kitchen import (
    AdamParams,
    AdapterTimeout,
    SessionClosed,
    SessionConfig,
    SessionFailed,
    hookimpl,
)

from .bases import BIGRAM, NOOP, Delegate, Options, drain, mutants


class GoesOnAfterAFailure(Delegate):
    def __init__(self) -> None:
        self.beginnings: dict[Any, str] = {}

    @hookimpl
    def start_session(self, opts: Options, config: SessionConfig) -> Any:
        session = opts.inner.start_session(config)
        self.beginnings[session] = opts.inner.save_checkpoint(session, "beginning")
        return session

    @hookimpl
    def forward_backward(
        self, opts: Options, session: Any, datums: Any, loss_fn: str, loss_fn_config: Any
    ) -> Any:
        try:
            return opts.inner.forward_backward(session, datums, loss_fn, loss_fn_config)
        except SessionFailed:
            opts.inner.load_checkpoint(session, self.beginnings[session])
            return opts.inner.forward_backward(session, datums, loss_fn, loss_fn_config)


class RunsWhatIsBehindAFailure(Delegate):
    """It fails, and forgets at once."""

    @hookimpl
    def optim_step(
        self, opts: Options, session: Any, learning_rate: float, adam: AdamParams
    ) -> Any:
        future = opts.inner.optim_step(session, learning_rate, adam)

        def forget() -> None:
            session.failure = None

        session.worker.submit(forget)
        return future


class RevivesBeforeItLooks(Delegate):
    @hookimpl
    def load_checkpoint(self, opts: Options, session: Any, path: str, with_optimizer: bool) -> None:
        drain(session)
        session.failure = None
        opts.inner.load_checkpoint(session, path, with_optimizer)


class FailsAllSessions(Delegate):
    def __init__(self) -> None:
        self.sessions: list[Any] = []

    @hookimpl
    def start_session(self, opts: Options, config: SessionConfig) -> Any:
        session = opts.inner.start_session(config)
        self.sessions.append(session)
        return session

    @hookimpl
    def forward_backward(
        self, opts: Options, session: Any, datums: Any, loss_fn: str, loss_fn_config: Any
    ) -> Any:
        for other in self.sessions:
            if not other.closed:
                drain(other)
                session.failure = session.failure or other.failure
        return opts.inner.forward_backward(session, datums, loss_fn, loss_fn_config)


class SavesAClosedSession(Delegate):
    @hookimpl
    def save_checkpoint(self, opts: Options, session: Any, path: str) -> str:
        try:
            return opts.inner.save_checkpoint(session, path)
        except SessionClosed:
            return "00000000000000000000-gone"


class NeverAnswersAfterItsEnd(Delegate):
    def __init__(self) -> None:
        self.closed: list[Any] = []
        self.sessions: dict[Any, Any] = {}

    @hookimpl
    def forward_backward(
        self, opts: Options, session: Any, datums: Any, loss_fn: str, loss_fn_config: Any
    ) -> Any:
        future = opts.inner.forward_backward(session, datums, loss_fn, loss_fn_config)
        self.sessions[future] = session
        return future

    @hookimpl
    def close_session(self, opts: Options, session: Any) -> None:
        self.closed.append(session)
        opts.inner.close_session(session)

    @hookimpl
    def await_(self, opts: Options, future: Any, timeout: float | None) -> Any:
        if self.sessions.get(future) in self.closed:
            raise AdapterTimeout("nothing came")
        return opts.inner.await_(future, timeout)


class ClosesOnce(Delegate):
    @hookimpl
    def close_session(self, opts: Options, session: Any) -> None:
        session.check(revives=True)
        opts.inner.close_session(session)


class RevivesWithItsOptimizerOnly(Delegate):
    @hookimpl
    def load_checkpoint(self, opts: Options, session: Any, path: str, with_optimizer: bool) -> None:
        failed = session.failed
        opts.inner.load_checkpoint(session, path, with_optimizer)
        if not with_optimizer:
            session.failed = failed


class ForgetsNothing(Delegate):
    """What ends something leaves it as it was. Three faults: hypothesis draws with the constants of
    the code around, so that a sequence which shows a single one may come or not."""

    @hookimpl
    def load_checkpoint(self, opts: Options, session: Any, path: str, with_optimizer: bool) -> None:
        failed, gradient = session.failed, session.gradient
        opts.inner.load_checkpoint(session, path, with_optimizer)
        session.failed, session.gradient = failed, gradient

    @hookimpl
    def optim_step(self, opts: Options, session: Any, learning_rate: float, adam: Any) -> Any:
        gradient = session.gradient
        future = opts.inner.optim_step(session, learning_rate, adam)
        session.gradient = gradient
        return future

    @hookimpl
    def close_session(self, opts: Options, session: Any) -> None: ...


class NamesWeightsForTheSampler(Delegate):
    @hookimpl
    def save_weights_for_sampler(self, opts: Options, session: Any, name: str | None) -> str:
        reference = opts.inner.save_weights_for_sampler(session, name)
        return name if name is not None else reference


MUTANTS = [
    *mutants(
        BIGRAM,
        (GoesOnAfterAFailure(), "a_failed_operation_fails_its_session"),
        (RunsWhatIsBehindAFailure(), "what_is_queued_behind_a_failure_fails"),
        (RevivesBeforeItLooks(), "loading_revives_a_failed_session"),
        (FailsAllSessions(), "a_failure_stays_in_its_session"),
        (SavesAClosedSession(), "a_closed_session_is_refused_by_every_callback"),
        (NeverAnswersAfterItsEnd(), "closing_ends_what_is_queued"),
        (ClosesOnce(), "a_closed_session_is_refused_by_every_callback"),
    ),
    *mutants(
        NOOP,
        (RevivesWithItsOptimizerOnly(), "loading_revives_a_failed_session"),
        (ForgetsNothing(), "any_sequence_of_calls_does_what_its_history_says"),
        (NamesWeightsForTheSampler(), "references_of_weights_are_never_reused"),
    ),
]
