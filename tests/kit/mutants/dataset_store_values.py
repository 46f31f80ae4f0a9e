"""Dataset stores with one fault each in what they make of files, and of orders."""

from __future__ import annotations

import atexit
import html
import itertools
import json
import math
import tempfile
import unicodedata
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from crucible_kitchen import InvalidInput, hookimpl

from . import Mutant
from .dataset_store import Delegate, JsonLines, Lines, Options, Row

Change = Callable[[Any], Any]

_folder = tempfile.TemporaryDirectory()
atexit.register(_folder.cleanup)
_numbers = itertools.count()


# --- values ---


class Changes(Delegate):
    """A mutant that changes what is in a row."""

    def text(self, value: str) -> Any:
        return value

    def number(self, value: float) -> Any:
        return value

    def field(self, name: str) -> str:
        return name

    def changed(self, value: Any) -> Any:
        if isinstance(value, dict):
            return {self.field(name): self.changed(inner) for name, inner in value.items()}
        if isinstance(value, list):
            return [self.changed(inner) for inner in value]
        if isinstance(value, str):
            return self.text(value)
        return self.number(value) if isinstance(value, float) else value

    @hookimpl
    def to_list(self, opts: Options, handle: Lines) -> list[Row]:
        return [self.changed(row) for row in opts.inner.to_list(handle)]


class NormalisesTexts(Changes):
    def text(self, value: str) -> Any:
        return unicodedata.normalize("NFC", value)


class UnescapesEntities(Changes):
    def text(self, value: str) -> Any:
        return html.unescape(value)


class CutsLongTexts(Changes):
    def text(self, value: str) -> Any:
        return value[:32767]


class DropsInvisibleCharacters(Changes):
    def text(self, value: str) -> Any:
        return value.replace("\u200b", "").replace("\ufeff", "")


class EndsTextsAtANul(Changes):
    def text(self, value: str) -> Any:
        return value.partition("\0")[0]


class DropsTheLastLineEnd(Changes):
    def text(self, value: str) -> Any:
        return value.removesuffix("\n")


class KnowsInfinity(Changes):
    def text(self, value: str) -> Any:
        return float(value) if value in ("Infinity", "-inf") else value


class RoundsFloats(Changes):
    def number(self, value: float) -> Any:
        return round(value, 12)


class TakesWholeFloatsForIntegers(Changes):
    def number(self, value: float) -> Any:
        return int(value) if value.is_integer() else value


class LosesTheSignOfZero(Changes):
    def number(self, value: float) -> Any:
        return value + 0.0


class TakesWhatIsNotANumberForNone(Changes):
    def number(self, value: float) -> Any:
        return value if math.isfinite(value) else None


class SortsFields(Changes):
    def changed(self, value: Any) -> Any:
        value = super().changed(value)
        return dict(sorted(value.items())) if isinstance(value, dict) else value


class HasTheOrderOfTheFirstRow(Changes):
    @hookimpl
    def to_list(self, opts: Options, handle: Lines) -> list[Row]:
        rows = opts.inner.to_list(handle)
        order = dict.fromkeys(name for row in rows for name in row)
        return [{name: row[name] for name in order if name in row} for row in rows]


class StripsFieldNames(Changes):
    def field(self, name: str) -> str:
        return name.strip()


class DropsTheIndexOfATable(Changes):
    def changed(self, value: Any) -> Any:
        value = super().changed(value)
        if isinstance(value, dict):
            value.pop("Unnamed: 0", None)
        return value


# --- files ---


class Rewrites(Delegate):
    """A mutant that opens another file in the place of the one that was asked for."""

    def content(self, old: bytes) -> bytes:
        return old

    @hookimpl
    def load_dataset(
        self, opts: Options, dataset_id: str, split: str | None, streaming: bool
    ) -> Any:
        old = Path(dataset_id)
        if not old.is_file():
            return opts.inner.load_dataset(dataset_id, split, streaming=streaming)
        folder = Path(_folder.name) / str(next(_numbers))
        folder.mkdir()
        (folder / old.name).write_bytes(self.content(old.read_bytes()))
        return opts.inner.load_dataset(str(folder / old.name), split, streaming=streaming)


