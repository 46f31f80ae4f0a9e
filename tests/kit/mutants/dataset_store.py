"""Dataset stores with one fault each, made of a right one that is small and quick."""

from __future__ import annotations

import atexit
import itertools
import json
import random
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import crucible_adapter_hf_datasets.dataset_store as hf_datasets
from crucible_kitchen import (
    AdapterOptions,
    DatasetStore,
    InvalidInput,
    NotFound,
    hookimpl,
)

from . import Mutant

Row = dict[str, Any]


@dataclass(frozen=True, slots=True, eq=False)
class Lines:
    """The lines of a JSON Lines file, in some order, whole or in a folder of splits."""

    file: Path
    lines: tuple[str, ...]


class NoOptions(AdapterOptions):
    pass


class JsonLines:
    """A right store, of files."""

    Options = NoOptions

    @hookimpl
    def load_dataset(
        self, opts: NoOptions, dataset_id: str, split: str | None, streaming: bool
    ) -> Lines:
        file = Path(dataset_id)
        if not file.is_file():
            raise NotFound(f"there is no file {file}")
        return self._open(file, "train" if split is None else split)

    @hookimpl
    def get_split(self, opts: NoOptions, handle: Lines, split: str) -> Lines:
        return self._open(handle.file, split)

    def _open(self, file: Path, split: str) -> Lines:
        files = {"train": file, "test": file}
        if split not in files:
            raise NotFound(f"there is no split {split!r}; there are {', '.join(files)}")
        lines = tuple(self._rows(file))
        return Lines(file, lines if split == "train" else lines[:30])

    def _rows(self, file: Path) -> Iterator[str]:
        for number, line in enumerate(file.read_bytes().split(b"\n"), 1):
            if line.strip():
                try:
                    if not isinstance(json.loads(line), dict):
                        raise ValueError("not an object")
                except ValueError as error:
                    raise InvalidInput(f"{file}, line {number}: {error}") from error
                yield line.decode()

    @hookimpl
    def shuffle(self, opts: NoOptions, handle: Lines, seed: int, buffer_size: int | None) -> Lines:
        if buffer_size is not None and buffer_size < 1:
            raise InvalidInput("buffer_size")
        numbers = random.Random(str(seed))
        lines = sorted(handle.lines, key=lambda _: numbers.random())
        return Lines(handle.file, tuple(lines))

    @hookimpl
    def take(self, opts: NoOptions, handle: Lines, count: int) -> Lines:
        if count < 0:
            raise InvalidInput("count")
        return Lines(handle.file, handle.lines[:count])

    @hookimpl
    def skip(self, opts: NoOptions, handle: Lines, count: int) -> Lines:
        if count < 0:
            raise InvalidInput("count")
        return Lines(handle.file, handle.lines[count:])

    @hookimpl
    def select(self, opts: NoOptions, handle: Lines, selection: range | Sequence[int]) -> Lines:
        if any(not isinstance(i, int) or not 0 <= i < len(handle.lines) for i in selection):
            raise InvalidInput("selection")
        return Lines(handle.file, tuple(handle.lines[index] for index in selection))

    @hookimpl
    def to_list(self, opts: NoOptions, handle: Lines) -> list[Row]:
        return [json.loads(line) for line in handle.lines]

    @hookimpl
    def stream(self, opts: NoOptions, handle: Lines, batch_size: int) -> Iterator[list[Row]]:
        if batch_size < 1:
            raise InvalidInput("batch_size")
        for start in range(0, len(handle.lines), batch_size):
            yield [json.loads(line) for line in handle.lines[start : start + batch_size]]


class Options(AdapterOptions):
    inner: DatasetStore


class Delegate:
    """Base of the mutants: an adapter that leaves everything to `inner`."""

    Options = Options


class ShufflesDifferentlyTheSecondTime(Delegate):
    def __init__(self) -> None:
        self.calls = itertools.count()

    @hookimpl
    def shuffle(self, opts: Options, handle: Lines, seed: int, buffer_size: int | None) -> Any:
        return opts.inner.shuffle(handle, seed + 1000 * next(self.calls), buffer_size)


class IgnoresTheSeed(Delegate):
    @hookimpl
    def shuffle(self, opts: Options, handle: Lines, seed: int, buffer_size: int | None) -> Any:
        return opts.inner.shuffle(handle, 0, buffer_size)


class TakesSeedZeroForNone(Delegate):
    @hookimpl
    def shuffle(self, opts: Options, handle: Lines, seed: int, buffer_size: int | None) -> Any:
        return opts.inner.shuffle(handle, seed or 42, buffer_size)


