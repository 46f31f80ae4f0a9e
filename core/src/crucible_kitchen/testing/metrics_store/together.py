"""Several numbers of one call belong together: all of them are recorded, or none."""

from __future__ import annotations

import threading
from collections import Counter
from types import MappingProxyType
from typing import Any

import pytest

from ...errors import InvalidInput, Unsupported
from ...ports import MetricsStore
from ..conformance import since
from ..refusal import refuses
from .fixtures import MetricsStoreFixtures
from .rows import rows


class Together(MetricsStoreFixtures):
    """`record_many` is one change."""

    @since("1.5")
    @pytest.mark.parametrize("place", ["first", "second", "last"])
    def test_numbers_of_one_call_are_recorded_all_or_none(
        self, metrics_store: MetricsStore, run_id: str, place: str
    ) -> None:
        """Where one of the numbers is refused, at whatever place, none is recorded: rows of the
        step stay what they were, no row is added, and no run begins.

        Usually broken by a loop that records each number when it has been checked.
        """
        numbers: dict[str, Any] = {"loss": 3.0, "accuracy": 4.0, "new": 5.0}
        numbers[{"first": "loss", "second": "accuracy", "last": "new"}[place]] = "4.0"
        refuses(InvalidInput, metrics_store.record_many, run_id, numbers, 1)
        metrics_store.flush(run_id)
        assert rows(metrics_store, run_id) == []
        if metrics_store.supports("runs"):
            assert run_id not in metrics_store.runs()
        metrics_store.record_many(run_id, {"loss": 1.0, "accuracy": 2.0}, 1)
        for step in (1, None, 2):
            refuses(InvalidInput, metrics_store.record_many, run_id, numbers, step)
        metrics_store.flush(run_id)
        assert rows(metrics_store, run_id) == [("loss", "1.0", 1), ("accuracy", "2.0", 1)]

    @since("1.5")
    def test_a_reader_sees_all_numbers_of_a_call_or_none(
        self, metrics_store: MetricsStore, run_id: str
    ) -> None:
        """A thread that reads while another records sees each call of `record_many` whole.

        Usually broken by taking the lock for each number: a chart shows a step's loss without its
        accuracy.
        """
        if not metrics_store.supports("record_many"):
            pytest.skip("does not implement record_many, which is optional")
        steps, names = 30, [f"metric {number}" for number in range(40)]
        done = threading.Event()

        def write() -> None:
            try:
                for step in range(steps):
                    metrics_store.record_many(run_id, dict.fromkeys(names, 1.0), step)
            finally:
                done.set()

        writer = threading.Thread(target=write)
        writer.start()
        try:
            last = False
            while not last:
                last = done.is_set()  # asked before reading: once more after the last call
                seen = Counter(row.step for row in metrics_store.read(run_id))
                assert set(seen.values()) <= {len(names)}, "a part of one call was read"
        finally:
            writer.join()
        assert len(seen) == steps

    @since("1.5")
    def test_no_numbers_begin_no_run(self, metrics_store: MetricsStore, run_id: str) -> None:
        """`record_many` of an empty mapping, whatever the step, leaves no trace.

        Usually broken by making the run before looking at what is to be recorded.
        """
        for step in (None, 0):
            metrics_store.record_many(run_id, {}, step)
        metrics_store.flush(run_id)
        assert metrics_store.read(run_id) == []
        if metrics_store.supports("runs"):
            assert run_id not in metrics_store.runs()

    @since("1.5")
    def test_many_numbers_of_one_call_are_all_recorded(
        self, metrics_store: MetricsStore, run_id: str
    ) -> None:
        """More numbers than a request holds are recorded by one call, in their order.

        Usually broken by a limit of the backend, beyond which the rest is cut off.
        """
        numbers = {f"metric {number}": float(number) for number in range(self.more_than_a_page)}
        metrics_store.record_many(run_id, numbers, 1)
        metrics_store.flush(run_id)
        expected = [(metric, repr(value), 1) for metric, value in numbers.items()]
        assert rows(metrics_store, run_id) == expected

    @since("1.5")
    def test_what_is_recorded_stays_the_caller_s(
        self, metrics_store: MetricsStore, run_id: str
    ) -> None:
        """A call reads its mappings, of whatever kind, and does not change them; changes that the
        caller makes afterwards do not reach what was recorded.

        Usually broken by adding a field to the metadata, and by a buffer that keeps the mapping.
        """
        numbers = {"a": 1.0, "b": 2.0}
        metadata: dict[str, Any] = {"split": "test", "parts": [1, 2]}
        kept: dict[str, Any] = {"split": "test", "parts": [1, 2]}
        try:
            metrics_store.record_many(run_id, MappingProxyType(numbers), 1, metadata)
        except Unsupported:
            metadata, kept = {}, {}
            metrics_store.record_many(run_id, MappingProxyType(numbers), 1, metadata)
        metrics_store.record_many(run_id, numbers, 2, metadata)
        metrics_store.record(run_id, "a", 3.0, 3, metadata)
        assert (numbers, metadata) == ({"a": 1.0, "b": 2.0}, kept)
        numbers["a"] = 9.0
        numbers["late"] = 9.0
        metadata["late"] = True
        metrics_store.flush(run_id)
        expected = [("a", "1.0", 1), ("b", "2.0", 1), ("a", "1.0", 2), ("b", "2.0", 2)]
        assert rows(metrics_store, run_id) == [*expected, ("a", "3.0", 3)]
        assert [row.metadata for row in metrics_store.read(run_id)] == [kept] * 5
