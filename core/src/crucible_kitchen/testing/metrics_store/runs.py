"""The listing of runs."""

from __future__ import annotations

from ...ports import MetricsStore
from ..conformance import needs
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
