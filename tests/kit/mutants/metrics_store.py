"""Metrics stores with one fault each."""

from __future__ import annotations

import math
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import numpy as np
from crucible_kitchen import AdapterOptions, MetricEntry, MetricsStore, Unsupported, hookimpl

from . import Mutant, recording


class Options(AdapterOptions):
    inner: MetricsStore


class Delegate:
    """Base of the mutants: an adapter that leaves everything to `inner`."""

    Options = Options


class ChangedRecord(Delegate):
    """One that records each number singly, and each in the same wrong way."""

    def keep(self, opts: Options, run: str, metric: str, value: Any, step: Any, meta: Any) -> None:
        raise NotImplementedError

    @hookimpl
    def record(
        self,
        opts: Options,
        run_id: str,
        metric: str,
        value: float,
        step: int | None,
        metadata: Mapping[str, Any] | None,
    ) -> None:
        self.keep(opts, run_id, metric, value, step, metadata)


class FaultyRead(Delegate):
    """One that shows the rows otherwise than they are."""

    def shown(self, rows: list[MetricEntry]) -> list[MetricEntry]:
        raise NotImplementedError

    @hookimpl
    def read(self, opts: Options, run_id: str) -> list[MetricEntry]:
        return self.shown(opts.inner.read(run_id))


class AddsToABufferWithoutALock(ChangedRecord):
    def __init__(self) -> None:
        self.buffer: list[tuple[Any, ...]] = []

    def keep(self, opts: Options, *row: Any) -> None:
        before = self.buffer
        time.sleep(0)  # other threads may go on here, and on a busy machine they would seldom
        self.buffer = [*before, (*row[:2], MetricEntry.recorded(*row).value, *row[3:])]

    def write(self, opts: Options) -> None:
        rows, self.buffer = self.buffer, []
        for row in rows:
            opts.inner.record(*row)

    @hookimpl
    def flush(self, opts: Options, run_id: str) -> None:
        self.write(opts)

    @hookimpl
    def read(self, opts: Options, run_id: str) -> list[MetricEntry]:
        self.write(opts)
        return opts.inner.read(run_id)


class EmptiesItsBufferAfterWriting(AddsToABufferWithoutALock):
    def keep(self, opts: Options, *row: Any) -> None:
        self.buffer.append(row)

    def write(self, opts: Options) -> None:
        for row in list(self.buffer):
            opts.inner.record(*row)
        time.sleep(0.001)  # as a disk takes
        self.buffer.clear()


class ReadsOnlyWhatWasFlushed(Delegate):
    def __init__(self) -> None:
        self.flushed: dict[str, list[MetricEntry]] = {}

    @hookimpl
    def flush(self, opts: Options, run_id: str) -> None:
        opts.inner.flush(run_id)
        self.flushed[run_id] = opts.inner.read(run_id)

    @hookimpl
    def read(self, opts: Options, run_id: str) -> list[MetricEntry]:
        return self.flushed.get(run_id, [])


class EmptiesOneBufferForAllRuns(ChangedRecord):
    def __init__(self) -> None:
        self.buffer: list[tuple[Any, ...]] = []

    def keep(self, opts: Options, *row: Any) -> None:
        MetricEntry.recorded(*row)
        self.buffer.append(row)

    @hookimpl
    def flush(self, opts: Options, run_id: str) -> None:
        for row in self.buffer:
            if row[0] == run_id:
                opts.inner.record(*row)
        self.buffer.clear()


class FailsAtTheFlush(ChangedRecord):
    def __init__(self) -> None:
        self.buffer: list[tuple[Any, ...]] = []

    def keep(self, opts: Options, *row: Any) -> None:
        self.buffer.append(row)

    @hookimpl
    def flush(self, opts: Options, run_id: str) -> None:
        while self.buffer:
            opts.inner.record(*self.buffer.pop(0))


class TakesNaNForZero(FaultyRead):
    def shown(self, rows: list[MetricEntry]) -> list[MetricEntry]:
        return [replace(row, value=0.0 if math.isnan(row.value) else row.value) for row in rows]