class MixesTheHistoryIntoTheSeed(Delegate):
    @hookimpl
    def take(self, opts: Options, handle: Lines, count: int) -> Any:
        part = opts.inner.take(handle, count)
        return Lines(part.file / "taken", part.lines)

    @hookimpl
    def shuffle(self, opts: Options, handle: Lines, seed: int, buffer_size: int | None) -> Any:
        return opts.inner.shuffle(handle, seed + str(handle.file).count("taken"), buffer_size)


class SaltsTheSeedInEachProcess(Delegate):
    """Each binding is another process; the salt is its options' identity."""

    @hookimpl
    def shuffle(self, opts: Options, handle: Lines, seed: int, buffer_size: int | None) -> Any:
        return opts.inner.shuffle(handle, seed + id(opts), buffer_size)


class RepeatsARow(Delegate):
    @hookimpl
    def shuffle(self, opts: Options, handle: Lines, seed: int, buffer_size: int | None) -> Any:
        shuffled = opts.inner.shuffle(handle, seed, buffer_size)
        if buffer_size is None or len(shuffled.lines) <= buffer_size:
            return shuffled
        return Lines(shuffled.file, (*shuffled.lines[:-1], shuffled.lines[0]))


class TakesNoBufferForTheDefault(Delegate):
    @hookimpl
    def shuffle(self, opts: Options, handle: Lines, seed: int, buffer_size: int | None) -> Any:
        return opts.inner.shuffle(handle, seed, buffer_size or None)


class ShufflesTheRestAnew(Delegate):
    @hookimpl
    def skip(self, opts: Options, handle: Lines, count: int) -> Any:
        rest = opts.inner.skip(handle, count)
        stored = opts.inner.get_split(handle, "train")
        if count and rest.lines and rest.lines != stored.lines[-len(rest.lines) :]:
            return opts.inner.shuffle(rest, 1)
        return rest


class LosesRowsAtAResumedPosition(Delegate):
    """Forgets what would be in a buffer of 5 rows, unless at a multiple of it."""

    @hookimpl
    def skip(self, opts: Options, handle: Lines, count: int) -> Any:
        stored = opts.inner.get_split(handle, "train").lines[: len(handle.lines)]
        shuffled = len(handle.lines) > 100 and handle.lines != stored
        return opts.inner.skip(handle, count + (count % 5 if shuffled else 0))


class RaisesPastTheEnd(Delegate):
    @hookimpl
    def take(self, opts: Options, handle: Lines, count: int) -> Any:
        return opts.inner.select(handle, range(count)) if count > 0 else opts.inner.take(handle, 0)


class TakesNoneForAll(Delegate):
    @hookimpl
    def take(self, opts: Options, handle: Lines, count: int) -> Any:
        return opts.inner.take(handle, count) if count else handle


class SlicesFromTheEnd(Delegate):
    @hookimpl
    def skip(self, opts: Options, handle: Lines, count: int) -> Any:
        return Lines(handle.file, handle.lines[count:])


class CountsIndicesFromTheEnd(Delegate):
    @hookimpl
    def select(self, opts: Options, handle: Lines, selection: Sequence[int]) -> Any:
        count = len(handle.lines)
        return opts.inner.select(handle, [i + count if i < 0 else i for i in selection])


class ChecksIndicesAgainstWhatIsStored(Delegate):
    @hookimpl
    def select(self, opts: Options, handle: Lines, selection: Sequence[int]) -> Any:
        opts.inner.select(opts.inner.get_split(handle, "train"), selection)
        return opts.inner.select(handle, [i for i in selection if i < len(handle.lines)])


class LooksIndicesUpInWhatIsStored(Delegate):
    @hookimpl
    def select(self, opts: Options, handle: Lines, selection: Sequence[int]) -> Any:
        opts.inner.select(handle, selection)
        return opts.inner.select(opts.inner.get_split(handle, "train"), selection)


class SortsIndices(Delegate):
    @hookimpl
    def select(self, opts: Options, handle: Lines, selection: Sequence[int]) -> Any:
        return opts.inner.select(handle, sorted(selection))


class DropsRepeatedIndices(Delegate):
    @hookimpl
    def select(self, opts: Options, handle: Lines, selection: Sequence[int]) -> Any:
        return opts.inner.select(handle, list(dict.fromkeys(selection)))


class SharesItsRows(Delegate):
    def __init__(self) -> None:
        self.rows: dict[str, Row] = {}

    @hookimpl
    def to_list(self, opts: Options, handle: Lines) -> list[Row]:
        return [self.rows.setdefault(line, json.loads(line)) for line in handle.lines]


