"""Several processes use one store."""

from __future__ import annotations

import math
import os
import signal
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from ...ports import MetricsStore
from ..conformance import needs, since, unless_synthetic
from ..processes import Elsewhere, ProcessDied
from ..processes.state import left_alone
from .fixtures import MetricsStoreFixtures
from .rows import rows

EACH = 30
"""Steps that each of several writers records."""


class Processes(MetricsStoreFixtures):
    """What holds between processes that have the store open under equal options."""

    @since("1.5")
    @unless_synthetic
    def test_a_process_that_is_started_later_reads_every_row(
        self, metrics_store: MetricsStore, run_id: str, elsewhere: Elsewhere
    ) -> None:
        """A process that starts after `flush` has returned, in another working directory and time
        zone, reads the rows of a run as they are read here, in their order; this one reads what
        that one adds.

        Usually broken by a dictionary of the module, a path that begins in the working directory,
        or a time that is stored without its zone.
        """
        for step in (3, 1, 2):  # not sorted: the order is that of recording
            metrics_store.record(run_id, f"metric {-step}", step / 7, step)
        metrics_store.record(run_id, "note", math.inf)
        metrics_store.flush(run_id)
        mine = _entries(metrics_store, run_id)
        assert elsewhere.run(_entries, run_id) == mine
        elsewhere.run(_record, run_id, "there", 2)
        both = _entries(metrics_store, run_id)
        assert both[: len(mine)] == mine
        assert [entry[:3] for entry in both[len(mine) :]] == [
            ("there", "0.0", 0),
            ("there", "1.0", 1),
        ]
        assert elsewhere.run(_entries, run_id) == both
        for entry in both:
            assert abs(datetime.now(UTC) - entry[3]) < timedelta(hours=1), "of another time zone"

    @since("1.5")
    @unless_synthetic
    def test_two_processes_see_what_either_has_flushed(
        self, metrics_store: MetricsStore, run_id: str, elsewhere: Elsewhere
    ) -> None:
        """While both have the run open, each reads what the other has flushed, and rows that
        replace others.

        Usually broken by a lock that the first process holds until it ends, or by a reader that
        keeps what it has read before.
        """
        metrics_store.record(run_id, "loss", 0.0, 0)
        metrics_store.flush(run_id)
        expected = [("loss", "0.0", 0)]
        assert elsewhere.run(rows, run_id) == expected
        for step in (1, 2, 3):
            elsewhere.run(_record_one, run_id, "loss", 0.5, step)
            expected.append(("loss", "0.5", step))
            assert rows(metrics_store, run_id) == expected
            elsewhere.run(_record_one, run_id, "loss", float(step), step)
            expected[-1] = ("loss", f"{float(step)}", step)
            assert rows(metrics_store, run_id) == expected
            metrics_store.record(run_id, "loss", -1.0, step)
            metrics_store.flush(run_id)
            expected[-1] = ("loss", "-1.0", step)
            assert elsewhere.run(rows, run_id) == expected

    @since("1.5")
    @unless_synthetic
    def test_many_processes_record_to_one_run(
        self, metrics_store: MetricsStore, run_id: str, elsewhere: Elsewhere
    ) -> None:
        """Three processes record to one run, which all of them begin: every row of each is there,
        once, in its order; a step that all record has one row; and all processes read the rows in
        one order.

        Usually broken by a lock that is not waited for, a number of the next row that each process
        counts for itself, or a file that each rewrites as a whole.
        """
        for steps in (range(5), range(5, EACH)):  # who goes on has not read what others add
            others = [(run_id, f"process {number}", steps) for number in (1, 2)]
            recording = elsewhere.submit_together(_record_with_others, others)
            _record_with_others(metrics_store, run_id, "process 0", steps)
            for each in recording:
                each.result()
        found = rows(metrics_store, run_id)
        for number in range(3):
            mine = [row for row in found if row[0] == f"process {number}"]
            assert mine == [(f"process {number}", f"{float(s)}", s) for s in range(EACH)]
        assert sorted(row[2] or 0 for row in found if row[0] == "all") == [*range(EACH)]
        assert len([row for row in found if row[0] == "note"]) == 3 * EACH
        assert [each.run(rows, run_id) for each in elsewhere.processes(2)] == [found, found]

    @since("1.5")
    @unless_synthetic
    def test_many_processes_record_to_many_runs(
        self, metrics_store: MetricsStore, run_id: str, elsewhere: Elsewhere
    ) -> None:
        """Three processes begin runs of their own at once: all are there, whole, and listed in one
        order by every process.

        Usually broken by an index of runs that each process rewrites, tables that each makes, and
        an order that follows `hash`.
        """
        runs = [[f"{run_id}-{process}-{number}" for number in range(6)] for process in range(3)]
        recording = elsewhere.submit_together(_record_runs, [(mine,) for mine in runs[1:]])
        _record_runs(metrics_store, runs[0])
        for each in recording:
            each.result()
        expected = sorted(run for mine in runs for run in mine)
        for run in expected:
            assert rows(metrics_store, run) == [("loss", "0.0", 0), ("loss", "1.0", 1)], run
        if metrics_store.supports("runs"):
            listed = [*metrics_store.runs()]
            assert [run for run in listed if run.startswith(run_id)] == expected
            assert elsewhere.run(_runs) == listed

    @since("1.5")
    @unless_synthetic
    def test_what_was_flushed_survives_a_kill(
        self, metrics_store: MetricsStore, run_id: str, elsewhere: Elsewhere
    ) -> None:
        """A row that was recorded before `flush` returned is there although its process was killed
        at that very moment.

        Usually broken by a `flush` that wakes a thread which writes, or by a transaction that is
        committed at exit.
        """
        elsewhere.run_and_die(_record, run_id, "loss", EACH)
        expected = [("loss", f"{float(step)}", step) for step in range(EACH)]
        assert rows(metrics_store, run_id) == expected

    @since("1.5")
    @unless_synthetic
    def test_a_run_goes_on_after_a_kill(
        self, metrics_store: MetricsStore, run_id: str, elsewhere: Elsewhere
    ) -> None:
        """When a process is killed while it records, the rows flushed before are there, and the
        run goes on in another process, which records the last steps again: each has one row.

        Usually broken by the lock of the dead process, by half a line at the end of a file, and by
        a row more for what is recorded again.
        """
        with pytest.raises(ProcessDied, match="SIGKILL"):
            elsewhere.run(_record_and_die, run_id)
        flushed = [("loss", f"{float(step)}", step) for step in range(EACH)]
        assert rows(metrics_store, run_id)[:EACH] == flushed
        for step in range(EACH - 5, EACH + 5):
            metrics_store.record(run_id, "loss", float(step), step)
        metrics_store.flush(run_id)
        expected = [("loss", f"{float(step)}", step) for step in range(EACH + 5)]
        assert [row for row in rows(metrics_store, run_id) if (row[2] or 0) < EACH + 5] == expected
        assert elsewhere.run(rows, run_id) == rows(metrics_store, run_id)

    @since("1.5")
    @needs("record_many")
    @unless_synthetic
    def test_rows_that_are_recorded_together_come_together_in_other_processes(
        self, metrics_store: MetricsStore, run_id: str, elsewhere: Elsewhere
    ) -> None:
        """What `record_many` recorded and `flush` returned for is read elsewhere in the order of
        the mapping.

        Usually broken by a set of names, whose order differs from process to process.
        """
        names = [f"{name} {number}" for number, name in enumerate(self.names)]
        metrics_store.record_many(run_id, dict.fromkeys(names, 1.0), 1)
        metrics_store.flush(run_id)
        elsewhere.run(_record_together, run_id, names)
        expected = [(name, "1.0", 1) for name in names] + [(name, "2.0", 2) for name in names]
        assert rows(metrics_store, run_id) == expected
        assert elsewhere.run(rows, run_id) == expected

    @since("1.5")
    def test_the_process_stays_as_it_was(self, run_id: str, elsewhere: Elsewhere) -> None:
        """No call changes the umask or the working directory, or seeds the generators of `random`
        and NumPy, which all threads share.

        Usually broken by `os.umask(0)` around the making of a file: what other threads make
        meanwhile, and everything after an error, may be written by everyone.
        """
        changed = elsewhere.run(_changed, run_id)
        assert not changed, "what the calls have changed"


