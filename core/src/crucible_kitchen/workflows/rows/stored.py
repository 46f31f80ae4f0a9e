"""Rows that stay where the dataset store has them, and are read by their numbers."""

from __future__ import annotations

import hashlib
import json
import marshal
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from ...errors import AdapterError, InvalidInput
from ...ports import DatasetStore
from ...types import IntArray

AT_ONCE = 1000
"""Rows that are read at a time where all of them are read."""

DIGEST_BYTES = 16
_PLAIN = frozenset({str, int, float, bool, bytes, type(None)})

NumberedRow: TypeAlias = tuple[str, dict[str, Any]]
"""A row with its name in messages: `row 12`, counted in its split."""

Digests: TypeAlias = npt.NDArray[np.uint8]
"""Digests of rows, `(n, DIGEST_BYTES)`."""


@dataclass(frozen=True, slots=True, eq=False)
class Segment:
    """Consecutive rows of a split.

    Args:
        handle: the dataset store's, of the whole split.
        numbers: of the rows in the split.
        digests: of all rows of the split.
        suffix: what follows the number in a row's name, such as ` of train`.
    """

    handle: Any
    numbers: range
    digests: Digests
    suffix: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class StoredRows:
    """Rows of a data set; those that are needed are read from the dataset store.

    Args:
        store: the dataset store.
        segments: where the rows are.
        places: int64 `(n,)`, which rows of the segments, counted through all of them in order.
    """

    store: DatasetStore
    segments: Sequence[Segment]
    places: IntArray

    @classmethod
    def of(cls, store: DatasetStore, segments: Sequence[Segment]) -> StoredRows:
        """Return all rows of segments."""
        return cls(store, segments, np.arange(sum(len(each.numbers) for each in segments)))

    def __len__(self) -> int:
        return len(self.places)

    def select(self, indices: Sequence[int] | IntArray | slice) -> StoredRows:
        """Return the rows of these indices, in the order given."""
        chosen = indices if isinstance(indices, slice) else np.asarray(indices, np.int64)
        return replace(self, places=self.places[chosen])

    def read(self, indices: Sequence[int] | IntArray | slice) -> list[NumberedRow]:
        """Return the rows of these indices, in the order given, from the dataset store."""
        places = self.select(indices).places
        found: list[NumberedRow | None] = [None] * len(places)
        for segment, there, numbers in self._within(places):
            rows = self._rows(segment, numbers)
            for place, number, row, seen in zip(
                there.tolist(), numbers.tolist(), rows, digests_of(rows), strict=True
            ):
                name = f"row {number}{segment.suffix}"
                if seen != segment.digests[number].tobytes():
                    raise InvalidInput(f"{name} has changed since the data set was opened")
                found[place] = (name, row)
        return [row for row in found if row is not None]

    def __iter__(self) -> Iterator[NumberedRow]:
        for start in range(0, len(self), AT_ONCE):
            yield from self.read(slice(start, start + AT_ONCE))

    def digests(self) -> Digests:
        """Return the digest of each row, without reading one."""
        found = np.empty((len(self), DIGEST_BYTES), np.uint8)
        for segment, there, numbers in self._within(self.places):
            found[there] = segment.digests[numbers]
        return found

    def sha256(self) -> str:
        """Return a digest of all rows in their order."""
        return hashlib.sha256(self.digests().tobytes()).hexdigest()

    def shared(self, others: StoredRows) -> int:
        """Return how many rows of `others` are also here, as their digests say."""
        mine, theirs = (rows.digests().view(f"V{DIGEST_BYTES}").ravel() for rows in (self, others))
        return int(np.isin(theirs, mine).sum())

    def _within(self, places: IntArray) -> Iterator[tuple[Segment, IntArray, IntArray]]:
        """Yield the segments of some places, which of the places these are, and the numbers that
        the rows there have in their split.
        """
        start = 0
        for segment in self.segments:
            stop = start + len(segment.numbers)
            there = np.flatnonzero((places >= start) & (places < stop))
            if len(there):
                yield segment, there, places[there] - start + segment.numbers.start
            start = stop

    def _rows(self, segment: Segment, numbers: IntArray) -> list[dict[str, Any]]:
        first, last = int(numbers[0]), int(numbers[-1])
        consecutive = last - first == len(numbers) - 1 and bool((np.diff(numbers) == 1).all())
        selection = range(first, last + 1) if consecutive else numbers.tolist()
        rows = self.store.to_list(self.store.select(segment.handle, selection))
        if len(rows) != len(numbers):
            store = self.store
            error = AdapterError(f"{len(numbers)} rows were selected, and {len(rows)} came")
            error.port, error.adapter, error.callback = store.name, store.adapter, "to_list"
            raise error
        return rows


