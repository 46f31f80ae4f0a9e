"""Faults in order and waiting."""

from __future__ import annotations

from typing import Any

from crucible_kitchen import AdamParams, AdapterTimeout, SessionClosed, hookimpl

from .bases import BIGRAM, SLOW, Delegate, Options, mutants


class WorksWhenAwaited(Delegate):
    @hookimpl
    def forward(
        self, opts: Options, session: Any, datums: Any, loss_fn: str, loss_fn_config: Any
    ) -> Any:
        return lambda: opts.inner.forward(session, datums, loss_fn, loss_fn_config)

    @hookimpl
    def await_(self, opts: Options, future: Any, timeout: float | None) -> Any:
        return opts.inner.await_(future() if callable(future) else future, timeout)


class StepsWhenAwaited(WorksWhenAwaited):
    @hookimpl
    def optim_step(
        self, opts: Options, session: Any, learning_rate: float, adam: AdamParams
    ) -> Any:
        return lambda: opts.inner.optim_step(session, learning_rate, adam)


class AnswersOnce(Delegate):
    def __init__(self) -> None:
        self.answered: set[int] = set()
        self.kept: list[Any] = []  # so that no id is used again

    @hookimpl
    def await_(self, opts: Options, future: Any, timeout: float | None) -> Any:
        result = opts.inner.await_(future, timeout)
        if id(future) in self.answered:
            raise AdapterTimeout("nothing comes any more")
        self.answered.add(id(future))
        self.kept.append(future)
        return result


class AnswersInTurn(Delegate):
    def __init__(self) -> None:
        self.submitted: list[Any] = []
        self.answers: dict[int, Any] = {}

    @hookimpl
    def forward_backward(
        self, opts: Options, session: Any, datums: Any, loss_fn: str, loss_fn_config: Any
    ) -> Any:
        future = opts.inner.forward_backward(session, datums, loss_fn, loss_fn_config)
        self.submitted.append(future)
        return future

    @hookimpl
    def await_(self, opts: Options, future: Any, timeout: float | None) -> Any:
        if future in self.submitted:
            turn = self.answers.setdefault(id(future), self.submitted[len(self.answers)])
            return opts.inner.await_(turn, timeout)
        return opts.inner.await_(future, timeout)


class CancelsAtATimeout(Delegate):
    def __init__(self) -> None:
        self.cancelled: list[Any] = []

    @hookimpl
    def await_(self, opts: Options, future: Any, timeout: float | None) -> Any:
        if any(future is each for each in self.cancelled):
            raise SessionClosed("the operation was cancelled")
        try:
            return opts.inner.await_(future, timeout)
        except AdapterTimeout:
            self.cancelled.append(future)
            raise


MUTANTS = [
    *mutants(
        BIGRAM,
        (WorksWhenAwaited(), "a_forward_sees_the_weights_of_its_place_in_the_queue"),
        (StepsWhenAwaited(), "operations_run_in_the_order_of_submission"),
        (AnswersOnce(), "a_result_may_be_asked_for_again_from_any_thread"),
        (AnswersInTurn(), "results_are_those_of_their_futures"),
    ),
    *mutants(
        SLOW,
        (CancelsAtATimeout(), "a_timeout_leaves_the_operation_running"),
    ),
]
