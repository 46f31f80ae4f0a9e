"""Metrics stores that keep something else than was recorded, by one fault each."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any

from crucible_kitchen import (
    AdapterOptions,
    MetricEntry,
    MetricsStore,
    Unsupported,
    check_metric,
    hookimpl,
)

from . import Mutant

Metadata = Mapping[str, Any] | None


class Options(AdapterOptions):
    inner: MetricsStore


class Delegate:
    """Base of the mutants: an adapter that leaves everything to `inner`."""

    Options = Options


class Records(Delegate):
    """Base of mutants that record otherwise: several numbers at once, or one, as if several."""

    def keep(
        self, opts: Options, run: str, numbers: Mapping[str, float], step: Any, meta: Any
    ) -> None:
        opts.inner.record_many(run, numbers, step, meta)

    @hookimpl
    def record(
        self,
        opts: Options,
        run_id: str,
        metric: str,
        value: float,
        step: int | None,
        metadata: Metadata,
    ) -> None:
        self.keep(opts, run_id, {metric: value}, step, metadata)

    @hookimpl
    def record_many(
        self,
        opts: Options,
        run_id: str,
        metrics: Mapping[str, float],
        step: int | None,
        metadata: Metadata,
    ) -> None:
        self.keep(opts, run_id, metrics, step, metadata)


class Reads(Delegate):
    """Base of mutants that show rows otherwise than they are."""

    def shown(self, row: MetricEntry) -> MetricEntry:
        return row

    @hookimpl
    def read(self, opts: Options, run_id: str) -> list[MetricEntry]:
        return [self.shown(row) for row in opts.inner.read(run_id)]


# --- several numbers together ---


class RecordsUntilOneIsRefused(Records):
    def keep(self, opts: Options, run: str, numbers: Any, step: Any, meta: Any) -> None:
        for metric, value in numbers.items():
            opts.inner.record(run, metric, value, step, meta)


class ForgetsTheStepOfWhatIsRefused(Records):
    """It makes room before it looks at what is to be recorded."""

    def keep(self, opts: Options, run: str, numbers: Any, step: Any, meta: Any) -> None:
        if len(numbers) > 1:
            opts.inner.record_many(run, dict.fromkeys(numbers, 0.0), step, meta)
        opts.inner.record_many(run, numbers, step, meta)


class ShowsEachNumberAsItComes(Records):
    def keep(self, opts: Options, run: str, numbers: Any, step: Any, meta: Any) -> None:
        for metric, value in numbers.items():
            check_metric(metric, value, step, meta)
        for metric, value in numbers.items():
            opts.inner.record(run, metric, value, step, meta)
            time.sleep(0)  # other threads run


class BeginsARunForNoNumbers(Records):
    def __init__(self) -> None:
        self.begun: set[str] = set()

    def keep(self, opts: Options, run: str, numbers: Any, step: Any, meta: Any) -> None:
        self.begun.add(run)
        opts.inner.record_many(run, numbers, step, meta)

    @hookimpl
    def runs(self, opts: Options) -> list[str]:
        return sorted({*opts.inner.runs(), *self.begun})


class SendsAThousandNumbers(Records):
    def keep(self, opts: Options, run: str, numbers: Any, step: Any, meta: Any) -> None:
        opts.inner.record_many(run, dict([*numbers.items()][:1000]), step, meta)


class AddsToTheMetadata(Records):
    def keep(self, opts: Options, run: str, numbers: Any, step: Any, meta: Any) -> None:
        if isinstance(meta, dict):
            meta["host"] = "a"
        opts.inner.record_many(run, numbers, step, dict(meta or {}))


class EmptiesTheMapping(Records):
    def keep(self, opts: Options, run: str, numbers: Any, step: Any, meta: Any) -> None:
        opts.inner.record_many(run, numbers, step, meta)
        if isinstance(numbers, dict):
            numbers.clear()


class WantsADictionary(Records):
    def keep(self, opts: Options, run: str, numbers: Any, step: Any, meta: Any) -> None:
        opts.inner.record_many(run, numbers.copy(), step, meta)
        if not isinstance(numbers, dict):
            raise Unsupported("a dictionary, please")


class KeepsTheCallersMapping(Records):
    """It checks at once, and reads the mapping when it writes."""

    def __init__(self) -> None:
        self.held: list[tuple[Any, ...]] = []
        self.lock = threading.Lock()

    def keep(self, opts: Options, run: str, numbers: Any, step: Any, meta: Any) -> None:
        for metric, value in numbers.items():
            check_metric(metric, value, step, meta)
        with self.lock:
            self.held.append((run, numbers, step, meta))

    def write(self, opts: Options) -> None:
        with self.lock:
            held, self.held = self.held, []
        for row in held:
            opts.inner.record_many(*row)

    @hookimpl
    def flush(self, opts: Options, run_id: str) -> None:
        self.write(opts)

    @hookimpl
    def read(self, opts: Options, run_id: str) -> list[MetricEntry]:
        self.write(opts)
        return opts.inner.read(run_id)


# --- names and steps ---


class CutsLongNames(Records):
    def keep(self, opts: Options, run: str, numbers: Any, step: Any, meta: Any) -> None:
        opts.inner.record_many(run, {n[:250]: v for n, v in numbers.items()}, step, meta)


class DropsWhatItCannotEncode(Records):
    def keep(self, opts: Options, run: str, numbers: Any, step: Any, meta: Any) -> None:
        names = {name: name.encode("utf-8", "ignore").decode() for name in numbers}
        opts.inner.record_many(run, {names[n]: v for n, v in numbers.items()}, step, meta)


class LosesAnEmptyPart(Reads):
    def shown(self, row: MetricEntry) -> MetricEntry:
        return replace(row, metric="/".join(filter(None, row.metric.split("/"))) or row.metric)


class ReadsDigitsAsANumber(Reads):
    def shown(self, row: MetricEntry) -> MetricEntry:
        return replace(row, metric=str(int(row.metric))) if row.metric.isdecimal() else row


class CutsLongIds(Records):
    def keep(self, opts: Options, run: str, numbers: Any, step: Any, meta: Any) -> None:
        opts.inner.record_many(run[:255], numbers, step, meta)

    @hookimpl
    def read(self, opts: Options, run_id: str) -> list[MetricEntry]:
        return [replace(row, run_id=run_id) for row in opts.inner.read(run_id[:255])]


class BoundsItsSteps(Records):
    def keep(self, opts: Options, run: str, numbers: Any, step: Any, meta: Any) -> None:
        bounded = max(-(2**63), min(step, 2**63 - 1)) if isinstance(step, int) else step
        opts.inner.record_many(run, numbers, bounded, meta)


class WrapsItsSteps(Records):
    def keep(self, opts: Options, run: str, numbers: Any, step: Any, meta: Any) -> None:
        wrapped = (step + 2**63) % 2**64 - 2**63 if isinstance(step, int) else step
        opts.inner.record_many(run, numbers, wrapped, meta)


# --- metadata and time ---


def _changed(value: Any, change: Any) -> Any:
    if isinstance(value, dict):
        return {name: _changed(each, change) for name, each in value.items()}
    if isinstance(value, list):
        return [_changed(each, change) for each in value]
    return change(value)


class LeavesNoneOut(Reads):
    def shown(self, row: MetricEntry) -> MetricEntry:
        kept = {name: value for name, value in row.metadata.items() if value is not None}
        return replace(row, metadata=kept)


class ReadsLargeIntegersAsFloats(Reads):
    def shown(self, row: MetricEntry) -> MetricEntry:
        def change(value: Any) -> Any:
            return float(value) if type(value) is int and abs(value) > 2**31 else value

        return replace(row, metadata=_changed(row.metadata, change))


class CutsLongTexts(Reads):
    def shown(self, row: MetricEntry) -> MetricEntry:
        def change(value: Any) -> Any:
            return value[:8000] if isinstance(value, str) else value

        return replace(row, metadata=_changed(row.metadata, change))


class KeepsTheFirstTime(Reads):
    def __init__(self) -> None:
        self.first: dict[Any, datetime] = {}

    def shown(self, row: MetricEntry) -> MetricEntry:
        if row.step is None:
            return row
        key = (row.run_id, row.metric, row.step)
        return replace(row, timestamp=self.first.setdefault(key, row.timestamp))


# --- runs ---


class ListsWhatIsFlushed(Reads):
    def __init__(self) -> None:
        self.flushed: set[str] = set()

    @hookimpl
    def flush(self, opts: Options, run_id: str) -> None:
        opts.inner.flush(run_id)
        self.flushed.add(run_id)

    @hookimpl
    def runs(self, opts: Options) -> list[str]:
        return [run for run in opts.inner.runs() if run in self.flushed]


class ListsRunsThatHaveSteps(Reads):
    @hookimpl
    def runs(self, opts: Options) -> list[str]:
        found = opts.inner.runs()
        return [run for run in found if any(r.step is not None for r in opts.inner.read(run))]


TOGETHER = "numbers_of_one_call_are_recorded_all_or_none"
CALLERS = "what_is_recorded_stays_the_caller_s"
NAME = "a_metric_keeps_its_name_or_is_refused"
STEP = "a_step_of_any_size_is_exact_or_refused"
METADATA = "any_metadata_comes_back"
RUNS = "every_run_that_has_rows_is_listed"

MUTANTS = [
    Mutant("metrics_store", adapter, f"test_{killed_by}")
    for adapter, killed_by in (
        (RecordsUntilOneIsRefused(), TOGETHER),
        (ForgetsTheStepOfWhatIsRefused(), TOGETHER),
        (ShowsEachNumberAsItComes(), "a_reader_sees_all_numbers_of_a_call_or_none"),
        (BeginsARunForNoNumbers(), "no_numbers_begin_no_run"),
        (SendsAThousandNumbers(), "many_numbers_of_one_call_are_all_recorded"),
        (AddsToTheMetadata(), CALLERS),
        (EmptiesTheMapping(), CALLERS),
        (WantsADictionary(), CALLERS),
        (KeepsTheCallersMapping(), CALLERS),
        (CutsLongNames(), NAME),
        (DropsWhatItCannotEncode(), NAME),
        (LosesAnEmptyPart(), NAME),
        (ReadsDigitsAsANumber(), NAME),
        (CutsLongIds(), "a_run_keeps_its_id_or_is_refused"),
        (BoundsItsSteps(), STEP),
        (WrapsItsSteps(), STEP),
        (LeavesNoneOut(), METADATA),
        (ReadsLargeIntegersAsFloats(), METADATA),
        (CutsLongTexts(), METADATA),
        (KeepsTheFirstTime(), "a_row_that_replaces_says_when_it_was_recorded"),
        (ListsWhatIsFlushed(), RUNS),
        (ListsRunsThatHaveSteps(), RUNS),
    )
]