class ClipsInfinities(FaultyRead):
    def shown(self, rows: list[MetricEntry]) -> list[MetricEntry]:
        most = sys.float_info.max
        return [
            replace(
                row, value=math.copysign(most, row.value) if math.isinf(row.value) else row.value
            )
            for row in rows
        ]


class TakesTheLargestFloatForAnInfinity(FaultyRead):
    def shown(self, rows: list[MetricEntry]) -> list[MetricEntry]:
        most = sys.float_info.max
        return [
            replace(
                row,
                value=math.copysign(math.inf, row.value) if abs(row.value) == most else row.value,
            )
            for row in rows
        ]


class LosesTheSignOfZero(FaultyRead):
    def shown(self, rows: list[MetricEntry]) -> list[MetricEntry]:
        return [replace(row, value=row.value + 0.0) for row in rows]


class KeepsThirtyTwoBits(FaultyRead):
    def shown(self, rows: list[MetricEntry]) -> list[MetricEntry]:
        with np.errstate(all="ignore"):
            return [replace(row, value=float(np.float32(row.value))) for row in rows]


class PrintsFifteenDigits(FaultyRead):
    def shown(self, rows: list[MetricEntry]) -> list[MetricEntry]:
        return [replace(row, value=float(f"{row.value:.15g}")) for row in rows]


class ReturnsIntegers(FaultyRead):
    def shown(self, rows: list[MetricEntry]) -> list[MetricEntry]:
        return [
            replace(row, value=int(row.value) if row.value.is_integer() else row.value)
            for row in rows
        ]


class SortsBySteps(FaultyRead):
    def shown(self, rows: list[MetricEntry]) -> list[MetricEntry]:
        return sorted(rows, key=lambda row: -1 if row.step is None else row.step)


class ReadsOnePage(FaultyRead):
    def shown(self, rows: list[MetricEntry]) -> list[MetricEntry]:
        return rows[:1000]


class HasStepsThatAreFloats(FaultyRead):
    def shown(self, rows: list[MetricEntry]) -> list[MetricEntry]:
        return [
            replace(row, step=None if row.step is None else int(float(row.step))) for row in rows
        ]


class LosesMetadata(FaultyRead):
    def shown(self, rows: list[MetricEntry]) -> list[MetricEntry]:
        return [replace(row, metadata={}) for row in rows]


class HasNoTimeZone(FaultyRead):
    def shown(self, rows: list[MetricEntry]) -> list[MetricEntry]:
        return [replace(row, timestamp=row.timestamp.replace(tzinfo=None)) for row in rows]


class TakesLocalTimeForUTC(FaultyRead):
    def shown(self, rows: list[MetricEntry]) -> list[MetricEntry]:
        return [
            replace(
                row, timestamp=datetime.fromtimestamp(row.timestamp.timestamp()).replace(tzinfo=UTC)
            )
            for row in rows
        ]


class ReplacesRowsWithoutAStep(FaultyRead):
    def shown(self, rows: list[MetricEntry]) -> list[MetricEntry]:
        return list({(row.metric, row.step): row for row in rows}.values())


class TakesEqualRowsForOne(FaultyRead):
    def shown(self, rows: list[MetricEntry]) -> list[MetricEntry]:
        return list({(row.metric, row.step, repr(row.value)): row for row in rows}.values())


class KeepsEveryValueOfAStep(Delegate):
    def __init__(self) -> None:
        self.history: list[MetricEntry] = []

    @hookimpl
    def record(
        self,
        opts: Options,
        run_id: str,
        metric: str,
        value: float,
        step: int | None,
        metadata: Mapping[str, Any] | None,
    ) -> None:
        self.history.append(MetricEntry.recorded(run_id, metric, value, step, metadata))

    @hookimpl
    def read(self, opts: Options, run_id: str) -> list[MetricEntry]:
        return [row for row in self.history if row.run_id == run_id]


class MovesAReplacedRowToTheEnd(KeepsEveryValueOfAStep):
    @hookimpl
    def read(self, opts: Options, run_id: str) -> list[MetricEntry]:
        rows: dict[Any, MetricEntry] = {}
        for row in self.history:
            if row.run_id == run_id:
                key = object() if row.step is None else (row.metric, row.step)
                rows.pop(key, None)
                rows[key] = row
        return list(rows.values())


