"""Several numbers in one call."""

from __future__ import annotations

import math
from typing import Any

from ...errors import InvalidInput, Unsupported
from ...ports import MetricsStore
from ..conformance import needs
from ..refusal import refuses
from .fixtures import MetricsStoreFixtures
from .rows import rows


class RecordMany(MetricsStoreFixtures):
    """`record_many` is `record`, many times."""

    def test_several_numbers_are_recorded_as_one_by_one(
        self, metrics_store: MetricsStore, run_id: str
    ) -> None:
        """`record_many` does what `record` does for each number, in the mapping's order: it
        replaces, it keeps rows without a step apart, and an empty mapping adds no rows.

        Usually broken by a second way to write, with other rules.
        """
        one, many = f"{run_id}-one", f"{run_id}-many"
        calls: list[tuple[dict[str, float], int | None]] = [
            ({"loss": math.nan, "accuracy": 0.5, "grad/norm": math.inf}, 0),
            ({"note": 1, "accuracy": 2.0}, None),
            ({"accuracy": 0.75, "loss": 0.1, "new": -math.inf}, 0),
            ({"note": 1, "accuracy": 2.0}, None),
            ({}, 0),
            ({"loss": 0.2, "accuracy": 0.8}, -1),
        ]
        for metrics, step in calls:
            metrics_store.record_many(many, metrics, step)
            for metric, value in metrics.items():
                metrics_store.record(one, metric, value, step)
        metrics_store.flush(many)
        metrics_store.flush(one)
        assert rows(metrics_store, many) == rows(metrics_store, one)
        assert len(metrics_store.read(many)) == 10
        metrics_store.record_many(run_id, {}, 1)
        metrics_store.flush(run_id)
        assert metrics_store.read(run_id) == []

    def test_several_numbers_share_their_metadata(
        self, metrics_store: MetricsStore, run_id: str
    ) -> None:
        """Every row of `record_many` has the metadata; or it is `Unsupported`, and there are none.

        Usually broken by keeping it with the first.
        """
        try:
            metrics_store.record_many(run_id, {"a": 1.0, "b": 2.0}, 1, {"split": "test"})
        except Unsupported:
            assert metrics_store.read(run_id) == []
            return
        metrics_store.flush(run_id)
        assert [row.metadata for row in metrics_store.read(run_id)] == [{"split": "test"}] * 2

    @needs("record_many")
    def test_several_numbers_of_which_one_is_none_are_refused(
        self, metrics_store: MetricsStore, run_id: str
    ) -> None:
        """`InvalidInput` says that nothing was done: none of the numbers is recorded.

        Usually broken by checking each number when its turn comes.
        """
        numbers: Any = {"a": 1.0, "b": "2.0", "c": 3.0}
        refuses(InvalidInput, metrics_store.record_many, run_id, numbers, 1)
        metrics_store.flush(run_id)
        assert metrics_store.read(run_id) == []