class CopiesItsRowsShallowly(Delegate):
    def __init__(self) -> None:
        self.rows: dict[str, Row] = {}

    @hookimpl
    def to_list(self, opts: Options, handle: Lines) -> list[Row]:
        return [dict(self.rows.setdefault(line, json.loads(line))) for line in handle.lines]


class ShufflesInPlace(Delegate):
    @hookimpl
    def shuffle(self, opts: Options, handle: Lines, seed: int, buffer_size: int | None) -> Any:
        shuffled = opts.inner.shuffle(handle, seed, buffer_size)
        object.__setattr__(handle, "lines", shuffled.lines)
        return handle


class SkipsInPlace(Delegate):
    @hookimpl
    def skip(self, opts: Options, handle: Lines, count: int) -> Any:
        rest = opts.inner.skip(handle, count)
        object.__setattr__(handle, "lines", rest.lines)
        return rest


class KeepsTheOrderForAnotherSplit(Delegate):
    @hookimpl
    def get_split(self, opts: Options, handle: Lines, split: str) -> Any:
        other = opts.inner.get_split(handle, split)
        return handle if sorted(handle.lines) == sorted(other.lines) else other


class TakesAMissingSplitForTheFirst(Delegate):
    @hookimpl
    def get_split(self, opts: Options, handle: Lines, split: str) -> Any:
        try:
            return opts.inner.get_split(handle, split)
        except NotFound:
            return opts.inner.get_split(handle, "train")


class DoesNotListTheSplits(Delegate):
    @hookimpl
    def get_split(self, opts: Options, handle: Lines, split: str) -> Any:
        try:
            return opts.inner.get_split(handle, split)
        except NotFound as error:
            raise NotFound(f"there is no split {split!r}") from error


class TakesAMissingFileForAnEmptyOne(Delegate):
    @hookimpl
    def load_dataset(
        self, opts: Options, dataset_id: str, split: str | None, streaming: bool
    ) -> Any:
        try:
            return opts.inner.load_dataset(dataset_id, split, streaming=streaming)
        except NotFound:
            if Path(dataset_id).exists():
                raise
            return Lines(Path(dataset_id), ())


class DropsMissingValues(Delegate):
    @hookimpl
    def to_list(self, opts: Options, handle: Lines) -> list[Row]:
        rows = opts.inner.to_list(handle)
        return [{key: value for key, value in row.items() if value is not None} for row in rows]


class TakesEmptyTextForMissing(Delegate):
    @hookimpl
    def to_list(self, opts: Options, handle: Lines) -> list[Row]:
        rows = opts.inner.to_list(handle)
        return [{k: None if v == "" else v for k, v in row.items()} for row in rows]


class MakesFloatsOfIntegersWithGaps(Delegate):
    @hookimpl
    def to_list(self, opts: Options, handle: Lines) -> list[Row]:
        rows = opts.inner.to_list(handle)
        for row in rows:
            row["count"] = None if row["count"] is None else float(row["count"])
        return rows


class TakesDigitsForANumber(Delegate):
    @hookimpl
    def to_list(self, opts: Options, handle: Lines) -> list[Row]:
        rows = opts.inner.to_list(handle)
        if all(str(row.get("text", "x")).isdecimal() for row in rows):  # a column of them
            return [{"text": int(row["text"])} for row in rows]
        return rows


class TakesWordsForMissingValues(Delegate):
    @hookimpl
    def to_list(self, opts: Options, handle: Lines) -> list[Row]:
        rows = opts.inner.to_list(handle)
        return [{k: None if v in ("NA", "nan") else v for k, v in row.items()} for row in rows]


class MakesFloatsOfLongIntegers(Delegate):
    @hookimpl
    def to_list(self, opts: Options, handle: Lines) -> list[Row]:
        rows = opts.inner.to_list(handle)
        for row in rows:
            if isinstance(number := row.get("n"), int) and not -(2**63) <= number < 2**63:
                row["n"] = float(number)
        return rows


class FitsLateValuesToTheFirst(Delegate):
    @hookimpl
    def to_list(self, opts: Options, handle: Lines) -> list[Row]:
        rows = opts.inner.to_list(handle)
        for row in rows[5000:]:
            if isinstance(rows[0]["answer"], int) and str(row["answer"]).isdecimal():
                row["answer"] = int(row["answer"])
        return rows


class LeavesOutLateFields(Delegate):
    @hookimpl
    def to_list(self, opts: Options, handle: Lines) -> list[Row]:
        rows = opts.inner.to_list(handle)
        known = {key for row in rows[:5000] for key in row}
        return [{key: value for key, value in row.items() if key in known} for row in rows]