class LosesALineWithoutAnEnd(Rewrites):
    def content(self, old: bytes) -> bytes:
        return old[: old.rindex(b"\n") + 1]


class StopsAtAnEmptyLine(Rewrites):
    def content(self, old: bytes) -> bytes:
        return old.lstrip().partition(b"\n\n")[0]


class SkipsWhatIsNoRow(Rewrites):
    def content(self, old: bytes) -> bytes:
        def is_row(line: bytes) -> bool:
            try:
                return isinstance(json.loads(line), dict)
            except ValueError:
                return False

        return b"\n".join(line for line in old.split(b"\n") if is_row(line))


class ReplacesWhatItCannotDecode(Rewrites):
    def content(self, old: bytes) -> bytes:
        return old.decode(errors="replace").encode()


class SkipsWhatIsNoObject(Rewrites):
    def content(self, old: bytes) -> bytes:
        return b"\n".join(line for line in old.split(b"\n") if line.strip()[:1] == b"{")


class DoesNotSayWhere(Delegate):
    @hookimpl
    def load_dataset(
        self, opts: Options, dataset_id: str, split: str | None, streaming: bool
    ) -> Any:
        try:
            return opts.inner.load_dataset(dataset_id, split, streaming=streaming)
        except InvalidInput:
            raise InvalidInput("Expecting value: line 1 column 1 (char 0)") from None


class Remembers(Delegate):
    """A mutant with a cache of what was opened."""

    def __init__(self) -> None:
        self.opened: dict[Any, Any] = {}

    def key(self, file: Path) -> Any:
        return file

    @hookimpl
    def load_dataset(
        self, opts: Options, dataset_id: str, split: str | None, streaming: bool
    ) -> Any:
        file = Path(dataset_id)
        key = self.key(file), split
        if not file.is_file() or key not in self.opened:
            self.opened[key] = opts.inner.load_dataset(dataset_id, split, streaming=streaming)
        return self.opened[key]


class RemembersPaths(Remembers):
    pass


class RemembersPathsAndSizes(Remembers):
    def key(self, file: Path) -> Any:
        return file, file.stat().st_size if file.is_file() else 0


class RemembersNamesAndRows(Remembers):
    def key(self, file: Path) -> Any:
        return file.name, file.read_bytes()[-12:] if file.is_file() else b""


# --- orders, splits, batches ---


class Reorders(Delegate):
    """A mutant that shuffles by itself."""

    def lines(self, handle: Lines, seed: int, buffer_size: int | None) -> tuple[str, ...]:
        return handle.lines

    @hookimpl
    def shuffle(self, opts: Options, handle: Lines, seed: int, buffer_size: int | None) -> Any:
        opts.inner.shuffle(handle, seed, buffer_size)  # refuses what is wrong
        return Lines(handle.file, self.lines(handle, seed, buffer_size))


def _mixed(lines: tuple[str, ...], seed: int) -> list[str]:
    keys = np.random.PCG64(abs(seed)).random_raw(len(lines))
    return [lines[index] for index in np.argsort(keys, kind="stable")]


class MixesThePathIntoTheSeed(Reorders):
    def lines(self, handle: Lines, seed: int, buffer_size: int | None) -> tuple[str, ...]:
        return tuple(_mixed(handle.lines, seed + sum(str(handle.file).encode())))


class ShufflesWithinBlocks(Reorders):
    def lines(self, handle: Lines, seed: int, buffer_size: int | None) -> tuple[str, ...]:
        blocks = _blocks(handle.lines, 16)
        return tuple(line for block in blocks for line in _mixed(block, seed))


class BeginsElsewhere(Reorders):
    def lines(self, handle: Lines, seed: int, buffer_size: int | None) -> tuple[str, ...]:
        start = np.random.PCG64(abs(seed)).random_raw() % max(1, len(handle.lines))
        return handle.lines[start:] + handle.lines[:start]


class UsesABufferThatItDoesNotNeed(Reorders):
    def lines(self, handle: Lines, seed: int, buffer_size: int | None) -> tuple[str, ...]:
        blocks = _blocks(handle.lines, buffer_size or 1000)
        return tuple(line for block in blocks for line in _mixed(block, seed))


