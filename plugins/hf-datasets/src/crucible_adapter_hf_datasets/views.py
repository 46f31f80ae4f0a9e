"""The rows of one split in some order: held whole, or streamed. Both are immutable."""

from __future__ import annotations

import copy
import itertools
import operator
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt
from crucible_kitchen import InvalidInput

Row: TypeAlias = dict[str, Any]
Selection: TypeAlias = range | Sequence[int]
Rows: TypeAlias = Callable[[], Iterator[Row]]
"""Returns an iterator over all rows of a split."""

DEFAULT_BUFFER = 1000
"""Default number of rows held at a time by the shuffling of a stream."""


class View(Protocol):
    """Some rows in some order."""

    def shuffle(self, seed: int, buffer_size: int | None) -> View: ...
    def take(self, count: int) -> View: ...
    def skip(self, count: int) -> View: ...
    def select(self, selection: Selection) -> View: ...
    def rows(self, batch_size: int) -> Iterator[list[Row]]:
        """Yield the rows in lists of `batch_size`, the last one shorter."""
        ...


def permutation(bits: np.random.PCG64, count: int) -> npt.NDArray[np.int64]:
    """Return the numbers below `count` in random order.

    Sorted by raw bits, and not drawn by `Generator.permutation`: numpy promises that the bits of a
    seed never change, but permutations may change with its version (NEP 19).
    """
    return np.argsort(bits.random_raw(count), kind="stable")


# --- held whole ---


@dataclass(frozen=True, slots=True, eq=False)
class Table:
    """Rows that can be looked up by index.

    Args:
        look_up: returns the rows of a slice or a list of indices.
        indices: the rows of this view, in order. Composing index arrays takes milliseconds,
            flattening chains of `Dataset.select` seconds.
    """

    look_up: Callable[[slice | list[int]], list[Row]]
    indices: range | npt.NDArray[np.int64]

    def shuffle(self, seed: int, buffer_size: int | None) -> Table:
        del buffer_size  # no buffer is needed: every row can be looked up
        return self._at(permutation(_bits(seed), len(self.indices)))

    def take(self, count: int) -> Table:
        return replace(self, indices=self.indices[:count])

    def skip(self, count: int) -> Table:
        return replace(self, indices=self.indices[count:])

    def select(self, selection: Selection) -> Table:
        count = len(self.indices)
        for index in _ends(selection):
            if not 0 <= index < count:
                raise InvalidInput(f"cannot select row {index} of {count} rows")
        return self._at(np.asarray(selection, np.int64))

    def rows(self, batch_size: int) -> Iterator[list[Row]]:
        for start in range(0, len(self.indices), batch_size):
            part = self.indices[start : start + batch_size]
            # In batches: row by row, it would take some 500 times as long.
            yield self.look_up(
                slice(part.start, part.stop) if isinstance(part, range) else part.tolist()
            )

    def _at(self, places: npt.NDArray[np.int64]) -> Table:
        held = self.indices
        if isinstance(held, range):  # which has step 1: only take and skip keep it a range
            return replace(self, indices=places + held.start)
        return replace(self, indices=held[places])


# --- streamed ---

Operation: TypeAlias = Callable[[Iterator[Row]], Iterator[Row]]


@dataclass(frozen=True, slots=True, eq=False)
class Pipeline:
    """A stream of rows, and the operations on it.

    Reading always starts from the first row of the source, so a position after a shuffle is
    exact: the same order is produced again and its first rows are dropped. (`IterableDataset` would
    skip before it shuffles when it resumes, which loses rows and repeats others.)
    """

    source: Rows
    operations: tuple[Operation, ...] = ()

    def shuffle(self, seed: int, buffer_size: int | None) -> Pipeline:
        size = DEFAULT_BUFFER if buffer_size is None else buffer_size
        _bits(seed)  # refuses a bad seed now
        return self._then(partial(_shuffled, seed=seed, size=size))

    def take(self, count: int) -> Pipeline:
        return self._then(lambda rows: itertools.islice(rows, count))

    def skip(self, count: int) -> Pipeline:
        return self._then(lambda rows: itertools.islice(rows, count, None))

    def select(self, selection: Selection) -> Pipeline:
        for index in _ends(selection):
            if index < 0:
                raise InvalidInput(f"cannot select row {index}")
        chosen = selection if isinstance(selection, range) else tuple(map(int, selection))
        return self._then(partial(_selected, selection=chosen))

    def rows(self, batch_size: int) -> Iterator[list[Row]]:
        rows = self.source()
        for operation in self.operations:
            rows = operation(rows)
        while batch := list(itertools.islice(rows, batch_size)):
            yield batch

    def _then(self, operation: Operation) -> Pipeline:
        return replace(self, operations=(*self.operations, operation))


def _shuffled(rows: Iterator[Row], seed: int, size: int) -> Iterator[Row]:
    """Yield a random row of a full buffer for each further row, then the rest shuffled."""
    bits = _bits(seed)
    buffer = list(itertools.islice(rows, size))
    for row in rows:
        place = int(bits.random_raw()) % size
        yield buffer[place]
        buffer[place] = row
    for place in permutation(bits, len(buffer)):
        yield buffer[place]


def _selected(rows: Iterator[Row], selection: range | tuple[int, ...]) -> Iterator[Row]:
    """Yield the selected rows in the requested order, in one pass."""
    # A range has no index twice, and membership needs no table.
    uses = None if isinstance(selection, range) else Counter(selection)
    wanted = iter(selection)
    next_index = next(wanted, None)
    early: dict[int, Row] = {}  # rows that were read before their turn
    numbered = enumerate(rows)
    while next_index is not None:
        while next_index not in early:
            index, row = next(numbered, (None, None))
            if index is None or row is None:
                raise InvalidInput(f"cannot select row {next_index}: the stream is shorter")
            if index in (selection if uses is None else uses):
                early[index] = row
        if uses is not None:
            uses[next_index] -= 1
        if uses is None or not uses[next_index]:
            yield early.pop(next_index)
        else:
            yield copy.deepcopy(early[next_index])
        next_index = next(wanted, None)


# --- both ---


def _bits(seed: int) -> np.random.PCG64:
    try:
        # As an integer: numpy would choose a seed for None.
        return np.random.PCG64(operator.index(seed))
    except (TypeError, ValueError) as error:
        raise InvalidInput(f"a seed is a non-negative integer, not {seed!r}") from error


def _ends(selection: Selection) -> tuple[int, ...]:
    """Return the smallest and the largest index, or () for an empty selection."""
    if len(selection) == 0:
        return ()
    if isinstance(selection, range):
        return (selection[0], selection[-1])
    indices = np.asarray(selection)
    if indices.ndim != 1 or indices.dtype.kind not in "iu":
        raise InvalidInput(
            f"a selection is a flat sequence of integers, not {indices.dtype} of shape "
            f"{indices.shape}"
        )
    return (int(indices.min()), int(indices.max()))
