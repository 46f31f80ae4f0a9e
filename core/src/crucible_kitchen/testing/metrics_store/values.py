"""Values of metrics are float64."""

from __future__ import annotations

import math
import sys
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ...errors import InvalidInput
from ...ports import MetricsStore
from ..refusal import refuses
from .fixtures import MetricsStoreFixtures
from .rows import FLOATS, rows


class Values(MetricsStoreFixtures):
    """Every float comes back, and nothing else is a value."""

    @pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf], ids=repr)
    def test_nan_and_infinities_come_back(
        self, metrics_store: MetricsStore, run_id: str, value: float
    ) -> None:
        """NaN, inf and -inf are values like others: a loss that was NaN must look like it.

        Usually broken by SQL, where NaN is NULL, by JSON, which has none of them, and by backends
        that clip an infinity to 1.797e308.
        """
        metrics_store.record(run_id, "with a step", value, 1)
        metrics_store.record(run_id, "without", value)
        metrics_store.flush(run_id)
        expected = [("with a step", repr(value), 1), ("without", repr(value), None)]
        assert rows(metrics_store, run_id) == expected

    @pytest.mark.parametrize(
        "value",
        [
            *(0.0, 0.1, 1 / 3, -1e-3, 1e16 + 2, 123456789.123456789),
            *(5e-324, -5e-324, sys.float_info.min, 1e-300, 1e300, -1e300),
            math.nextafter(sys.float_info.max, 0.0),
        ],
        ids=repr,
    )
    def test_every_digit_comes_back(
        self, metrics_store: MetricsStore, run_id: str, value: float
    ) -> None:
        """A value is a float64 and comes back as the same one, the smallest (5e-324), the very
        large and zero included.

        Usually broken by a column of 32 bits, a decimal format with fewer than 17 digits, or
        `if value:`.
        """
        metrics_store.record(run_id, "loss", value, 1)
        metrics_store.flush(run_id)
        assert rows(metrics_store, run_id) == [("loss", repr(value), 1)]

    def test_the_largest_float_comes_back(self, metrics_store: MetricsStore, run_id: str) -> None:
        """The largest floats, of either sign, are not infinities.

        Usually broken by backends that write an infinity as the largest float.
        """
        metrics_store.record(run_id, "high", sys.float_info.max, 1)
        metrics_store.record(run_id, "low", -sys.float_info.max, 1)
        metrics_store.flush(run_id)
        assert [entry.value for entry in metrics_store.read(run_id)] == [
            sys.float_info.max,
            -sys.float_info.max,
        ]

    def test_the_sign_of_zero_comes_back(self, metrics_store: MetricsStore, run_id: str) -> None:
        """-0.0 comes back as -0.0.

        Usually broken by SQLite, which keeps a float without a fraction as an integer.
        """
        metrics_store.record(run_id, "loss", -0.0, 1)
        metrics_store.flush(run_id)
        assert rows(metrics_store, run_id) == [("loss", "-0.0", 1)]

    def test_any_float_comes_back(self, metrics_store: MetricsStore, run_id: str) -> None:
        """Whatever float a value is, it comes back exact.

        Usually broken by printing it with a fixed number of digits.
        """
        recorded: list[tuple[str, str, int | None]] = []

        @self.hypothesis_settings()
        @given(st.lists(FLOATS, min_size=1, max_size=10))
        def check(values: list[float]) -> None:
            for value in values:
                recorded.append(("loss", repr(value), len(recorded)))
                metrics_store.record(run_id, "loss", value, len(recorded) - 1)
            assert rows(metrics_store, run_id) == recorded

        check()

    @pytest.mark.parametrize(
        "value",
        [3, 0, -(2**53), np.float32(0.1), np.float64(0.1), np.float16(0.5), np.int64(7)],
        ids=lambda value: f"{type(value).__name__}-{value}",
    )
    def test_a_number_comes_back_as_a_float(
        self, metrics_store: MetricsStore, run_id: str, value: Any
    ) -> None:
        """An integer and a scalar of numpy are numbers too: they come back as the `float` of the
        same value. A step may be an integer of numpy, which comes back as `int`.

        Usually broken by a column that becomes one of integers, or by a JSON encoder that knows
        no numpy, which fails at the end of the first epoch.
        """
        step: Any = np.int64(3)
        metrics_store.record(run_id, "loss", value, step)
        metrics_store.record(run_id, "loss", value, 3)
        metrics_store.flush(run_id)
        [entry] = metrics_store.read(run_id)
        assert (type(entry.value), entry.value) == (float, float(value))
        assert (type(entry.step), entry.step) == (int, 3)

    @pytest.mark.parametrize(
        "value", [None, "1.0", "nan", b"1", [1.0], {}, 1j, 10**400], ids=lambda v: repr(v)[:10]
    )
    def test_what_is_no_number_is_refused(
        self, metrics_store: MetricsStore, run_id: str, value: Any
    ) -> None:
        """A value that no float can hold, or that is text, is `InvalidInput`, at once and not at
        the next flush, and leaves no row.

        Usually broken by `float(value)`, which reads text, and by a check that is left to the
        backend, which fails later, for a whole batch.
        """
        refuses(InvalidInput, metrics_store.record, run_id, "loss", value, 1)
        metrics_store.flush(run_id)
        assert metrics_store.read(run_id) == []
        metrics_store.record(run_id, "loss", 1.0, 1)
        refuses(InvalidInput, metrics_store.record, run_id, "loss", value, 1)
        assert rows(metrics_store, run_id) == [("loss", "1.0", 1)]