# --- in the other process ---


def _entries(store: MetricsStore, run_id: str) -> list[tuple[str, str, int | None, datetime]]:
    return [
        (entry.metric, repr(entry.value), entry.step, entry.timestamp)
        for entry in store.read(run_id)
    ]


def _record(store: MetricsStore, run_id: str, metric: str, steps: int) -> None:
    for step in range(steps):
        store.record(run_id, metric, float(step), step)
    store.flush(run_id)


def _record_one(store: MetricsStore, run_id: str, metric: str, value: float, step: int) -> None:
    store.record(run_id, metric, value, step)
    store.flush(run_id)


def _record_together(store: MetricsStore, run_id: str, names: Sequence[str]) -> None:
    store.record_many(run_id, dict.fromkeys(names, 2.0), 2)
    store.flush(run_id)


def _record_with_others(
    store: MetricsStore, run_id: str, metric: str, steps: Sequence[int]
) -> None:
    for step in steps:
        store.record(run_id, metric, float(step), step)
        store.record(run_id, "all", float(step), step)
        store.record(run_id, "note", float(step))
        if step % 5 == 0:
            store.flush(run_id)
    store.flush(run_id)


def _record_runs(store: MetricsStore, runs: Sequence[str]) -> None:
    for run in runs:
        _record(store, run, "loss", 2)


def _runs(store: MetricsStore) -> list[str]:
    return [*store.runs()]


def _record_and_die(store: MetricsStore, run_id: str) -> None:
    _record(store, run_id, "loss", EACH)
    for step in range(EACH, 3 * EACH):
        store.record(run_id, "loss", float(step), step)
    os.kill(os.getpid(), signal.SIGKILL)


def _changed(store: MetricsStore, run_id: str) -> dict[str, Any]:
    """Return what the calls of a store change of its process."""

    def calls() -> None:
        _record(store, run_id, "loss", 2)
        rows(store, run_id)
        if store.supports("runs"):
            store.runs()

    return left_alone(calls)
