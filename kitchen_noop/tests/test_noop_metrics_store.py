"""The metrics store in memory keeps every promise of its port."""

import math
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pytest
from crucible_kitchen import InvalidInput, Kitchen, MetricsStore, Unavailable
from hypothesis import given
from hypothesis import strategies as st

from kitchen_noop import metrics_store


def noop(**options: Any) -> MetricsStore:
    table = {"use": metrics_store, "latency_scale": 0, **options}
    return Kitchen(adapters={"metrics_store": table}).metrics_store


@pytest.fixture
def store() -> MetricsStore:
    return noop()


def rows(store: MetricsStore, run_id: str = "run") -> list[tuple[str, float, int | None]]:
    return [(entry.metric, entry.value, entry.step) for entry in store.read(run_id)]


records = st.lists(
    st.tuples(
        st.sampled_from(["loss", "ü / ?"]),
        st.floats(),
        st.none() | st.integers(-2, 3),
    )
)


@given(records, st.booleans())
def test_there_is_one_row_for_each_step_in_the_order_of_first_record(
    recorded: list[tuple[str, float, int | None]], together: bool
) -> None:
    store = noop()
    expected: dict[Any, tuple[str, str, int | None]] = {}
    for number, (metric, value, step) in enumerate(recorded):
        if together:
            store.record_many("run", {metric: value}, step)
        else:
            store.record("run", metric, value, step)
        expected[metric, number if step is None else str(step)] = (metric, repr(value), step)
    store.flush("run")
    assert [(m, repr(v), s) for m, v, s in rows(store)] == list(expected.values())


def test_nan_and_infinities_come_back(store: MetricsStore) -> None:
    store.record_many("run", {"a": math.nan, "b": math.inf, "c": -math.inf}, 1)
    (_, a, _), (_, b, _), (_, c, _) = rows(store)
    assert math.isnan(a)
    assert (b, c) == (math.inf, -math.inf)


def test_numbers_of_numpy_become_plain_ones(store: MetricsStore) -> None:
    store.record("run", "x", 1, 3)
    store.record("run", "x", np.float32(1.0), np.int64(3))  # type: ignore[arg-type]
    assert rows(store) == [("x", 1.0, 3)]
    (entry,) = store.read("run")
    assert (type(entry.value), type(entry.step)) == (float, int)


def test_timestamps_are_aware_and_in_utc(store: MetricsStore) -> None:
    before = datetime.now(UTC)
    store.record("run", "x", 1.0)
    (entry,) = store.read("run")
    assert entry.timestamp.utcoffset() == timedelta(0)
    assert before <= entry.timestamp <= datetime.now(UTC)


def test_metadata_is_kept_as_it_was(store: MetricsStore) -> None:
    metadata = {"nested": {"list": [1, None, "ü"]}}
    store.record("run", "x", 1.0, 1, metadata)
    store.record("run", "y", 1.0)
    metadata["nested"]["list"].append(2)
    given, absent = store.read("run")
    assert given.metadata == {"nested": {"list": [1, None, "ü"]}}
    assert absent.metadata == {}
    given.metadata["nested"]["list"].clear()
    assert store.read("run")[0].metadata == {"nested": {"list": [1, None, "ü"]}}


@pytest.mark.parametrize("value", [object(), math.nan, b""])
def test_metadata_that_json_cannot_hold_is_invalid(store: MetricsStore, value: object) -> None:
    with pytest.raises(InvalidInput, match="JSON"):
        store.record("run", "x", 1.0, metadata={"x": value})
    assert store.read("run") == []


@pytest.mark.parametrize("value", [None, "1.0", 10**400])
def test_a_value_that_is_no_float_is_invalid(store: MetricsStore, value: Any) -> None:
    with pytest.raises(InvalidInput, match="value of 'y'"):
        store.record_many("run", {"x": 1.0, "y": value}, 1)
    assert store.read("run") == []


@pytest.mark.parametrize("step", [1.5, "1", math.nan])
def test_a_step_that_is_no_integer_is_invalid(store: MetricsStore, step: Any) -> None:
    with pytest.raises(InvalidInput, match="step of 'x'"):
        store.record("run", "x", 1.0, step)
    assert store.read("run") == []


def test_runs_are_apart_and_listed_in_order(store: MetricsStore) -> None:
    store.record("b", "x", 1.0, 1)
    store.record("a", "x", 2.0, 1)
    assert rows(store, "a") == [("x", 2.0, 1)]
    assert store.runs() == ["a", "b"]


def test_an_unknown_run_has_no_rows_and_reading_does_not_make_it(store: MetricsStore) -> None:
    assert store.read("unknown") == []
    store.flush("unknown")
    store.record_many("unknown", {})
    assert store.runs() == []


def test_a_failed_record_may_be_repeated() -> None:
    store = noop(failure_rate=0.5)
    failures = 0
    for step in range(20):
        while True:
            try:
                store.record("run", "x", step, step)
                break
            except Unavailable:
                failures += 1
    kept = metrics_store.rows(store.options).runs["run"]  # type: ignore[arg-type]
    assert [entry.step for entry in kept.values()] == list(range(20))
    assert failures > 5
