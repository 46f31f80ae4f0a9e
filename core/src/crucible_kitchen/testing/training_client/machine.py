"""A state machine that compares sessions with how they came to their weights."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from ...errors import InvalidInput, SessionClosed, SessionFailed
from ...types import FloatArray
from .bench import Bench
from .fixtures import BreakSession

_some = st.integers(0, 2)


class HistoryMachine(RuleBasedStateMachine):
    """Calls a training client, and records the steps that led each session to its weights."""

    def __init__(
        self, bench: Bench, break_session: BreakSession, seen: dict[Any, FloatArray]
    ) -> None:
        super().__init__()
        self.bench = bench
        self.break_session = break_session
        self.batches = [bench.batch(1, sizes=(3,)), bench.batch(2, sizes=(2, 1))]
        self.seen = seen
        first = _Tracked(self.bench.start())
        self.sessions = [first]
        self.saved = [(self.bench.save(first.session), first.history)]
        self.looks = 0

    def pick(self, number: int) -> _Tracked:
        return self.sessions[number % len(self.sessions)]

    @precondition(lambda self: len(self.sessions) < 2)
    @rule()
    def start(self) -> None:
        self.sessions.append(_Tracked(self.bench.start()))

    @precondition(lambda self: len(self.sessions) < 2)
    @rule(number=_some, with_optimizer=st.booleans())
    def start_from(self, number: int, with_optimizer: bool) -> None:
        reference, history = self.saved[number % len(self.saved)]
        session = self.bench.start(from_checkpoint=reference, with_optimizer=with_optimizer)
        self.sessions.append(_Tracked(session, history if with_optimizer else ("fresh", history)))

    @rule(number=_some, batch=st.integers(0, 1))
    def accumulate(self, number: int, batch: int) -> None:
        tracked = self.pick(number)
        with tracked.expected():
            self.bench.client.forward_backward(tracked.session, self.batches[batch])
            tracked.pending = (*tracked.pending, batch)

    @rule(number=_some)
    def step(self, number: int) -> None:
        tracked = self.pick(number)
        with tracked.expected(InvalidInput if not tracked.pending else None):
            self.bench.client.optim_step(tracked.session, self.bench.learning_rate)
            tracked.history = (tracked.history, tracked.pending)
            tracked.pending = ()

    @rule(number=_some)
    def save(self, number: int) -> None:
        tracked = self.pick(number)
        with tracked.expected(InvalidInput if tracked.pending else None):
            self.saved.append((self.bench.save(tracked.session), tracked.history))

    @rule(number=_some, which=_some, with_optimizer=st.booleans())
    def load(self, number: int, which: int, with_optimizer: bool) -> None:
        tracked = self.pick(number)
        reference, history = self.saved[which % len(self.saved)]
        tracked.failed = False
        with tracked.expected():
            self.bench.client.load_checkpoint(tracked.session, reference, with_optimizer)
            tracked.history = history if with_optimizer else ("fresh", history)
            tracked.pending = ()

    @rule(number=_some)
    def break_it(self, number: int) -> None:
        tracked = self.pick(number)
        with tracked.expected():
            self.bench.first_failure(self.break_session(tracked.session))
            tracked.failed = True

    @rule(number=_some)
    def close(self, number: int) -> None:
        tracked = self.pick(number)
        self.bench.client.close_session(tracked.session)
        if tracked.closed and len(self.sessions) > 1:
            self.sessions.remove(tracked)
        tracked.closed = True

    @invariant()
    def weights_are_those_of_the_history(self) -> None:
        self.looks += 1
        tracked = self.pick(self.looks)  # each in turn: all of them would take long
        if tracked.pending and not self.bench.client.supports("forward"):
            return
        with tracked.expected():
            found = self.bench.logprobs(tracked.session, [*self.batches[0], *self.batches[1]])
            history = tracked.history
            while history[:1] == ("fresh",):  # the same weights
                history = history[1]
            self.bench.same(found, self.seen.setdefault(history, found))

    def teardown(self) -> None:
        for tracked in self.sessions:
            self.bench.client.close_session(tracked.session)


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
        """Expect the error of the session's state, else the given one; with neither, success."""
        if self.closed:
            error = SessionClosed
        elif self.failed:
            error = SessionFailed
        if error is None:
            yield
        else:
            with pytest.raises(error):
                yield
