"""Learning-rate schedules."""

from __future__ import annotations

import pytest
from crucible_kitchen.workflows.schedules import DECAYS, ScheduleName, lr_factor
from hypothesis import given
from hypothesis import strategies as st

names = st.sampled_from(sorted(DECAYS))


@given(names, st.integers(1, 500), st.integers(0, 100), st.floats(0, 1))
def test_the_factor_rises_during_the_warm_up_and_never_after_it(
    name: ScheduleName, total: int, warmup: int, low: float
) -> None:
    warmup = min(warmup, total)
    factors = [lr_factor(name, step, total, warmup=warmup, min_ratio=low) for step in range(total)]
    assert factors[:warmup] == sorted(factors[:warmup])
    assert factors[warmup:] == sorted(factors[warmup:], reverse=True)
    assert all(0 < f <= 1 for f in factors[:warmup])
    assert all(low - 1e-12 <= f <= 1 for f in factors[warmup:])


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("constant", [1, 1, 1, 1]),
        ("linear", [1, 0.75, 0.5, 0.25]),
        ("cosine", [1, 0.853553, 0.5, 0.146447]),
    ],
)
def test_the_shape_of_each_schedule(name: ScheduleName, expected: list[float]) -> None:
    assert [lr_factor(name, step, 4) for step in range(4)] == pytest.approx(expected, abs=1e-6)


def test_the_peak_is_reached_at_the_last_warm_up_step() -> None:
    assert [lr_factor("linear", s, 8, warmup=4) for s in range(5)] == [0.25, 0.5, 0.75, 1, 1]