def scan(store: DatasetStore, handle: Any) -> Digests:
    """Return the digest of every row, in one pass that holds `AT_ONCE` rows at a time."""
    found = bytearray()
    for rows in batches_of(store, handle, AT_ONCE):
        found += b"".join(digests_of(rows))
    return np.frombuffer(bytes(found), np.uint8).reshape(-1, DIGEST_BYTES)


def batches_of(store: DatasetStore, handle: Any, size: int) -> Iterator[list[dict[str, Any]]]:
    """Yield the rows in lists of `size`, the last one shorter."""
    if store.supports("stream"):
        yield from store.stream(handle, size)
        return
    start = 0
    while rows := store.to_list(store.take(store.skip(handle, start), size)):
        yield rows
        start += size
        if len(rows) < size:
            return


def digest(row: dict[str, Any]) -> bytes:
    """Return a digest of a row's fields, their order, and the types and values of what they hold.

    Of a value that is not data and does not show its content, its type counts.

    Raises:
        InvalidInput: it is nested too deeply.
    """
    return digests_of([row])[0]


def digests_of(rows: list[dict[str, Any]]) -> list[bytes]:
    """Return the `digest` of each row."""
    # The version of marshal is one that writes equal values alike, shared or not: 2 microseconds a
    # row, where JSON takes 3 (measured, 3.11). It writes arrays like bytes, hence the look before.
    plain = _are_plain(rows)
    try:
        texts = [marshal.dumps(row, 2) if plain else _encoded(row) for row in rows]
    except (RecursionError, ValueError) as error:
        raise InvalidInput(f"a row is nested too deeply to be read: {error}") from error
    return [hashlib.sha256(text).digest()[:DIGEST_BYTES] for text in texts]


def _encoded(row: dict[str, Any]) -> bytes:
    return marshal.dumps(row, 2) if _are_plain([row]) else json.dumps(_tagged(row)).encode()


def _are_plain(rows: Sequence[Any]) -> bool:
    """Say whether rows hold nothing but data that marshal tells apart, level by level."""
    level: list[Any] = list(rows)
    while level:
        kinds = {*map(type, level)}
        if not kinds <= _PLAIN | {dict, list}:
            return False
        dicts = [value for value in level if type(value) is dict] if dict in kinds else []
        lists = [value for value in level if type(value) is list] if list in kinds else []
        if not {*map(type, chain.from_iterable(dicts))} <= {str}:
            return False
        level = [*chain.from_iterable(map(dict.values, dicts)), *chain.from_iterable(lists)]
    return True


def _tagged(value: Any) -> Any:
    """Return what JSON can hold of a value, with its type."""
    kind = type(value).__qualname__
    if isinstance(value, dict):
        return [kind, [[_tagged(name), _tagged(item)] for name, item in value.items()]]
    if isinstance(value, list | tuple):
        return [kind, [_tagged(item) for item in value]]
    if isinstance(value, bytes | bytearray | memoryview):
        return [kind, bytes(value).hex()]
    if isinstance(value, np.ndarray | np.generic):
        return [kind, str(value.dtype), list(np.shape(value)), _tagged(value.tolist())]
    text = repr(value)
    return [kind, "" if f"at 0x{id(value):x}" in text.lower() else text]