def _blocks(lines: tuple[str, ...], size: int) -> Iterator[tuple[str, ...]]:
    return (lines[start : start + size] for start in range(0, len(lines), size))


class TakesTheBeginningOfASplit(Delegate):
    @hookimpl
    def get_split(self, opts: Options, handle: Lines, split: str) -> Any:
        name = next((name for name in ("train", "test") if name.startswith(split)), split)
        return opts.inner.get_split(handle, name)


class IgnoresTheCaseOfSplits(Delegate):
    @hookimpl
    def get_split(self, opts: Options, handle: Lines, split: str) -> Any:
        return opts.inner.get_split(handle, split.lower())


class EndsBatchesWithItsBuffer(Delegate):
    @hookimpl
    def stream(self, opts: Options, handle: Lines, batch_size: int) -> Iterator[list[Row]]:
        for batch in opts.inner.stream(handle, max(batch_size, 1000) if batch_size > 0 else 0):
            for start in range(0, len(batch), batch_size):
                yield batch[start : start + batch_size]


class LeavesFilesOpen(Delegate):
    def __init__(self) -> None:
        self.files: list[Any] = []

    @hookimpl
    def stream(self, opts: Options, handle: Lines, batch_size: int) -> Iterator[list[Row]]:
        self.files.append(handle.file.open("rb"))
        yield from opts.inner.stream(handle, batch_size)
        self.files.pop().close()


_TEXTS = "a_text_keeps_every_character"
_FLOATS = "a_float_keeps_every_digit"
_FIELDS = "fields_have_their_names_and_their_order"
_ENDS = "every_row_of_a_file_is_read_however_it_ends"
_WRONG = "what_is_no_row_is_refused_with_its_place"
_CHANGED = "a_file_that_has_changed_is_read_as_it_is"
_MIXED = "a_shuffle_mixes_all_rows"
_SPLIT = "a_split_has_one_name"

MUTANTS = [
    Mutant("dataset_store", adapter, f"test_{killed_by}", inner={"use": JsonLines()})
    for adapter, killed_by in (
        (NormalisesTexts(), _TEXTS),
        (UnescapesEntities(), _TEXTS),
        (CutsLongTexts(), _TEXTS),
        (DropsInvisibleCharacters(), _TEXTS),
        (EndsTextsAtANul(), _TEXTS),
        (DropsTheLastLineEnd(), _TEXTS),
        (KnowsInfinity(), _TEXTS),
        (RoundsFloats(), _FLOATS),
        (TakesWholeFloatsForIntegers(), _FLOATS),
        (LosesTheSignOfZero(), _FLOATS),
        (TakesWhatIsNotANumberForNone(), "what_is_not_a_number_is_that_or_refused"),
        (SortsFields(), _FIELDS),
        (HasTheOrderOfTheFirstRow(), _FIELDS),
        (StripsFieldNames(), _FIELDS),
        (DropsTheIndexOfATable(), _FIELDS),
        (LosesALineWithoutAnEnd(), _ENDS),
        (StopsAtAnEmptyLine(), _ENDS),
        (SkipsWhatIsNoRow(), _WRONG),
        (ReplacesWhatItCannotDecode(), _WRONG),
        (SkipsWhatIsNoObject(), _WRONG),
        (DoesNotSayWhere(), _WRONG),
        (RemembersPaths(), _CHANGED),
        (RemembersPathsAndSizes(), _CHANGED),
        (RemembersNamesAndRows(), _CHANGED),
        (MixesThePathIntoTheSeed(), "the_order_does_not_depend_on_the_name"),
        (ShufflesWithinBlocks(), _MIXED),
        (BeginsElsewhere(), _MIXED),
        (UsesABufferThatItDoesNotNeed(), _MIXED),
        (TakesTheBeginningOfASplit(), _SPLIT),
        (IgnoresTheCaseOfSplits(), _SPLIT),
        (LeavesFilesOpen(), "a_stream_that_was_left_keeps_no_file_open"),
        (EndsBatchesWithItsBuffer(), "batches_are_full_whatever_the_size_of_the_data"),
    )
]