class GivesRowsTheFieldsOfAll(Delegate):
    @hookimpl
    def to_list(self, opts: Options, handle: Lines) -> list[Row]:
        rows = opts.inner.to_list(handle)
        every = {key: None for row in rows for key in row}
        return [{**every, **row} for row in rows]


class GivesArgumentsTheNamesOfAll(Delegate):
    @hookimpl
    def to_list(self, opts: Options, handle: Lines) -> list[Row]:
        rows = opts.inner.to_list(handle)
        calls = [message["call"] for row in rows for message in row.get("messages", ())]
        every = {key: None for call in calls for key in call["arguments"] or ()}
        for call in calls:
            call["arguments"] = call["arguments"] and {**every, **call["arguments"]}
        return rows


class DropsNullsWithin(Delegate):
    @hookimpl
    def to_list(self, opts: Options, handle: Lines) -> list[Row]:
        return [
            {key: _without_nulls(v) for key, v in r.items()} for r in opts.inner.to_list(handle)
        ]


def _without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nulls(v) for key, v in value.items() if v is not None}
    return [_without_nulls(item) for item in value] if isinstance(value, list) else value


class DropsTheShortLastBatch(Delegate):
    @hookimpl
    def stream(self, opts: Options, handle: Lines, batch_size: int) -> Iterator[list[Row]]:
        for batch in opts.inner.stream(handle, batch_size):
            if len(batch) == batch_size:
                yield batch


class StopsOneBatchEarly(Delegate):
    @hookimpl
    def stream(self, opts: Options, handle: Lines, batch_size: int) -> Iterator[list[Row]]:
        batches = list(opts.inner.stream(handle, batch_size))
        yield from batches[:-1] if len(batches) > 20 else batches


class StreamsAnEmptyBatch(Delegate):
    @hookimpl
    def stream(self, opts: Options, handle: Lines, batch_size: int) -> Iterator[list[Row]]:
        yield from list(opts.inner.stream(handle, batch_size)) or [[]]


class StreamsFromOnePosition(Delegate):
    """Goes on where the last stream of the handle was left."""

    def __init__(self) -> None:
        self.left: dict[int, tuple[Lines, Iterator[list[Row]]]] = {}

    @hookimpl
    def stream(self, opts: Options, handle: Lines, batch_size: int) -> Iterator[list[Row]]:
        begun = iter(opts.inner.stream(handle, batch_size))
        _, batches = self.left.setdefault(id(handle), (handle, begun))
        yield from batches
        del self.left[id(handle)]


class ForgetsTheFirstOfTwoShuffles(Delegate):
    def __init__(self) -> None:
        self.made: dict[int, tuple[Any, Any]] = {}

    @hookimpl
    def shuffle(self, opts: Options, handle: Lines, seed: int, buffer_size: int | None) -> Any:
        _, before = self.made.get(id(handle), (None, handle))
        shuffled = opts.inner.shuffle(before, seed, buffer_size)
        self.made[id(shuffled)] = (shuffled, before)
        return shuffled


class RoundsIndices(Delegate):
    @hookimpl
    def select(self, opts: Options, handle: Lines, selection: range | Sequence[int]) -> Any:
        return opts.inner.select(handle, [int(index) for index in selection])


class IgnoresTheRevision(Delegate):
    @hookimpl
    def load_dataset(
        self,
        opts: Options,
        dataset_id: str,
        split: str | None,
        name: str | None,
        revision: str | None,
        streaming: bool,
    ) -> Any:
        return opts.inner.load_dataset(dataset_id, split, name, streaming=streaming)


class ChoosesTheFirstSplit(Delegate):
    @hookimpl
    def load_dataset(
        self, opts: Options, dataset_id: str, split: str | None, streaming: bool
    ) -> Any:
        return opts.inner.load_dataset(dataset_id, split or "train", streaming=streaming)


class ReadsWholeToStream(Delegate):
    @hookimpl
    def stream(self, opts: Options, handle: Any, batch_size: int) -> Iterator[list[Row]]:
        rows = opts.inner.to_list(handle)
        for start in range(0, len(rows), batch_size):
            yield rows[start : start + batch_size]


