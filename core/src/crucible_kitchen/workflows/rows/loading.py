"""The rows that a configuration names: which they are, and where they are opened."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, Literal, TypeAlias

import numpy as np

from ...errors import InvalidInput
from ...events import DatasetLoad
from ...kitchen import Kitchen
from ..batches import permutation, share
from ..config import RowsConfig
from . import splits
from .stored import Digests, Segment, StoredRows, scan

Purpose: TypeAlias = Literal["train", "test"]


@dataclass(frozen=True, slots=True)
class Source:
    """Where rows come from.

    Args:
        dataset: a data set that the dataset store knows.
        split: a split of it, or parts of splits; None is its only one.
        name: its configuration, where it has several.
        revision: branch, tag or commit.
    """

    dataset: str
    split: str | None = None
    name: str | None = None
    revision: str | None = None

    def __str__(self) -> str:
        return f"{self.dataset} [{self.split}]" if self.split else self.dataset


@dataclass(slots=True)
class Loader:
    """Opens data sets, and reads each split once to count and digest its rows."""

    kitchen: Kitchen
    _opened: dict[Source, StoredRows] = field(default_factory=dict)
    _scanned: dict[Source, tuple[Any, Digests]] = field(default_factory=dict)

    def rows(self, source: Source) -> StoredRows:
        """Return the rows of a data set, which stay where they are.

        Raises:
            InvalidInput: a part of a split that does not exist.
        """
        if source not in self._opened:
            event = DatasetLoad(dataset=source.dataset, split=source.split)
            with self.kitchen.observers.start(event) as span:
                rows = StoredRows.of(self.kitchen.dataset_store, self._segments(source))
                span.set(replace(event, rows=len(rows)))
            self._opened[source] = rows
        return self._opened[source]

    def _segments(self, source: Source) -> list[Segment]:
        if source.split is None:
            handle, digests = self._scan(source, None)
            return [Segment(handle, range(len(digests)), digests)]
        parts, segments = splits.parts(source.split), []
        for part in parts:
            handle, digests = self._scan(source, part.name)
            suffix = f" of {part.name}" if len(parts) > 1 else ""
            segments.append(Segment(handle, part.rows(len(digests)), digests, suffix))
        return segments

    def _scan(self, source: Source, split: str | None) -> tuple[Any, Digests]:
        key = replace(source, split=split)
        if key not in self._scanned:
            store = self.kitchen.dataset_store
            handle = store.load_dataset(source.dataset, split, source.name, source.revision)
            self._scanned[key] = handle, scan(store, handle)
        return self._scanned[key]


def open_stream(kitchen: Kitchen, source: Source) -> tuple[Any, int]:
    """Return a handle of a data set that is read as it comes, and the number of its first row.

    Raises:
        InvalidInput: a part of a split whose rows would have to be counted first, or several parts.
    """
    store = kitchen.dataset_store
    parts = [splits.Part("")] if source.split is None else splits.parts(source.split)
    if len(parts) > 1:
        raise InvalidInput(f"the split {source.split!r} has several parts; a stream has one")
    [part] = parts
    start, stop = part.fixed()
    handle = store.load_dataset(
        source.dataset, part.name or None, source.name, source.revision, streaming=True
    )
    if stop is not None:
        handle = store.take(handle, stop)
    return (store.skip(handle, start) if start else handle), start


def source_of(config: RowsConfig, purpose: Purpose) -> Source:
    """Return where the rows to train or to evaluate on come from."""
    about = (config.dataset_name, config.dataset_revision)
    if purpose == "train" or config.holds_out:
        return Source(config.dataset, config.split, *about)
    return Source(config.test_dataset or config.dataset, config.test_split, *about)


def hold_out(rows: StoredRows, size: float, seed: int) -> tuple[StoredRows, StoredRows]:
    """Return the rows without a random part of them, and that part, in their stored order.

    Args:
        rows: all of them.
        size: how many rows, or, below 1, which share of them, rounded up.
        seed: the part is a function of it and of the number of rows alone.

    Raises:
        InvalidInput: nothing would be left.
    """
    count = size_of(size, len(rows))
    if count >= len(rows):
        raise InvalidInput(f"test_size = {size} leaves nothing of {len(rows)} rows to train on")
    chosen = np.zeros(len(rows), bool)
    # Not the seeds of an epoch's order, (seed, epoch).
    chosen[permutation(len(rows), seed, 0, 1)[:count]] = True
    return rows.select(np.flatnonzero(~chosen)), rows.select(np.flatnonzero(chosen))


def size_of(size: float, count: int) -> int:
    """Return a number of rows, which below 1 is a share of `count`, rounded up."""
    return int(size) if size >= 1 else share(size, count)


def held_out(config: RowsConfig) -> RowsConfig:
    """Return a configuration whose rows to evaluate on are those of this one, or, if it names none,
    all of its rows.
    """
    if config.evaluates:
        return config
    return config.model_copy(update={"test_dataset": config.dataset, "test_split": config.split})


def stored_rows(loader: Loader, config: RowsConfig, purpose: Purpose) -> StoredRows:
    """Return the rows to train or to evaluate on, none of them read into memory."""
    rows, size = loader.rows(source_of(config, purpose)), config.test_size
    if config.holds_out and size is not None:
        return hold_out(rows, size, config.seed)[purpose == "test"]
    if purpose == "test" and size is not None:
        return rows.select(slice(size_of(size, len(rows))))
    return rows
