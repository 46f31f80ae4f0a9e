"""Metadata and timestamps of entries."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from ...errors import InvalidInput, Unsupported
from ...ports import MetricsStore
from ..refusal import refuses
from .fixtures import MetricsStoreFixtures
from .rows import rows


class Entries(MetricsStoreFixtures):
    """What an entry has besides its value."""

    def test_metadata_comes_back_or_is_unsupported(
        self, metrics_store: MetricsStore, run_id: str
    ) -> None:
        """Metadata, anything that JSON can hold, comes back with its row, as it was when it was
        recorded; a store that cannot keep it raises `Unsupported`, and records nothing. None and
        an empty mapping mean no metadata, and are always fine.

        Usually broken by dropping it silently, or by keeping a reference to the caller's
        mapping.
        """
        metrics_store.record(run_id, "plain", 1.0, 1, {})
        given = {"split": "test", "nested": {"list": [1, 2.5, None, True, "ü🙂"]}, "empty": {}}
        nested: Any = given["nested"]
        try:
            metrics_store.record(run_id, "loss", 1.0, 1, given)
        except Unsupported:
            metrics_store.flush(run_id)
            assert rows(metrics_store, run_id) == [("plain", "1.0", 1)]
            return
        nested["list"].append("changed")
        metrics_store.record(run_id, "later", 1.0, 1, None)
        metrics_store.flush(run_id)
        kept = {"split": "test", "nested": {"list": [1, 2.5, None, True, "ü🙂"]}, "empty": {}}
        plain, loss, later = metrics_store.read(run_id)
        assert (plain.metadata, loss.metadata, later.metadata) == ({}, kept, {})
        loss.metadata["nested"]["list"].clear()
        assert metrics_store.read(run_id)[1].metadata == kept
        metrics_store.record(run_id, "loss", 2.0, 1, {"replaced": True})
        assert metrics_store.read(run_id)[1].metadata == {"replaced": True}

    @pytest.mark.parametrize(
        "value", [object(), math.nan, b"", {1, 2}], ids=["object", "nan", "bytes", "set"]
    )
    def test_metadata_that_json_cannot_hold_is_refused(
        self, metrics_store: MetricsStore, run_id: str, value: Any
    ) -> None:
        """Such metadata is `InvalidInput`, or `Unsupported` like all metadata, at once, and leaves
        no row.

        Usually broken by an encoder that fails at the next flush, or that writes `str(value)`.
        """
        refuses(
            (InvalidInput, Unsupported),
            metrics_store.record,
            run_id,
            "loss",
            1.0,
            1,
            {"key": value},
        )
        metrics_store.flush(run_id)
        assert metrics_store.read(run_id) == []

    def test_timestamps_are_aware_and_in_utc(
        self, metrics_store: MetricsStore, run_id: str
    ) -> None:
        """An entry's timestamp says when it was recorded, in UTC, wherever the machine is.

        Usually broken by `datetime.now()`, which is right only on machines whose clock is UTC, as
        those of the CI are.
        """
        before = datetime.now(UTC)
        with _far_from_utc():
            metrics_store.record(run_id, "loss", 1.0, 1)
            metrics_store.record(run_id, "note", 1.0)
            unflushed = metrics_store.read(run_id)
            metrics_store.flush(run_id)
            flushed = metrics_store.read(run_id)
        after = datetime.now(UTC)
        rounding = timedelta(seconds=1)
        for entry in (*unflushed, *flushed):
            assert entry.timestamp.utcoffset() == timedelta(0), entry
            assert before - rounding <= entry.timestamp <= after + rounding, entry
        assert len(flushed) == len(unflushed) == 2


@contextlib.contextmanager
def _far_from_utc() -> Iterator[None]:
    """Set this process to a time zone 5:30 hours east of UTC, where that is possible."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TZ", "XXX-05:30")
        _tell_the_clock()
        try:
            yield
        finally:
            patch.undo()
            _tell_the_clock()


def _tell_the_clock() -> None:
    if hasattr(time, "tzset"):  # not on Windows
        time.tzset()