class KeepsTheLeastValueOfAStep(ChangedRecord):
    def keep(self, opts: Options, run: str, metric: str, value: Any, step: Any, meta: Any) -> None:
        for row in opts.inner.read(run):
            if step is not None and (row.metric, row.step) == (metric, step) and row.value < value:
                return
        opts.inner.record(run, metric, value, step, meta)


class IgnoresStepsThatComeLate(ChangedRecord):
    def keep(self, opts: Options, run: str, metric: str, value: Any, step: Any, meta: Any) -> None:
        steps = [row.step for row in opts.inner.read(run) if row.step is not None]
        if step is None or not steps or step >= max(steps):
            opts.inner.record(run, metric, value, step, meta)


class TakesStepZeroForNone(ChangedRecord):
    def keep(self, opts: Options, run: str, metric: str, value: Any, step: Any, meta: Any) -> None:
        opts.inner.record(run, metric, value, step or None, meta)


class CutsSteps(ChangedRecord):
    def keep(self, opts: Options, run: str, metric: str, value: Any, step: Any, meta: Any) -> None:
        opts.inner.record(run, metric, value, None if step is None else int(step), meta)


class ReadsTextAsANumber(ChangedRecord):
    def keep(self, opts: Options, run: str, metric: str, value: Any, step: Any, meta: Any) -> None:
        opts.inner.record(
            run, metric, float(value) if isinstance(value, str) else value, step, meta
        )


class KnowsNoNumPy(ChangedRecord):
    def keep(self, opts: Options, run: str, metric: str, value: Any, step: Any, meta: Any) -> None:
        if isinstance(value, np.generic) and not isinstance(value, float):
            raise TypeError(f"Object of type {type(value).__name__} is not JSON serializable")
        opts.inner.record(run, metric, value, step, meta)


class DropsMetadataInSilence(ChangedRecord):
    def keep(self, opts: Options, run: str, metric: str, value: Any, step: Any, meta: Any) -> None:
        opts.inner.record(run, metric, value, step, None)


class RecordsAndThenRefusesMetadata(ChangedRecord):
    def keep(self, opts: Options, run: str, metric: str, value: Any, step: Any, meta: Any) -> None:
        opts.inner.record(run, metric, value, step, None)
        if meta:
            raise Unsupported("no metadata")


class WritesMetadataAsText(ChangedRecord):
    def keep(self, opts: Options, run: str, metric: str, value: Any, step: Any, meta: Any) -> None:
        plain = (str, int, type(None), list, dict)
        kept = {key: v if isinstance(v, plain) else str(v) for key, v in (meta or {}).items()}
        opts.inner.record(run, metric, value, step, kept)


class ReplacesWhatAMetricMayNotHold(ChangedRecord):
    def keep(self, opts: Options, run: str, metric: str, value: Any, step: Any, meta: Any) -> None:
        allowed = "".join(each if each.isalnum() or each in "_-./ " else "_" for each in metric)
        opts.inner.record(run, allowed, value, step, meta)


class MixesRunsByPrefix(Delegate):
    @hookimpl
    def read(self, opts: Options, run_id: str) -> list[MetricEntry]:
        return [
            replace(row, run_id=run_id)
            for run in opts.inner.runs()
            if run.startswith(run_id)
            for row in opts.inner.read(run)
        ]


class FoldsTheCaseOfRuns(ChangedRecord):
    def keep(self, opts: Options, run: str, metric: str, value: Any, step: Any, meta: Any) -> None:
        opts.inner.record(run.lower(), metric, value, step, meta)

    @hookimpl
    def read(self, opts: Options, run_id: str) -> list[MetricEntry]:
        return [replace(row, run_id=run_id) for row in opts.inner.read(run_id.lower())]


class NamesFilesAfterRuns(ChangedRecord):
    def keep(self, opts: Options, run: str, metric: str, value: Any, step: Any, meta: Any) -> None:
        opts.inner.record(run.replace("/", "_"), metric, value, step, meta)

    @hookimpl
    def read(self, opts: Options, run_id: str) -> list[MetricEntry]:
        return [replace(r, run_id=run_id) for r in opts.inner.read(run_id.replace("/", "_"))]


