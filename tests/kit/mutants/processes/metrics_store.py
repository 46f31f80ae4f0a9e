"""Metrics stores that are right while one process uses them."""

from __future__ import annotations

import fcntl
import json
import os
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from crucible_kitchen import AdapterOptions, MetricEntry, MetricsStore, Unavailable, hookimpl

from .. import Mutant
from .places import FOLDER

FILES = {"use": "jsonl", "path": str(FOLDER / "metrics")}


class Options(AdapterOptions):
    inner: MetricsStore


class Delegate:
    """Base of the mutants: an adapter that leaves everything to `inner`."""

    Options = Options


def folder(opts: Options) -> Path:
    """Return a folder in which all processes have the store."""
    found = Path(str(vars(opts.inner.options)["path"])).parent
    found.mkdir(exist_ok=True)
    return found


RUNS: dict[str, dict[tuple[str, int | None], MetricEntry]] = {}


class KeepsRunsInItsModule(Delegate):
    @hookimpl
    def record(
        self, opts: Options, run_id: str, metric: str, value: float, step: int | None, metadata: Any
    ) -> None:
        entry = MetricEntry(run_id, metric, value, step, datetime.now(UTC))
        RUNS.setdefault(run_id, {})[metric, step] = entry

    @hookimpl
    def flush(self, opts: Options, run_id: str) -> None:
        pass

    @hookimpl
    def read(self, opts: Options, run_id: str) -> list[MetricEntry]:
        return [*RUNS.get(run_id, {}).values()]


class GroupsRowsByHash(Delegate):
    @hookimpl
    def read(self, opts: Options, run_id: str) -> list[MetricEntry]:
        return sorted(opts.inner.read(run_id), key=lambda entry: hash(entry.metric))


class TakesTimesForLocal(Delegate):
    @hookimpl
    def read(self, opts: Options, run_id: str) -> list[MetricEntry]:
        return [
            replace(entry, timestamp=entry.timestamp.astimezone().replace(tzinfo=UTC))
            for entry in opts.inner.read(run_id)
        ]


class KeepsWhatItHasRead(Delegate):
    def __init__(self) -> None:
        self.known: dict[str, list[MetricEntry]] = {}

    @hookimpl
    def record(
        self, opts: Options, run_id: str, metric: str, value: float, step: int | None, metadata: Any
    ) -> None:
        self.known.pop(run_id, None)
        opts.inner.record(run_id, metric, value, step, metadata)

    @hookimpl
    def read(self, opts: Options, run_id: str) -> list[MetricEntry]:
        if run_id not in self.known:
            self.known[run_id] = opts.inner.read(run_id)
        return self.known[run_id]


LOCKS: dict[str, Any] = {}


class HoldsARunUntilItEnds(Delegate):
    @hookimpl
    def record(
        self, opts: Options, run_id: str, metric: str, value: float, step: int | None, metadata: Any
    ) -> None:
        if run_id not in LOCKS:
            lock = Path(folder(opts) / f"{run_id}.lock").open("w")  # noqa: SIM115
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                raise Unavailable("another process records to the run") from error
            LOCKS[run_id] = lock
        opts.inner.record(run_id, metric, value, step, metadata)


class RewritesTheWholeRun(Delegate):
    """Reads a run when it first records to it, and writes all of it at each flush."""

    def __init__(self) -> None:
        self.known: dict[str, dict[Any, list[Any]]] = {}

    def stored(self, opts: Options, run_id: str) -> dict[Any, list[Any]]:
        file = folder(opts) / f"{run_id}.json"
        rows = json.loads(file.read_text()) if file.exists() else []
        return {tuple(key): row for key, row in rows}

    @hookimpl
    def record(
        self, opts: Options, run_id: str, metric: str, value: float, step: int | None, metadata: Any
    ) -> None:
        if run_id not in self.known:
            self.known[run_id] = self.stored(opts, run_id)
        rows = self.known[run_id]
        rows[metric, step, len(rows) if step is None else -1] = [metric, value, step]

    @hookimpl
    def flush(self, opts: Options, run_id: str) -> None:
        rows = [[[*key], row] for key, row in self.known.get(run_id, {}).items()]
        temporary = folder(opts) / f"{run_id}.{os.getpid()}"
        temporary.write_text(json.dumps(rows))
        temporary.replace(folder(opts) / f"{run_id}.json")

    @hookimpl
    def read(self, opts: Options, run_id: str) -> list[MetricEntry]:
        rows = {**self.stored(opts, run_id), **self.known.get(run_id, {})}
        return [
            MetricEntry(run_id, metric, value, step, datetime.now(UTC))
            for metric, value, step in rows.values()
        ]


