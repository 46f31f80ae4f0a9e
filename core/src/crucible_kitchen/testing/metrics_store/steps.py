"""One row for a run, a metric and a step."""

from __future__ import annotations

import contextlib
import math
from typing import Any

import pytest

from ...calls.synthetic import synthetic
from ...errors import InvalidInput, Unsupported
from ...ports import MetricsStore
from ..conformance import Reopen, since
from ..refusal import refuses
from .fixtures import MetricsStoreFixtures
from .rows import Row, rows


class Steps(MetricsStoreFixtures):
    """Steps, replacing, and rows without a step."""

    @pytest.mark.parametrize("step", [1.5, "1", math.nan, [1]], ids=repr)
    def test_a_step_that_is_no_integer_is_refused(
        self, metrics_store: MetricsStore, run_id: str, step: Any
    ) -> None:
        """A step that is not an integer is `InvalidInput`, and leaves no row.

        Usually broken by `int(step)`: the epochs 1.25 and 1.5 become one row.
        """
        refuses(InvalidInput, metrics_store.record, run_id, "loss", 1.0, step)
        metrics_store.flush(run_id)
        assert metrics_store.read(run_id) == []

    def test_any_integer_is_a_step(self, metrics_store: MetricsStore, run_id: str) -> None:
        """Steps are 0, negative and beyond 32 bits, each a separate row that is exact and can be
        replaced.

        Usually broken by `if step:`, for which step 0 is no step, by a column of 32 bits, or by
        steps that are floats, in which 2**53 + 1 is 2**53.
        """
        steps = [0, 1, -1, -1000, 2**31, 2**40, 2**53, 2**53 + 1]
        for value in (1.0, 2.0):
            for step in steps:
                metrics_store.record(run_id, "loss", value, step)
            metrics_store.flush(run_id)
            expected = [("loss", repr(value), step) for step in steps]
            assert rows(metrics_store, run_id) == expected

    @since("1.5")
    def test_a_step_of_any_size_is_exact_or_refused(
        self, metrics_store: MetricsStore, run_id: str
    ) -> None:
        """A step that the store cannot keep, such as one beyond 64 bits, is `InvalidInput` or
        `Unsupported` at once; every other comes back exact, and is a row of its own.

        Usually broken by a bound to which larger steps are set, by steps that wrap around, and by
        an integer that overflows when rows are flushed, with all rows that wait with it.
        """
        kept: list[Row] = [("loss", "0.0", 1)]
        metrics_store.record(run_id, "loss", 0.0, 1)
        for size in (2**62, 2**63 - 2, 2**63 - 1, 2**63, 2**64 + 1, 2**100):
            for step in (size, -size):
                try:
                    metrics_store.record(run_id, "loss", 1.0, step)
                except (InvalidInput, Unsupported):
                    continue
                kept.append(("loss", "1.0", step))
        metrics_store.flush(run_id)
        assert rows(metrics_store, run_id) == kept

    def test_steps_may_come_late_and_go_backwards(
        self, metrics_store: MetricsStore, run_id: str
    ) -> None:
        """A step below earlier ones is recorded like any other, even after a flush; `read`
        returns rows in the order in which they were first recorded.

        Usually broken by backends whose steps may only grow: an evaluation that is done later is
        thrown away, with a warning at best. A sort by step hides what came when.
        """
        steps = [5, 3, 9, 0, 4]
        for step in steps:
            metrics_store.record(run_id, "loss", float(step), step)
        metrics_store.flush(run_id)
        for step in (8, 1):
            metrics_store.record(run_id, "loss", float(step), step)
        metrics_store.flush(run_id)
        expected = [("loss", repr(float(step)), step) for step in (*steps, 8, 1)]
        assert rows(metrics_store, run_id) == expected

    def test_recording_again_replaces(self, metrics_store: MetricsStore, run_id: str) -> None:
        """There is one row for a run, metric and step, with the value that was recorded last,
        whether the rows were flushed between or not. An equal value again changes nothing.

        Usually broken by backends that keep a history, and by a "last" that is the largest, or
        the one of a later clock tick.
        """
        for value in (3.0, 1.0, 2.0):
            metrics_store.record(run_id, "loss", value, 1)
        assert rows(metrics_store, run_id) == [("loss", "2.0", 1)]
        for value in (9.0, math.nan, 0.5, 0.5, 3.0):
            metrics_store.record(run_id, "loss", value, 1)
            metrics_store.flush(run_id)
            assert rows(metrics_store, run_id) == [("loss", repr(value), 1)]

    def test_a_replaced_row_stays_in_its_place(
        self, metrics_store: MetricsStore, run_id: str
    ) -> None:
        """The order is that of first recording, over all metrics: a row that is recorded again
        stays where it was.

        Usually broken by `DELETE` and `INSERT`, by a sort by metric, or by the time of the last
        write.
        """
        for metric, step in (("b", 2), ("a", 1), ("c", 1), ("a", 2)):
            metrics_store.record(run_id, metric, 1.0, step)
        metrics_store.record(run_id, "b", 2.0, 2)
        metrics_store.flush(run_id)
        metrics_store.record(run_id, "a", 3.0, 1)
        expected = [("b", "2.0", 2), ("a", "3.0", 1), ("c", "1.0", 1), ("a", "1.0", 2)]
        assert rows(metrics_store, run_id) == expected
        metrics_store.flush(run_id)
        assert rows(metrics_store, run_id) == expected

    def test_without_a_step_each_call_is_a_row(
        self, metrics_store: MetricsStore, run_id: str
    ) -> None:
        """Rows without a step never replace one another, even if equal, nor the row of step 0.

        Usually broken by a key in which no step is step 0, and by a backend that keeps one of two
        equal rows.
        """
        values = [1.0, 2.0, 1.0, 1.0]
        for value in values:
            metrics_store.record(run_id, "note", value)
        metrics_store.record(run_id, "note", 5.0, 0)
        metrics_store.flush(run_id)
        metrics_store.record(run_id, "note", 1.0)
        expected: list[Row] = [("note", repr(value), None) for value in values]
        expected += [("note", "5.0", 0), ("note", "1.0", None)]
        assert rows(metrics_store, run_id) == expected

    def test_a_run_that_is_resumed_leaves_no_duplicates(
        self, metrics_store: MetricsStore, run_id: str, reopen: Reopen[MetricsStore] | None
    ) -> None:
        """A run that crashed and goes on from an earlier checkpoint records some steps again: they
        have one row each, with the later value. With `reopen` it goes on in another process.

        Usually broken by a key that is known only to the process that recorded it.
        """
        for step in range(10):
            metrics_store.record_many(run_id, {"loss": 1.0, "accuracy": 0.5}, step)
        metrics_store.flush(run_id)
        goes_on_here = reopen is None or synthetic(metrics_store)
        resumed = contextlib.nullcontext(metrics_store) if goes_on_here else reopen()  # type: ignore[misc]
        with resumed as store:
            for step in range(6, 14):
                store.record_many(run_id, {"loss": 2.0, "accuracy": 0.75}, step)
            store.flush(run_id)
            expected = [
                row
                for step in range(14)
                for row in (
                    ("loss", "1.0" if step < 6 else "2.0", step),
                    ("accuracy", "0.5" if step < 6 else "0.75", step),
                )
            ]
            assert rows(store, run_id) == expected
        assert rows(metrics_store, run_id) == expected