class DoesNotKnowTheRun(Delegate):
    @hookimpl
    def read(self, opts: Options, run_id: str) -> list[MetricEntry]:
        if not (rows := opts.inner.read(run_id)):
            raise KeyError(run_id)
        return rows


class MakesARunByFlushingIt(Delegate):
    def __init__(self) -> None:
        self.flushed: set[str] = set()

    @hookimpl
    def flush(self, opts: Options, run_id: str) -> None:
        self.flushed.add(run_id)

    @hookimpl
    def runs(self, opts: Options) -> list[str]:
        return sorted(self.flushed | set(opts.inner.runs()))


class FaultyMany(Delegate):
    """One that takes several numbers otherwise than single ones."""

    def keep(self, opts: Options, run: str, metrics: Any, step: Any, meta: Any) -> None:
        raise NotImplementedError

    @hookimpl
    def record_many(
        self,
        opts: Options,
        run_id: str,
        metrics: Mapping[str, float],
        step: int | None,
        metadata: Mapping[str, Any] | None,
    ) -> None:
        self.keep(opts, run_id, metrics, step, metadata)


class DropsTheLastOfSeveral(FaultyMany):
    def keep(self, opts: Options, run: str, metrics: Any, step: Any, meta: Any) -> None:
        several = list(metrics.items())
        opts.inner.record_many(run, dict(several[:-1] or several), step, meta)


class SortsSeveral(FaultyMany):
    def keep(self, opts: Options, run: str, metrics: Any, step: Any, meta: Any) -> None:
        opts.inner.record_many(run, dict(sorted(metrics.items())), step, meta)


class KeepsMetadataWithTheFirst(FaultyMany):
    def keep(self, opts: Options, run: str, metrics: Any, step: Any, meta: Any) -> None:
        for metric, value in metrics.items():
            opts.inner.record(run, metric, value, step, meta)
            meta = None


class ChecksSeveralInTurn(FaultyMany):
    def keep(self, opts: Options, run: str, metrics: Any, step: Any, meta: Any) -> None:
        for metric, value in metrics.items():
            opts.inner.record(run, metric, value, step, meta)


class ListsTheLatestRunFirst(Delegate):
    @hookimpl
    def runs(self, opts: Options) -> list[str]:
        return sorted(opts.inner.runs(), key=lambda run: opts.inner.read(run)[0].timestamp)


class ListsRunsByACollation(Delegate):
    @hookimpl
    def runs(self, opts: Options) -> list[str]:
        return sorted(opts.inner.runs(), key=str.lower)


