"""Metadata and timestamps of entries."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import hypothesis
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ...errors import InvalidInput, Unsupported
from ...ports import MetricsStore
from ..conformance import since
from ..refusal import refuses
from .fixtures import MetricsStoreFixtures
from .rows import rows

PLAIN = (
    st.none()
    | st.booleans()
    | st.integers(-(2**62), 2**62)
    | st.floats(allow_nan=False, allow_infinity=False).map(lambda number: number + 0.0)
    | st.text(st.characters(exclude_categories=["C"]), max_size=5)
)
KEYS = st.text(st.characters(exclude_categories=["C"]), max_size=5)
METADATA = st.dictionaries(
    KEYS,
    st.recursive(
        PLAIN, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3)
    ),
    max_size=4,
)
"""What JSON can hold: -0.0 is left out, which some encoders write as 0."""


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

    @since("1.5")
    def test_any_metadata_comes_back(self, metrics_store: MetricsStore, run_id: str) -> None:
        """Whatever JSON can hold comes back, of the same types: None, nested empty values, integers
        beyond 2**53, and a text of many thousand characters.

        Usually broken by leaving None out, by columns for what is flat and text for the rest, by
        floats in place of integers, and by a column that cuts.
        """
        try:
            metrics_store.record(run_id, "probe", 1.0, 1, {"key": "value"})
        except Unsupported:
            pytest.skip("keeps no metadata, and says so")
        kept: list[Any] = [{"key": "value"}]

        @self.hypothesis_settings()
        @given(METADATA)
        @hypothesis.example({"none": None, "true": True, "one": 1, "large": 2**53 + 1, "1.0": 1.0})
        @hypothesis.example({"long": "x" * 20_000, "nested": {"": {"a": [{}, [], None]}}})
        def check(metadata: dict[str, Any]) -> None:
            metrics_store.record(run_id, "loss", 1.0, len(kept), metadata)
            kept.append(metadata)
            found = metrics_store.read(run_id)[-1].metadata
            assert (found, repr(_typed(found))) == (metadata, repr(_typed(metadata)))

        check()
        metrics_store.flush(run_id)
        assert [row.metadata for row in metrics_store.read(run_id)] == kept

    @since("1.5")
    def test_a_row_that_replaces_says_when_it_was_recorded(
        self, metrics_store: MetricsStore, run_id: str
    ) -> None:
        """The timestamp of a row that was recorded again is that of the last time.

        Usually broken by an update of the value alone: a resumed run looks as if it had been
        done before it began.
        """
        metrics_store.record(run_id, "loss", 1.0, 1)
        [first] = metrics_store.read(run_id)
        begun = time.monotonic()
        later = first
        # As often as it takes: the backend may count in seconds.
        while later.timestamp <= first.timestamp and time.monotonic() < begun + 3:
            metrics_store.record(run_id, "loss", 2.0, 1)
            [later] = metrics_store.read(run_id)
        assert later.timestamp > first.timestamp
        assert later.value == 2.0

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


def _typed(value: Any) -> Any:
    """Return a value with the types of its numbers, and its keys in order."""
    if isinstance(value, Mapping):
        return {name: _typed(value[name]) for name in sorted(value)}
    if isinstance(value, list):
        return [_typed(item) for item in value]
    return (type(value).__name__, value)


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
