"""Rows that were recorded are read."""

from __future__ import annotations

import math

from ...ports import MetricsStore
from ..conformance import Reopen, unless_synthetic
from .fixtures import MetricsStoreFixtures, Stored
from .rows import rows


class Recording(MetricsStoreFixtures):
    """What goes in comes out."""

    def test_what_was_recorded_is_read(self, metrics_store: MetricsStore, run_id: str) -> None:
        """An entry has the run, the metric, the value and the step that `record` was given; the
        value is a `float` and the step an `int`.

        Usually broken by a value that is a string, a `Decimal` or a numpy scalar when it is read.
        """
        metrics_store.record(run_id, "loss", 0.25, 7)
        metrics_store.flush(run_id)
        [entry] = metrics_store.read(run_id)
        assert (entry.run_id, entry.metric) == (run_id, "loss")
        assert (entry.value, entry.step) == (0.25, 7)
        assert (type(entry.value), type(entry.step)) == (float, int)
        assert entry.metadata == {}

    def test_what_was_flushed_is_stored(
        self, metrics_store: MetricsStore, run_id: str, stored: Stored | None
    ) -> None:
        """When `flush` returns, the backend has every row of the run, and the last value of those
        that were recorded again.

        Usually broken by a `flush` that starts a write and does not wait for it.
        """
        look_up = self.given(stored, "stored")
        for step in range(20):
            metrics_store.record(run_id, "loss", step / 7, step)
        metrics_store.record(run_id, "loss", 0.5, 3)
        metrics_store.flush(run_id)
        expected = {("loss", step): step / 7 for step in range(20)} | {("loss", 3): 0.5}
        assert look_up(run_id) == expected

    def test_rows_that_are_not_flushed_are_read(
        self, metrics_store: MetricsStore, run_id: str
    ) -> None:
        """`read` returns what this process has recorded, though it was never flushed, and
        rows that replace others.

        Usually broken by a batch that is held back: the end of a workflow reads a history without
        its last steps.
        """
        metrics_store.record(run_id, "loss", 1.0, 1)
        assert rows(metrics_store, run_id) == [("loss", "1.0", 1)]
        metrics_store.flush(run_id)
        metrics_store.record(run_id, "loss", 3.0, 1)
        metrics_store.record(run_id, "loss", 2.0, 2)
        assert rows(metrics_store, run_id) == [("loss", "3.0", 1), ("loss", "2.0", 2)]

    @unless_synthetic
    def test_another_process_reads_what_was_flushed(
        self, metrics_store: MetricsStore, run_id: str, reopen: Reopen[MetricsStore] | None
    ) -> None:
        """After `flush`, a process that opens the store under the same options reads the rows, in
        their order; so does one that has it open already.

        Usually broken by a transaction that is not committed, or by a reader that keeps what it
        has read before.
        """
        another = self.given(reopen, "reopen")
        with another() as early:
            assert early.read(run_id) == []
            metrics_store.record_many(run_id, {"loss": 1.0, "accuracy": math.nan}, 1)
            metrics_store.record(run_id, "note", math.inf)
            metrics_store.flush(run_id)
            expected = [("loss", "1.0", 1), ("accuracy", "nan", 1), ("note", "inf", None)]
            assert rows(early, run_id) == expected
            metrics_store.record(run_id, "loss", 0.5, 1)
            metrics_store.flush(run_id)
            expected[0] = ("loss", "0.5", 1)
            assert rows(early, run_id) == expected
            with another() as late:
                assert rows(late, run_id) == expected
                if late.supports("runs"):
                    assert run_id in late.runs()

    def test_many_rows_are_all_read(self, metrics_store: MetricsStore, run_id: str) -> None:
        """All of many rows of a run come back, in order.

        Usually broken by taking the first of several pages for all, or by a backend that thins
        out a long history for its charts.
        """
        for step in range(self.more_than_a_page):
            metrics_store.record(run_id, "loss", step / 3, step)
        metrics_store.flush(run_id)
        expected = [("loss", repr(step / 3), step) for step in range(self.more_than_a_page)]
        assert rows(metrics_store, run_id) == expected
