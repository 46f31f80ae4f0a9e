"""Rows of metrics as curves."""

from __future__ import annotations

import math
from datetime import UTC, datetime

import numpy as np
from crucible_kitchen import MetricEntry
from crucible_kitchen.history.curves import curves, headline, in_order, last_values
from hypothesis import given
from hypothesis import strategies as st

ROWS = st.lists(st.tuples(st.integers(0, 50) | st.none(), st.floats()), max_size=60)


def entries(rows: list[tuple[int | None, float]]) -> list[MetricEntry]:
    return [MetricEntry("r", "m", value, step, datetime.now(UTC)) for step, value in rows]


@given(ROWS)
def test_a_curve_has_each_step_once_in_order_with_the_value_recorded_last(
    rows: list[tuple[int | None, float]],
) -> None:
    expected = {step: value for step, value in rows if step is not None}
    finite = {s: v for s, v in expected.items() if math.isfinite(v) and abs(v) <= 1e300}
    found = curves(entries(rows))
    assert set(found) == ({"m"} if expected else set())
    for curve in found.values():
        assert dict(zip(curve.steps.tolist(), curve.values.tolist(), strict=True)) == finite
        assert curve.steps.tolist() == sorted(finite)
        assert (curve.recorded, curve.left_out) == (len(expected), len(expected) - len(finite))


@given(st.lists(st.floats(-1e9, 1e9), min_size=1, max_size=200), st.integers(1, 20))
def test_a_thinned_curve_keeps_both_ends_and_both_extremes(
    values: list[float], intervals: int
) -> None:
    curve = curves(entries(list(enumerate(values))))["m"]
    thin = curve.thinned(intervals)
    assert len(thin.steps) <= 2 * intervals + 2
    assert thin.is_thinned == (len(values) > 2 * intervals and len(thin.steps) < len(values))
    assert {0, len(values) - 1} <= {*thin.steps.tolist()}
    assert (thin.values.min(), thin.values.max()) == (min(values), max(values))
    assert np.isin(thin.steps, curve.steps).all()


def test_the_last_value_is_that_of_the_highest_step_and_else_the_one_recorded_last() -> None:
    assert last_values(entries([(3, 1.0), (5, 2.0), (4, 3.0)])) == {"m": 2.0}
    assert last_values(entries([(None, 1.0), (None, 2.0)])) == {"m": 2.0}


def test_rewards_and_losses_are_read_before_throughput() -> None:
    names = ["tokens_per_second", "grad_norm", "train_mean_nll", "test/nll", "env/all/reward/total"]
    assert in_order(names) == [
        "env/all/reward/total",
        "test/nll",
        "train_mean_nll",
        "grad_norm",
        "tokens_per_second",
    ]
    assert headline(dict.fromkeys(names, 0.0)) == ["test/nll"]
    assert headline({"train_mean_nll": 1.0, "time/step": 1.0}) == ["train_mean_nll"]
