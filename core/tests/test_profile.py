"""Where the time went: own times, waiting, and what is left for the workflow itself."""

from __future__ import annotations

from typing import Any

import pytest
from crucible_kitchen import Event
from crucible_kitchen.messages.durations import duration
from crucible_kitchen.traces.lines import Line
from crucible_kitchen.traces.profile import Profile, profile, traces
from hypothesis import given
from hypothesis import strategies as st


def call(
    start: float,
    end: float,
    callback: str = "read",
    *,
    port: str = "blob_store",
    adapter: str = "acme",
    span: int = 1,
    parent: int | None = None,
    name: str = "adapter.call",
    trace: str = "t",
    **more: Any,
) -> Line:
    about = {"port": port, "adapter": adapter, "callback": callback, "error": None, **more}
    return Line(trace, Event(name, {**about, "duration_s": end - start}, end, span, parent))


def wait(start: float, end: float, **more: Any) -> Line:
    return call(start, end, "await_", port="training_client", **more)


def other(name: str, start: float, end: float, span: int | None = None, **more: Any) -> Line:
    trace = more.pop("trace", "t")
    about = {} if span is None else {"duration_s": end - start, "error": None}
    return Line(trace, Event(name, {**about, **more}, end, span))


def of(*lines: Line) -> Profile:
    return profile(traces(lines))


def totals(found: Profile) -> dict[tuple[str, str], float]:
    return {(row.callee.adapter, row.callee.callback): row.total for row in found.rows}


def test_the_time_of_a_wrapper_is_without_that_of_the_adapter_within_it() -> None:
    found = of(
        call(1, 2, span=2, parent=1),
        call(3, 5, span=3, parent=1),
        call(0, 10, adapter="retry", name="adapter.around", span=1),
    )
    assert totals(found) == {("retry", "read"): 7.0, ("acme", "read"): 3.0}
    assert found.calling == found.elapsed == 10.0
    assert [row.callee.wraps for row in found.rows] == [True, False]


def test_calls_side_by_side_within_a_wrapper_are_taken_off_once() -> None:
    found = of(
        call(1, 4, span=2, parent=1),
        call(2, 5, span=3, parent=1),
        call(0, 6, adapter="tee", span=1),
    )
    assert totals(found) == {("tee", "read"): 2.0, ("acme", "read"): 6.0}


def test_waiting_other_calls_and_no_call_add_up_to_the_whole() -> None:
    found = of(
        other("workflow.start", 0, 0),
        call(1, 3, span=1),
        wait(4, 8, span=2),
        other("workflow.run", 0, 10, 9),
    )
    assert (found.waiting, found.calling, found.own, found.elapsed) == (4.0, 2.0, 4.0, 10.0)
    assert found.ended is None


def test_other_work_while_one_waits_counts_as_waiting() -> None:
    found = of(wait(0, 6, span=1), call(4, 10, span=2))
    assert (found.waiting, found.calling, found.own) == (6.0, 4.0, 0.0)


def test_waiting_behind_a_wrapper_is_waiting_too() -> None:
    inner = wait(1, 3, span=2, parent=1)
    outer = wait(0, 4, adapter="retry", name="adapter.around", span=1)
    found = of(inner, outer)
    assert (found.waiting, found.calling) == (2.0, 2.0)


def test_steps_that_overlap_count_once() -> None:
    found = of(other("training.step", 0, 4, 1), other("training.step", 2, 6, 2))
    [phase] = found.phases
    assert (phase.count, phase.total) == (2, 6.0)


def test_errors_are_counted_those_of_a_batch_one_by_one() -> None:
    found = of(
        call(0, 1, error="Unavailable", span=1),
        call(1, 2, span=2),
        call(2, 3, "complete_batch", port="completer", failed=3, span=3),
    )
    assert {row.callee.callback: row.errors for row in found.rows} == {
        "read": 1,
        "complete_batch": 3,
    }
    assert (found.calls, found.errors) == (3, 4)


def test_that_something_is_not_there_is_no_error() -> None:
    found = of(call(0, 1, error="NotFound"))
    assert (found.calls, found.errors) == (1, 0)


def test_the_whole_has_the_errors_of_calls_that_no_other_call_made() -> None:
    around: dict[str, Any] = {"adapter": "retry", "name": "adapter.around"}
    found = of(
        call(1, 2, error="Unavailable", span=2, parent=1),
        call(2, 3, span=3, parent=1),
        call(0, 4, span=1, **around),
        call(5, 6, error="Unavailable", span=5, parent=4),
        call(4, 7, error="Unavailable", span=4, **around),
    )
    assert (found.calls, found.errors) == (2, 1)
    assert {row.callee.adapter: row.errors for row in found.rows} == {"acme": 2, "retry": 1}


def test_the_spread_of_a_callback_is_told_by_its_quantiles() -> None:
    [row] = of(*(call(0, seconds, span=seconds) for seconds in range(1, 102))).rows
    assert (row.calls, row.p50, row.p95) == (101, 51.0, 96.0)


def test_attempts_at_a_run_add_up_without_the_time_between_them() -> None:
    found = of(
        call(0, 2, span=1, trace="a"),
        other("workflow.run", 0, 3, 2, trace="a", error="KeyboardInterrupt"),
        call(1000, 1001, span=1, trace="b"),
    )
    assert found.elapsed == 4.0
    assert found.calling == 3.0
    assert found.ended == "unfinished"


def test_a_run_that_failed_tells_with_what() -> None:
    assert of(other("workflow.run", 0, 1, 1, error="NotFound")).ended == "NotFound"


spans = st.tuples(
    st.floats(0, 100), st.floats(0, 100), st.booleans(), st.none() | st.integers(1, 20)
)


@given(st.lists(spans, min_size=1, max_size=20))
def test_the_parts_add_up_whatever_overlaps(found: list[tuple[float, float, bool, int]]) -> None:
    lines = [
        (wait if waits else call)(min(a, b), max(a, b), span=number, parent=parent)
        for number, (a, b, waits, parent) in enumerate(found, 1)
        if parent != number
    ]
    if not lines:
        return
    result = of(*lines)
    whole = result.waiting + result.calling + result.own
    assert whole == pytest.approx(result.elapsed, abs=1e-6)
    assert all(row.total >= 0 for row in result.rows)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 µs"),
        (1.234e-5, "12.3 µs"),
        (0.000999, "999 µs"),
        (0.0123, "12.3 ms"),
        (0.1, "100 ms"),
        (1, "1.00 s"),
        (99.96, "100 s"),
        (119, "119 s"),
        (125, "2.08 min"),
        (10_000, "2.78 h"),
        (36e6, "10,000 h"),
    ],
)
def test_a_duration_has_three_figures_and_the_unit_that_suits_it(seconds: float, text: str) -> None:
    assert duration(seconds) == text