class FlushesBehind(Delegate):
    def __init__(self) -> None:
        self.rows: list[tuple[Any, ...]] = []
        self.flushing: list[threading.Thread] = []

    @hookimpl
    def record(
        self, opts: Options, run_id: str, metric: str, value: float, step: int | None, metadata: Any
    ) -> None:
        self.rows.append((run_id, metric, value, step, metadata))

    @hookimpl
    def flush(self, opts: Options, run_id: str) -> None:
        rows, self.rows = self.rows, []

        def later() -> None:
            time.sleep(0.5)
            for row in rows:
                opts.inner.record(*row)
            opts.inner.flush(run_id)

        self.flushing.append(threading.Thread(target=later))
        self.flushing[-1].start()

    @hookimpl
    def read(self, opts: Options, run_id: str) -> list[MetricEntry]:
        self.flush(opts, run_id)
        for each in self.flushing:
            each.join()
        return opts.inner.read(run_id)


class LeavesItsLockWhenItIsKilled(Delegate):
    @hookimpl
    def record(
        self, opts: Options, run_id: str, metric: str, value: float, step: int | None, metadata: Any
    ) -> None:
        lock = folder(opts) / f"{run_id}.busy"
        if run_id not in LOCKS:
            try:
                lock.touch(exist_ok=False)
            except FileExistsError as error:
                raise Unavailable("another process records to the run") from error
            LOCKS[run_id] = lock
        opts.inner.record(run_id, metric, value, step, metadata)

    @hookimpl
    def flush(self, opts: Options, run_id: str) -> None:
        opts.inner.flush(run_id)
        if (lock := LOCKS.pop(run_id, None)) is not None:
            lock.unlink()


class RecordsASet(Delegate):
    @hookimpl
    def record_many(
        self, opts: Options, run_id: str, metrics: Mapping[str, float], step: Any, metadata: Any
    ) -> None:
        mixed = {name: metrics[name] for name in set(metrics)}
        opts.inner.record_many(run_id, mixed, step, metadata)


class ListsRunsByHash(Delegate):
    @hookimpl
    def runs(self, opts: Options) -> Sequence[str]:
        return sorted(opts.inner.runs(), key=hash)


LATER = "test_a_process_that_is_started_later_reads_every_row"
MUTANTS = [
    Mutant("metrics_store", adapter, killed_by, FILES)
    for adapter, killed_by in [
        (KeepsRunsInItsModule(), LATER),
        (GroupsRowsByHash(), LATER),
        (TakesTimesForLocal(), LATER),
        (KeepsWhatItHasRead(), "test_two_processes_see_what_either_has_flushed"),
        (HoldsARunUntilItEnds(), "test_two_processes_see_what_either_has_flushed"),
        (RewritesTheWholeRun(), "test_many_processes_record_to_one_run"),
        (ListsRunsByHash(), "test_many_processes_record_to_many_runs"),
        (FlushesBehind(), "test_what_was_flushed_survives_a_kill"),
        (LeavesItsLockWhenItIsKilled(), "test_a_run_goes_on_after_a_kill"),
        (
            RecordsASet(),
            "test_rows_that_are_recorded_together_come_together_in_other_processes",
        ),
    ]
]