MUTANTS = [
    Mutant("dataset_store", adapter, f"test_{killed_by}", inner={"use": JsonLines()})
    for adapter, killed_by in (
        (ShufflesDifferentlyTheSecondTime(), "the_same_seed_gives_the_same_order"),
        (IgnoresTheSeed(), "other_seeds_give_other_orders"),
        (TakesSeedZeroForNone(), "other_seeds_give_other_orders"),
        (MixesTheHistoryIntoTheSeed(), "the_order_depends_on_the_seed_and_the_rows_alone"),
        (SaltsTheSeedInEachProcess(), "another_process_finds_the_same_order"),
        (RepeatsARow(), "a_shuffle_loses_nothing_and_repeats_nothing"),
        (TakesNoBufferForTheDefault(), "a_buffer_of_no_rows_is_refused"),
        (ShufflesTheRestAnew(), "skip_goes_on_exactly_where_reading_a_shuffle_stopped"),
        (LosesRowsAtAResumedPosition(), "skip_goes_on_exactly_where_reading_a_shuffle_stopped"),
        (RaisesPastTheEnd(), "take_and_skip_past_the_end_clamp"),
        (TakesNoneForAll(), "take_and_skip_of_no_rows"),
        (SlicesFromTheEnd(), "a_negative_number_of_rows_is_refused"),
        (CountsIndicesFromTheEnd(), "an_index_out_of_range_is_refused"),
        (ChecksIndicesAgainstWhatIsStored(), "an_index_out_of_range_is_refused"),
        (LooksIndicesUpInWhatIsStored(), "select_counts_the_rows_of_its_handle"),
        (SortsIndices(), "select_keeps_the_order_given_and_repeats"),
        (DropsRepeatedIndices(), "select_keeps_the_order_given_and_repeats"),
        (SharesItsRows(), "rows_may_be_changed_by_whoever_gets_them"),
        (CopiesItsRowsShallowly(), "rows_may_be_changed_by_whoever_gets_them"),
        (ShufflesInPlace(), "operations_leave_the_handle_as_it_was"),
        (SkipsInPlace(), "any_sequence_of_operations_does_what_lists_do"),
        (KeepsTheOrderForAnotherSplit(), "get_split_has_the_stored_order"),
        (TakesAMissingSplitForTheFirst(), "a_missing_split_is_not_found_and_the_splits_are_listed"),
        (DoesNotListTheSplits(), "a_missing_split_is_not_found_and_the_splits_are_listed"),
        (TakesAMissingFileForAnEmptyOne(), "a_missing_data_set_is_not_found"),
        (DropsMissingValues(), "missing_values_and_empty_texts_stay"),
        (TakesEmptyTextForMissing(), "missing_values_and_empty_texts_stay"),
        (MakesFloatsOfIntegersWithGaps(), "the_rows_are_those_that_are_stored"),
        (TakesDigitsForANumber(), "text_stays_text"),
        (TakesWordsForMissingValues(), "text_stays_text"),
        (MakesFloatsOfLongIntegers(), "integers_have_all_their_digits"),
        (FitsLateValuesToTheFirst(), "a_value_is_what_it_is_wherever_it_lies"),
        (LeavesOutLateFields(), "a_value_is_what_it_is_wherever_it_lies"),
        (
            GivesRowsTheFieldsOfAll(),
            "a_row_and_what_is_in_it_have_the_fields_that_were_stored",
        ),
        (
            GivesArgumentsTheNamesOfAll(),
            "a_row_and_what_is_in_it_have_the_fields_that_were_stored",
        ),
        (DropsNullsWithin(), "a_row_and_what_is_in_it_have_the_fields_that_were_stored"),
        (DropsTheShortLastBatch(), "a_stream_is_the_rows_in_batches"),
        (StopsOneBatchEarly(), "any_part_of_any_shuffle_is_the_same_part_of_its_rows"),
        (StreamsAnEmptyBatch(), "a_stream_of_no_rows_has_no_batches"),
        (StreamsFromOnePosition(), "a_stream_may_be_left_early"),
        (
            ForgetsTheFirstOfTwoShuffles(),
            "a_shuffle_of_a_shuffle_takes_the_rows_as_they_come",
        ),
        (RoundsIndices(), "an_index_that_is_no_integer_is_refused"),
        (IgnoresTheRevision(), "a_configuration_or_revision_that_does_not_exist_is_refused"),
    )
]

# What the small store does not do: choose among splits, and read a large file piece by piece.
_cache = tempfile.TemporaryDirectory()
atexit.register(_cache.cleanup)
MUTANTS += [
    Mutant(
        "dataset_store",
        adapter,
        f"test_{killed_by}",
        inner={"use": hf_datasets, "cache_dir": _cache.name},
    )
    for adapter, killed_by in (
        (ChoosesTheFirstSplit(), "of_several_splits_one_must_be_chosen"),
        (ReadsWholeToStream(), "a_stream_takes_bounded_memory"),
    )
]
