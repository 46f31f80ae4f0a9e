"""The listing of runs."""

from __future__ import annotations

from ...ports import MetricsStore
from ..conformance import needs, since
from .fixtures import MetricsStoreFixtures


class Runs(MetricsStoreFixtures):
    """`runs`."""

    @needs("runs")
    def test_runs_are_listed_in_order(self, metrics_store: MetricsStore, run_id: str) -> None:
        """`runs` returns the id of every run that has rows, once, sorted as Python sorts text.

        Usually broken by the order of the last change, by a collation, by the first page of many,
        or by names that were made fit for a file.
        """
        ids = [f"{run_id}{name}" for name in ("b", "B", "a", "_", "ü", "/x y", "", "10", "9")]
        for run in ids:
            metrics_store.record(run, "loss", 1.0, 1)
            metrics_store.record(run, "loss", 1.0, 2)
            metrics_store.flush(run)
        found = list(metrics_store.runs())
        assert [run for run in found if run.startswith(run_id)] == sorted(ids)
        assert found == sorted(set(found))

    @since("1.5")
    @needs("runs")
    def test_every_run_that_has_rows_is_listed(
        self, metrics_store: MetricsStore, run_id: str
    ) -> None:
        """A run is listed as soon as `read` returns rows of it: before it is flushed, and though
        none of its rows has a step.

        Usually broken by listing what is stored and not what is held back, and by a query for the
        last step of each run.
        """
        ids = [f"{run_id}-held", f"{run_id}-without"]
        metrics_store.record(ids[0], "loss", 1.0, 1)
        metrics_store.record(ids[1], "note", 1.0)
        assert [run for run in metrics_store.runs() if run.startswith(run_id)] == ids
        for run in ids:
            metrics_store.flush(run)
        assert [run for run in metrics_store.runs() if run.startswith(run_id)] == ids
