"""Names of metrics and ids of runs."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ...errors import InvalidInput, Unsupported
from ...ports import MetricsStore
from ..conformance import since
from .fixtures import MetricsStoreFixtures
from .rows import Row, rows

ODD = (
    *("", " ", ".", "..", "~", "/", "a/", "/a", "a//b", "a/./b", " a", "a\t", "a\nb", "a\r\nb"),
    *("007", "7", "7.0", "1e5", "nan", "null", "None", "true", "-0", "\x00", "a\x00b", "\x1b[31m"),
    *("\ud83d", "\ufeffa", "\u202ea", "e\u0301", "CON", "con.", "<b>", "&amp;", "${HOME}", "{}"),
    *("x" * 254 + "a", "x" * 254 + "b", "\u00fc" * 300, "y" * 5000 + "a", "y" * 5000 + "b"),
)
"""Names that some backend cannot keep, or takes for another."""


class Names(MetricsStoreFixtures):
    """Any name works, and no two names are one."""

    def test_any_name_of_a_metric_works(self, metrics_store: MetricsStore, run_id: str) -> None:
        """Names of metrics come back as they were, whatever characters they have.

        Usually broken by backends that allow few characters, and by replacing the others.
        """
        for name in self.names:
            metrics_store.record(run_id, name, 1.0, 1)
        metrics_store.flush(run_id)
        assert rows(metrics_store, run_id) == [(name, "1.0", 1) for name in self.names]

    def test_any_id_of_a_run_works(self, metrics_store: MetricsStore, run_id: str) -> None:
        """A run id may have any characters, even those of paths, and its run is found again by it.

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
            assert rows(metrics_store, run_id) == list(recorded.values())

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
        """Runs are separate, and so are metrics, even where one name begins with the other, where
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
            assert rows(metrics_store, run) == [
                (f"loss{first}", repr(value), 1),
                (f"loss{second}", repr(-value), 1),
            ]

    def test_an_unknown_run_has_no_rows(self, metrics_store: MetricsStore, run_id: str) -> None:
        """`read` of a run that was never recorded to is an empty list, and flushing it is fine;
        neither of them makes a run.

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
        assert rows(metrics_store, one) == [("loss", "1.0", 1), ("loss", "3.0", 2)]
        assert rows(metrics_store, two) == [("loss", "2.0", 1)]

    @since("1.5")
    def test_a_metric_keeps_its_name_or_is_refused(
        self, metrics_store: MetricsStore, run_id: str
    ) -> None:
        """A name of any length and of any characters comes back as it was, or the call that
        records it says at once that the store cannot keep it; others are not lost with it.

        Usually broken by a column that cuts what is too long, by a path that loses an empty part,
        by a reader that takes digits for a number, and by an encoder that fails at the flush.
        """
        kept: list[Row] = []
        for name in ODD:
            try:
                metrics_store.record(run_id, name, float(len(kept)), 1)
            except (InvalidInput, Unsupported):
                continue
            kept.append((name, repr(float(len(kept))), 1))
        metrics_store.flush(run_id)
        assert kept, "every one was refused"
        assert rows(metrics_store, run_id) == kept

    @since("1.5")
    def test_a_run_keeps_its_id_or_is_refused(
        self, metrics_store: MetricsStore, run_id: str
    ) -> None:
        """So does the id of a run, and no two of them are one run.

        Usually broken by a name of a file that is cut to the length that the disk allows.
        """
        kept: dict[str, float] = {}
        for number, name in enumerate(ODD):
            run = f"{run_id}{name}"
            try:
                metrics_store.record(run, "loss", float(number), 1)
                metrics_store.flush(run)
            except (InvalidInput, Unsupported):
                continue
            kept[run] = float(number)
        assert kept, "every one was refused"
        for run, value in kept.items():
            assert [(e.run_id, e.value) for e in metrics_store.read(run)] == [(run, value)]
        if metrics_store.supports("runs"):
            assert [run for run in metrics_store.runs() if run.startswith(run_id)] == sorted(kept)