class RecordsAgainAfterAFlush(ChangedRecord):
    """What was flushed is a row of its own to it."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.written: dict[str, list[MetricEntry]] = {}
        self.held: dict[str, dict[Any, MetricEntry]] = {}

    def keep(self, opts: Options, *row: Any) -> None:
        entry = MetricEntry.recorded(*row)
        key = object() if entry.step is None else (entry.metric, entry.step)
        with self.lock:
            self.held.setdefault(entry.run_id, {})[key] = entry

    @hookimpl
    def record_many(
        self,
        opts: Options,
        run_id: str,
        metrics: Mapping[str, float],
        step: int | None,
        metadata: Mapping[str, Any] | None,
    ) -> None:
        for metric, value in metrics.items():
            self.keep(opts, run_id, metric, value, step, metadata)

    @hookimpl
    def flush(self, opts: Options, run_id: str) -> None:
        with self.lock:
            self.written.setdefault(run_id, []).extend(self.held.pop(run_id, {}).values())

    @hookimpl
    def read(self, opts: Options, run_id: str) -> list[MetricEntry]:
        with self.lock:
            return [*self.written.get(run_id, []), *self.held.get(run_id, {}).values()]


class WritesLateRowsFirst(RecordsAgainAfterAFlush):
    """What was recorded again comes before what is held, as in a merge that goes wrong."""

    @hookimpl
    def read(self, opts: Options, run_id: str) -> list[MetricEntry]:
        rows: dict[Any, MetricEntry] = {}
        with self.lock:
            for row in (*self.held.get(run_id, {}).values(), *self.written.get(run_id, [])):
                key = object() if row.step is None else (row.metric, row.step)
                rows[key] = row
        return list(rows.values())


MUTANTS = [
    Mutant("metrics_store", adapter, f"test_{killed_by}")
    for adapter, killed_by in (
        (AddsToABufferWithoutALock(), "many_threads_lose_nothing"),
        (EmptiesItsBufferAfterWriting(), "many_threads_lose_nothing"),
        (ReadsOnlyWhatWasFlushed(), "rows_that_are_not_flushed_are_read"),
        (EmptiesOneBufferForAllRuns(), "flushing_one_run_keeps_the_rows_of_another"),
        (FailsAtTheFlush(), "what_is_no_number_is_refused"),
        (TakesNaNForZero(), "nan_and_infinities_come_back"),
        (ClipsInfinities(), "nan_and_infinities_come_back"),
        (TakesTheLargestFloatForAnInfinity(), "the_largest_float_comes_back"),
        (LosesTheSignOfZero(), "the_sign_of_zero_comes_back"),
        (KeepsThirtyTwoBits(), "every_digit_comes_back"),
        (PrintsFifteenDigits(), "any_float_comes_back"),
        (ReturnsIntegers(), "a_number_comes_back_as_a_float"),
        (SortsBySteps(), "steps_may_come_late_and_go_backwards"),
        (ReadsOnePage(), "many_rows_are_all_read"),
        (HasStepsThatAreFloats(), "any_integer_is_a_step"),
        (LosesMetadata(), "metadata_comes_back_or_is_unsupported"),
        (DropsMetadataInSilence(), "metadata_comes_back_or_is_unsupported"),
        (RecordsAndThenRefusesMetadata(), "metadata_comes_back_or_is_unsupported"),
        (WritesMetadataAsText(), "metadata_that_json_cannot_hold_is_refused"),
        (HasNoTimeZone(), "timestamps_are_aware_and_in_utc"),
        (TakesLocalTimeForUTC(), "timestamps_are_aware_and_in_utc"),
        (ReplacesRowsWithoutAStep(), "without_a_step_each_call_is_a_row"),
        (TakesEqualRowsForOne(), "without_a_step_each_call_is_a_row"),
        (KeepsEveryValueOfAStep(), "recording_again_replaces"),
        (KeepsTheLeastValueOfAStep(), "recording_again_replaces"),
        (MovesAReplacedRowToTheEnd(), "a_replaced_row_stays_in_its_place"),
        (IgnoresStepsThatComeLate(), "steps_may_come_late_and_go_backwards"),
        (TakesStepZeroForNone(), "any_integer_is_a_step"),
        (CutsSteps(), "a_step_that_is_no_integer_is_refused"),
        (ReadsTextAsANumber(), "what_is_no_number_is_refused"),
        (KnowsNoNumPy(), "a_number_comes_back_as_a_float"),
        (ReplacesWhatAMetricMayNotHold(), "any_name_of_a_metric_works"),
        (MixesRunsByPrefix(), "names_that_are_alike_are_two"),
        (FoldsTheCaseOfRuns(), "names_that_are_alike_are_two"),
        (NamesFilesAfterRuns(), "names_that_are_alike_are_two"),
        (DoesNotKnowTheRun(), "an_unknown_run_has_no_rows"),
        (MakesARunByFlushingIt(), "an_unknown_run_has_no_rows"),
        (DropsTheLastOfSeveral(), "several_numbers_are_recorded_as_one_by_one"),
        (SortsSeveral(), "several_numbers_are_recorded_as_one_by_one"),
        (KeepsMetadataWithTheFirst(), "several_numbers_share_their_metadata"),
        (ChecksSeveralInTurn(), "several_numbers_of_which_one_is_none_are_refused"),
        (ListsTheLatestRunFirst(), "runs_are_listed_in_order"),
        (ListsRunsByACollation(), "runs_are_listed_in_order"),
        (RecordsAgainAfterAFlush(), "a_run_that_is_resumed_leaves_no_duplicates"),
        (WritesLateRowsFirst(), "any_sequence_of_calls_does_what_a_dictionary_does"),
    )
]
MUTANTS += recording.MUTANTS
