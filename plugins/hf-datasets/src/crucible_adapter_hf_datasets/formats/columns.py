"""Rows of Arrow's columns kept in a temporary file, to be looked up by index.

Parquet and Arrow files are held as they are stored, and not as Python's values, which take ten
times as long to write (measured, pyarrow 25).
"""

from __future__ import annotations

import mmap
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..files import DataFile
from .columnar import changing, is_kept_as_columns, translated

if TYPE_CHECKING:
    import pyarrow as pa


class Columns:
    """Rows on disk, mapped into memory.

    The file has no name, or vanishes with the process, so it only holds what this process wrote.
    Several threads may read at once.

    Args:
        batches: the rows, all of one schema.
        change: makes a row of one of Arrow's, in place.
        folder: where the file is created; the system's folder of temporary files if None.
    """

    def __init__(
        self,
        batches: Iterable[pa.RecordBatch],
        schema: pa.Schema,
        change: Callable[[dict[str, Any]], None] | None,
        folder: Path | None,
    ) -> None:
        import pyarrow as pa

        self._change = change
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:
            with pa.ipc.new_file(file, schema) as writer:
                for batch in batches:
                    writer.write_batch(batch)
            file.flush()
            mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        self._table = pa.ipc.open_file(pa.BufferReader(pa.py_buffer(mapped))).read_all()
        self._batches = self._table.to_batches()
        self._ends = np.cumsum([len(batch) for batch in self._batches])

    def __len__(self) -> int:
        return int(self._table.num_rows)

    def look_up(self, places: slice | list[int]) -> list[dict[str, Any]]:
        """Return new copies of the rows at these indices."""
        rows = self._slice(places) if isinstance(places, slice) else self._take(places)
        if self._change is not None:
            for row in rows:
                self._change(row)
        return rows

    def _slice(self, places: slice) -> list[dict[str, Any]]:
        numbers = range(len(self))[places]
        rows: list[dict[str, Any]] = self._table.slice(numbers.start, len(numbers)).to_pylist()
        return rows

    def _take(self, places: Sequence[int]) -> list[dict[str, Any]]:
        """Return rows, batch by batch: `Table.take` takes four times as long for a few of them."""
        numbers = np.asarray(places, np.int64)
        batches = np.searchsorted(self._ends, numbers, side="right")
        order = np.argsort(batches, kind="stable").tolist()
        found: list[Any] = [None] * len(numbers)
        for batch, some in groupby(order, key=batches.tolist().__getitem__):
            there = list(some)
            held = self._batches[batch]
            within = numbers[there] - (self._ends[batch] - len(held))
            for place, row in zip(there, held.take(within).to_pylist(), strict=True):
                found[place] = row
        return found


def columns_of(
    files: Sequence[DataFile],
    read: Callable[[DataFile], Iterator[pa.RecordBatch]],
    folder: Path | None,
) -> Columns | None:
    """Return the rows of files; None if they have to be converted to be checked, or the files
    differ in their columns, or there are no rows.

    Raises:
        InvalidInput: a file is damaged, or has two columns of one name.
    """
    if not files:
        return None
    first = next(read(files[0]), None)
    if first is None or not all(is_kept_as_columns(field.type) for field in first.schema):
        return None
    schema = first.schema.remove_metadata()
    try:
        batches = _alike(files, read, schema)
        found = Columns(batches, schema, changing(files[0], schema), folder)
    except _OtherColumns:
        return None
    return found if len(found) else None


class _OtherColumns(Exception):
    """A file has other columns than the first one."""


def _alike(
    files: Sequence[DataFile],
    read: Callable[[DataFile], Iterator[pa.RecordBatch]],
    schema: pa.Schema,
) -> Iterator[pa.RecordBatch]:
    for file in files:
        for batch in read(file):
            if batch.schema != schema:
                raise _OtherColumns
            with translated(file):
                batch.validate(full=True)  # above all, that texts are UTF-8
            yield batch.replace_schema_metadata(None)
