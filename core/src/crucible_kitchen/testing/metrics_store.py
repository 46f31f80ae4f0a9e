"""What a metrics store promises."""

from __future__ import annotations

import contextlib
import math
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar, TypeAlias

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule, run_state_machine_as_test

from ..errors import InvalidInput, Unsupported
from ..ports import MetricsStore
from .conformance import Conformance, needs, synthetic, unless_synthetic

Reopen: TypeAlias = Callable[[], contextlib.AbstractContextManager[MetricsStore]]
Stored: TypeAlias = Callable[[str], Mapping[tuple[str, int], float]]


class MetricsStoreConformance(Conformance):
    """Tests of a metrics store. Override the fixture `metrics_store`, and `reopen` and `stored` if
    you can. Every test has runs of its own, which stay, since a metrics store cannot delete.
    """

    port = MetricsStore
    names: ClassVar[tuple[str, ...]] = (
        "plain",
        "train/mean_nll",
        "with space",
        "a.b.c",
        "naïve-Übung-数据-🙂",
        "percent%20and%2F",
        "plus+and&and=and#and?",
        "quote'and\"and`",
        "[bracket]*{brace}",
        "back\\slash",
        "colon:at@and,comma;",
        "$.path",
        "../../outside",
    )
    """What names of metrics and ids of runs must be able to hold."""
    more_than_a_page: ClassVar[int] = 1050
    """How many rows no backend writes in one batch, or reads in one page."""

    @pytest.fixture
    def metrics_store(self) -> Any:
        """The adapter, bound. Required: `bound("metrics_store", <name or module>, ...)`."""
        raise NotImplementedError(
            "give the fixture `metrics_store`, which yields the adapter to be tested; "
            "crucible_kitchen.testing.bound makes one"
        )

    @pytest.fixture
    def reopen(self) -> Reopen | None:
        """A function that binds the adapter once more, under equal options, as another process
        would. Optional.
        """
        return None

    @pytest.fixture
    def stored(self) -> Stored | None:
        """A function that looks up a run around the adapter: the value that counts for each
        (metric, step), without the rows that have no step. Optional: with it the kit does not have
        to believe the adapter's own `read`.
        """
        return None

    @pytest.fixture
    def run_id(self) -> str:
        """A run that no other test records to."""
        return f"conformance-{uuid.uuid4().hex}"

    # --- what goes in comes out ---

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
        if stored is None:
            pytest.skip("the fixture `stored` is not given")
        for step in range(20):
            metrics_store.record(run_id, "loss", step / 7, step)
        metrics_store.record(run_id, "loss", 0.5, 3)
        metrics_store.flush(run_id)
        expected = {("loss", step): step / 7 for step in range(20)} | {("loss", 3): 0.5}
        assert stored(run_id) == expected

    def test_rows_that_are_not_flushed_are_read(
        self, metrics_store: MetricsStore, run_id: str
    ) -> None:
        """`read` returns what this process has recorded, though it was never flushed; rows that
        replace others too.

        Usually broken by a batch that is held back: the end of a workflow reads a history without
        its last steps.
        """
        metrics_store.record(run_id, "loss", 1.0, 1)
        assert _rows(metrics_store, run_id) == [("loss", "1.0", 1)]
        metrics_store.flush(run_id)
        metrics_store.record(run_id, "loss", 3.0, 1)
        metrics_store.record(run_id, "loss", 2.0, 2)
        assert _rows(metrics_store, run_id) == [("loss", "3.0", 1), ("loss", "2.0", 2)]

    @unless_synthetic
    def test_another_process_reads_what_was_flushed(
        self, metrics_store: MetricsStore, run_id: str, reopen: Reopen | None
    ) -> None:
        """After `flush`, whoever opens the store under the same options reads the rows, in their
        order; who has it open already, too.

        Usually broken by a transaction that is not committed, or by a reader that keeps what it
        has read before.
        """
        if reopen is None:
            pytest.skip("the fixture `reopen` is not given")
        with reopen() as early:
            assert early.read(run_id) == []
            metrics_store.record_many(run_id, {"loss": 1.0, "accuracy": math.nan}, 1)
            metrics_store.record(run_id, "note", math.inf)
            metrics_store.flush(run_id)
            expected = [("loss", "1.0", 1), ("accuracy", "nan", 1), ("note", "inf", None)]
            assert _rows(early, run_id) == expected
            metrics_store.record(run_id, "loss", 0.5, 1)
            metrics_store.flush(run_id)
            expected[0] = ("loss", "0.5", 1)
            assert _rows(early, run_id) == expected
            with reopen() as late:
                assert _rows(late, run_id) == expected
                if late.supports("runs"):
                    assert run_id in late.runs()

    def test_many_rows_are_all_read(self, metrics_store: MetricsStore, run_id: str) -> None:
        """All of many rows of a run come back, in order.

        Usually broken by a backend that answers in pages, of which the first is taken for all, or
        that thins out a long history for its charts.
        """
        for step in range(self.more_than_a_page):
            metrics_store.record(run_id, "loss", step / 3, step)
        metrics_store.flush(run_id)
        expected = [("loss", repr(step / 3), step) for step in range(self.more_than_a_page)]
        assert _rows(metrics_store, run_id) == expected

    # --- values ---

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
        assert _rows(metrics_store, run_id) == expected

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
        assert _rows(metrics_store, run_id) == [("loss", repr(value), 1)]

    def test_the_largest_float_comes_back(self, metrics_store: MetricsStore, run_id: str) -> None:
        """The largest floats, of either sign, are no infinities.

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
        assert _rows(metrics_store, run_id) == [("loss", "-0.0", 1)]

    def test_any_float_comes_back(self, metrics_store: MetricsStore, run_id: str) -> None:
        """Whatever float a value is, it comes back exact.

        Usually broken by printing it with a fixed number of digits.
        """
        recorded: list[tuple[str, str, int | None]] = []

        @self.hypothesis_settings()
        @given(st.lists(_values, min_size=1, max_size=10))
        def check(values: list[float]) -> None:
            for value in values:
                recorded.append(("loss", repr(value), len(recorded)))
                metrics_store.record(run_id, "loss", value, len(recorded) - 1)
            assert _rows(metrics_store, run_id) == recorded

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
        with pytest.raises(InvalidInput):
            metrics_store.record(run_id, "loss", value, 1)
        metrics_store.flush(run_id)
        assert metrics_store.read(run_id) == []
        metrics_store.record(run_id, "loss", 1.0, 1)
        with pytest.raises(InvalidInput):
            metrics_store.record(run_id, "loss", value, 1)
        assert _rows(metrics_store, run_id) == [("loss", "1.0", 1)]

    # --- steps ---

    @pytest.mark.parametrize("step", [1.5, "1", math.nan, [1]], ids=repr)
    def test_a_step_that_is_no_integer_is_refused(
        self, metrics_store: MetricsStore, run_id: str, step: Any
    ) -> None:
        """A step that is no integer is `InvalidInput`, and leaves no row.

        Usually broken by `int(step)`: the epochs 1.25 and 1.5 become one row.
        """
        with pytest.raises(InvalidInput):
            metrics_store.record(run_id, "loss", 1.0, step)
        metrics_store.flush(run_id)
        assert metrics_store.read(run_id) == []

    def test_any_integer_is_a_step(self, metrics_store: MetricsStore, run_id: str) -> None:
        """Steps are 0, negative and beyond 32 bits, each a row of its own that is exact and can be
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
            assert _rows(metrics_store, run_id) == expected

    def test_steps_may_come_late_and_go_backwards(
        self, metrics_store: MetricsStore, run_id: str
    ) -> None:
        """A step below those of earlier is recorded like any other, after a flush too; `read`
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
        assert _rows(metrics_store, run_id) == expected

    def test_recording_again_replaces(self, metrics_store: MetricsStore, run_id: str) -> None:
        """There is one row for a run, metric and step, with the value that was recorded last,
        whether the rows were flushed between or not. An equal value again changes nothing.

        Usually broken by backends that keep a history, and by a "last" that is the largest, or
        the one of a later clock tick.
        """
        for value in (3.0, 1.0, 2.0):
            metrics_store.record(run_id, "loss", value, 1)
        assert _rows(metrics_store, run_id) == [("loss", "2.0", 1)]
        for value in (9.0, math.nan, 0.5, 0.5, 3.0):
            metrics_store.record(run_id, "loss", value, 1)
            metrics_store.flush(run_id)
            assert _rows(metrics_store, run_id) == [("loss", repr(value), 1)]

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
        assert _rows(metrics_store, run_id) == expected
        metrics_store.flush(run_id)
        assert _rows(metrics_store, run_id) == expected

    def test_without_a_step_each_call_is_a_row(
        self, metrics_store: MetricsStore, run_id: str
    ) -> None:
        """Rows without a step never replace one another, equal ones neither, nor the row of step 0.

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
        assert _rows(metrics_store, run_id) == expected

    def test_a_run_that_is_resumed_leaves_no_duplicates(
        self, metrics_store: MetricsStore, run_id: str, reopen: Reopen | None
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
            assert _rows(store, run_id) == expected
        assert _rows(metrics_store, run_id) == expected

    # --- names ---

    def test_any_name_of_a_metric_works(self, metrics_store: MetricsStore, run_id: str) -> None:
        """Names of metrics come back as they were, whatever characters they have.

        Usually broken by backends that allow few characters, and by replacing the others.
        """
        for name in self.names:
            metrics_store.record(run_id, name, 1.0, 1)
        metrics_store.flush(run_id)
        assert _rows(metrics_store, run_id) == [(name, "1.0", 1) for name in self.names]

    def test_any_id_of_a_run_works(self, metrics_store: MetricsStore, run_id: str) -> None:
        """A run id may have any characters, those of paths too, and its run is found again by it.

        Usually broken by a file that is named after the run, or a query made of text.
        """
        for number, name in enumerate(self.names):
            metrics_store.record(f"{run_id}{name}", "loss", float(number), 1)
            metrics_store.flush(f"{run_id}{name}")
        for number, name in enumerate(self.names):
            [entry] = metrics_store.read(f"{run_id}{name}")
            assert (entry.run_id, entry.value) == (f"{run_id}{name}", float(number))

    def test_any_text_is_a_metric(self, metrics_store: MetricsStore, run_id: str) -> None:
        """Any printable Unicode names a metric.

        Usually broken by normalising Unicode, or folding the case, of names.
        """
        recorded: dict[str, Row] = {}
        text = st.text(st.characters(exclude_categories=("C", "Z")), min_size=1, max_size=15)

        @self.hypothesis_settings()
        @given(st.lists(text, min_size=1, max_size=4))
        def check(names: list[str]) -> None:
            for name in names:
                metrics_store.record(run_id, name, 1.0, 1)
                recorded[name] = (name, "1.0", 1)
            assert _rows(metrics_store, run_id) == list(recorded.values())

        check()

    @pytest.mark.parametrize(
        ("first", "second"),
        [
            ("", "0"),
            ("a", "A"),
            ("a", "a "),
            ("_", "x"),
            ("%", "xy"),
            ("*", "x"),
            ("/a", "_a"),
            ("/a", "%2fa"),
            ("\u00e9", "e\u0301"),
        ],
        ids=[
            "prefix",
            "case",
            "space",
            "underscore",
            "percent",
            "star",
            "slash",
            "escape",
            "accent",
        ],
    )
    def test_names_that_are_alike_are_two(
        self, metrics_store: MetricsStore, run_id: str, first: str, second: str
    ) -> None:
        """Runs are separate, and so are metrics, also where one name begins with the other, where
        they differ in case only, or by characters that mean something to a query or a path.

        Usually broken by `LIKE`, by a prefix, by file systems and collations that ignore case, and
        by replacing what a path cannot hold.
        """
        one, two = f"{run_id}{first}", f"{run_id}{second}"
        for value, run in ((1.0, one), (2.0, two)):
            metrics_store.record(run, f"loss{first}", value, 1)
            metrics_store.record(run, f"loss{second}", -value, 1)
            metrics_store.flush(run)
        for value, run in ((1.0, one), (2.0, two)):
            assert {entry.run_id for entry in metrics_store.read(run)} == {run}
            assert _rows(metrics_store, run) == [
                (f"loss{first}", repr(value), 1),
                (f"loss{second}", repr(-value), 1),
            ]

    def test_an_unknown_run_has_no_rows(self, metrics_store: MetricsStore, run_id: str) -> None:
        """`read` of a run that was never recorded to is an empty list, and flushing it is fine;
        neither makes a run.

        Usually broken by the backend's "not found", or by making a run in order to look at it.
        """
        metrics_store.record(f"{run_id}-known", "loss", 1.0, 1)
        assert metrics_store.read(run_id) == []
        metrics_store.flush(run_id)
        assert metrics_store.read(run_id) == []
        if metrics_store.supports("runs"):
            assert run_id not in metrics_store.runs()

    def test_flushing_one_run_keeps_the_rows_of_another(
        self, metrics_store: MetricsStore, run_id: str
    ) -> None:
        """Rows of a run that is not flushed stay, whatever happens to others; flushing twice is
        fine.

        Usually broken by one buffer for all runs, which is emptied when one is written.
        """
        one, two = f"{run_id}-1", f"{run_id}-2"
        metrics_store.record(one, "loss", 1.0, 1)
        metrics_store.record(two, "loss", 2.0, 1)
        metrics_store.flush(one)
        metrics_store.flush(one)
        metrics_store.record(one, "loss", 3.0, 2)
        metrics_store.flush(two)
        assert _rows(metrics_store, one) == [("loss", "1.0", 1), ("loss", "3.0", 2)]
        assert _rows(metrics_store, two) == [("loss", "2.0", 1)]

    # --- metadata and time ---

    def test_metadata_comes_back_or_is_unsupported(
        self, metrics_store: MetricsStore, run_id: str
    ) -> None:
        """Metadata, anything that JSON can hold, comes back with its row, as it was when it was
        recorded; who cannot keep it says so by `Unsupported`, and records nothing. None and an
        empty mapping are no metadata, and always fine.

        Usually broken by dropping it in silence, or by keeping a reference to the caller's
        mapping.
        """
        metrics_store.record(run_id, "plain", 1.0, 1, {})
        given = {"split": "test", "nested": {"list": [1, 2.5, None, True, "ü🙂"]}, "empty": {}}
        nested: Any = given["nested"]
        try:
            metrics_store.record(run_id, "loss", 1.0, 1, given)
        except Unsupported:
            metrics_store.flush(run_id)
            assert _rows(metrics_store, run_id) == [("plain", "1.0", 1)]
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
        with pytest.raises((InvalidInput, Unsupported)):
            metrics_store.record(run_id, "loss", 1.0, 1, {"key": value})
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

    # --- several at once ---

    def test_many_threads_lose_nothing(self, metrics_store: MetricsStore, run_id: str) -> None:
        """Sixteen threads record to one run: every row is there, none twice, the rows of a thread
        in its order; a thread reads at once what it has recorded itself.

        Usually broken by a buffer without a lock, or by a flush that empties it while another
        thread adds to it.
        """
        threads, each = 16, 120  # fewer are done before they come between one another
        start = threading.Barrier(threads)

        def work(thread: int) -> None:
            start.wait()
            for number in range(each):
                step = None if number % 4 == 3 else number
                metrics_store.record(run_id, f"thread {thread}", float(number), step)
                if number % 32 == 2 * thread:  # not all of them at one time
                    metrics_store.flush(run_id)
            if thread % 4 == 0:
                assert mine(thread) == [float(number) for number in range(each)]

        def mine(thread: int) -> list[float]:
            rows = metrics_store.read(run_id)
            return [row.value for row in rows if row.metric == f"thread {thread}"]

        with _threads_that_alternate(), ThreadPoolExecutor(threads) as pool:
            list(pool.map(work, range(threads)))
        metrics_store.flush(run_id)
        found: dict[str, list[float]] = {}
        for row in metrics_store.read(run_id):
            found.setdefault(row.metric, []).append(row.value)
        expected = [float(number) for number in range(each)]
        assert found == {f"thread {thread}": expected for thread in range(threads)}

    @unless_synthetic
    def test_two_writers_at_once_lose_nothing(
        self, metrics_store: MetricsStore, run_id: str, reopen: Reopen | None
    ) -> None:
        """Two that have the store open record to one run, which both begin: every row of both is
        there, and a step that both record has one row.

        Usually broken by a lock that nobody waits for, by rewriting the whole file, or by two runs
        of the same id of which one is found.
        """
        if reopen is None:
            pytest.skip("the fixture `reopen` is not given")
        each = 40
        with reopen() as other:
            start = threading.Barrier(2)

            def work(writer: int, store: MetricsStore) -> None:
                start.wait()
                for step in range(each):
                    store.record(run_id, f"writer {writer}", float(step), step)
                    store.record(run_id, "both", float(writer), step)
                    store.record(run_id, "note", float(writer))
                    if step % 10 == 0:
                        store.flush(run_id)
                store.flush(run_id)

            with _threads_that_alternate(), ThreadPoolExecutor(2) as pool:
                list(pool.map(work, (0, 1), (metrics_store, other)))
            for store in (metrics_store, other):
                rows = store.read(run_id)
                for writer in (0, 1):
                    steps = [row.step for row in rows if row.metric == f"writer {writer}"]
                    assert steps == list(range(each))
                    notes = [row for row in rows if (row.metric, row.value) == ("note", writer)]
                    assert len(notes) == each
                both = sorted(row.step or 0 for row in rows if row.metric == "both")
                assert both == list(range(each))

    # --- record_many and runs ---

    def test_several_numbers_are_recorded_as_one_by_one(
        self, metrics_store: MetricsStore, run_id: str
    ) -> None:
        """`record_many` does what `record` does for each number, in the mapping's order: it
        replaces, it keeps rows without a step apart, and no numbers are no rows.

        Usually broken by a second way to write, with rules of its own.
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
        assert _rows(metrics_store, many) == _rows(metrics_store, one)
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
        with pytest.raises(InvalidInput):
            metrics_store.record_many(run_id, numbers, 1)
        metrics_store.flush(run_id)
        assert metrics_store.read(run_id) == []

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

    # --- any sequence of calls ---

    def test_any_sequence_of_calls_does_what_a_dictionary_does(
        self, metrics_store: MetricsStore, run_id: str
    ) -> None:
        """Whatever is recorded, flushed and read, in whatever order, a run is what a dictionary
        of (metric, step) would be, with a key of its own for each row without a step.

        Usually broken by rows that are held back and rows that are written, put together wrongly.
        """

        class Machine(RuleBasedStateMachine):
            def __init__(self) -> None:
                super().__init__()
                root = f"{run_id}-{uuid.uuid4().hex}"
                self.runs = [f"{root}a", f"{root}A"]
                self.model: list[dict[Any, Row]] = [{}, {}]

            def expect(self, run: int, metric: str, value: float, step: int | None) -> None:
                key = object() if step is None else (metric, step)
                self.model[run][key] = (metric, repr(float(value)), step)

            @rule(run=_run, metric=_metrics, value=_values, step=_steps)
            def record(self, run: int, metric: str, value: float, step: int | None) -> None:
                metrics_store.record(self.runs[run], metric, value, step)
                self.expect(run, metric, value, step)

            @rule(run=_run, numbers=st.dictionaries(_metrics, _values, max_size=3), step=_steps)
            def record_many(self, run: int, numbers: dict[str, float], step: int | None) -> None:
                metrics_store.record_many(self.runs[run], numbers, step)
                for metric, value in numbers.items():
                    self.expect(run, metric, value, step)

            @rule(run=_run, metric=_metrics, step=_steps)
            def fail_to_record(self, run: int, metric: str, step: int | None) -> None:
                nothing: Any = None
                with pytest.raises(InvalidInput):
                    metrics_store.record(self.runs[run], metric, nothing, step)

            @rule(run=_run)
            def flush(self, run: int) -> None:
                metrics_store.flush(self.runs[run])

            @rule(run=_run)
            def read(self, run: int) -> None:
                assert _rows(metrics_store, self.runs[run]) == list(self.model[run].values())

            def teardown(self) -> None:
                for run, rows in zip(self.runs, self.model, strict=True):
                    metrics_store.flush(run)
                    assert _rows(metrics_store, run) == list(rows.values())

        run_state_machine_as_test(
            Machine, settings=self.hypothesis_settings(stateful_step_count=12)
        )


Row: TypeAlias = tuple[str, str, int | None]
"""Metric, value as Python writes it (NaN equals itself then), step."""

_run = st.sampled_from([0, 1])
_metrics = st.sampled_from(["loss", "Loss", "test/ü"])
_steps = st.none() | st.sampled_from([0, 1, 2, -1])
# -0.0 and the largest floats have promises of their own.
_values = (
    st.floats()
    .map(lambda value: value + 0.0)
    .filter(lambda value: abs(value) != sys.float_info.max)
)


def _rows(store: MetricsStore, run_id: str) -> list[Row]:
    return [(entry.metric, repr(entry.value), entry.step) for entry in store.read(run_id)]


@contextlib.contextmanager
def _threads_that_alternate() -> Iterator[None]:
    """Let threads take turns all the time, so that one comes between any two steps of another."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        yield
    finally:
        sys.setswitchinterval(interval)


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
