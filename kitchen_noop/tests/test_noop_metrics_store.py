"""The metrics store in memory keeps every promise of its port."""

import math
from typing import Any

import pytest
from crucible_kitchen import InvalidInput, Kitchen, MetricsStore, Unavailable

from kitchen_noop import metrics_store


def noop(**options: Any) -> MetricsStore:
    table = {"use": metrics_store, "latency_scale": 0, **options}
    return Kitchen(adapters={"metrics_store": table}).metrics_store


@pytest.fixture
def store() -> MetricsStore:
    return noop()


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
def test_a_value_that_is_not_a_float_is_invalid(store: MetricsStore, value: Any) -> None:
    with pytest.raises(InvalidInput, match="value of 'y'"):
        store.record_many("run", {"x": 1.0, "y": value}, 1)
    assert store.read("run") == []


@pytest.mark.parametrize("step", [1.5, "1", math.nan])
def test_a_step_that_is_not_an_integer_is_invalid(store: MetricsStore, step: Any) -> None:
    with pytest.raises(InvalidInput, match="step of 'x'"):
        store.record("run", "x", 1.0, step)
    assert store.read("run") == []


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
    kept = metrics_store._rows(store.options).runs["run"]  # type: ignore[arg-type]
    assert [entry.step for entry in kept.values()] == list(range(20))
    assert failures > 5
