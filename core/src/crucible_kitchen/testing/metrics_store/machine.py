"""A state machine that compares a metrics store with a dictionary."""

from __future__ import annotations

import uuid
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule

from ...errors import InvalidInput
from ...ports import MetricsStore
from ..refusal import refuses
from .rows import FLOATS, Row, rows

_runs = st.sampled_from([0, 1])
_metrics = st.sampled_from(["loss", "Loss", "test/ü"])
_steps = st.none() | st.sampled_from([0, 1, 2, -1])


class DictionaryMachine(RuleBasedStateMachine):
    """Calls a metrics store, and a dictionary of what it should hold."""

    def __init__(self, store: MetricsStore, run_id: str) -> None:
        super().__init__()
        self.store = store
        root = f"{run_id}-{uuid.uuid4().hex}"
        self.runs = [f"{root}a", f"{root}A"]
        self.model: list[dict[Any, Row]] = [{}, {}]

    def expect(self, run: int, metric: str, value: float, step: int | None) -> None:
        key = object() if step is None else (metric, step)
        self.model[run][key] = (metric, repr(float(value)), step)

    @rule(run=_runs, metric=_metrics, value=FLOATS, step=_steps)
    def record(self, run: int, metric: str, value: float, step: int | None) -> None:
        self.store.record(self.runs[run], metric, value, step)
        self.expect(run, metric, value, step)

    @rule(run=_runs, numbers=st.dictionaries(_metrics, FLOATS, max_size=3), step=_steps)
    def record_many(self, run: int, numbers: dict[str, float], step: int | None) -> None:
        self.store.record_many(self.runs[run], numbers, step)
        for metric, value in numbers.items():
            self.expect(run, metric, value, step)

    @rule(run=_runs, metric=_metrics, step=_steps)
    def fail_to_record(self, run: int, metric: str, step: int | None) -> None:
        nothing: Any = None
        refuses(InvalidInput, self.store.record, self.runs[run], metric, nothing, step)

    @rule(run=_runs)
    def flush(self, run: int) -> None:
        self.store.flush(self.runs[run])

    @rule(run=_runs)
    def read(self, run: int) -> None:
        assert rows(self.store, self.runs[run]) == list(self.model[run].values())

    def teardown(self) -> None:
        for run, expected in zip(self.runs, self.model, strict=True):
            self.store.flush(run)
            assert rows(self.store, run) == list(expected.values())
