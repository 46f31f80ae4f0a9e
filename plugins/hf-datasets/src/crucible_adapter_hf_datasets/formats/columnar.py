"""Parquet and Arrow: columns with types, which the values keep.

Arrow gives every struct of a column all fields that any of them has, with null for missing ones:
the arguments of one tool call get the names of all others. So a null within a struct is read as a
missing field. A null in a column, a list or a map was written, and stays.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeAlias

from crucible_kitchen import InvalidInput

from ..files import DataFile
from .json import DECODER

if TYPE_CHECKING:
    import pyarrow as pa

_BATCH = 100
"""Rows that are converted at a time."""

Change: TypeAlias = Callable[[Any], Any]


def parquet_rows(file: DataFile, columns: Sequence[str] | None = None) -> Iterator[dict[str, Any]]:
    """Yield the rows of a Parquet file, with the named columns or all.

    Times are `datetime`s, decimals `Decimal`s, maps dictionaries, binary data `bytes`; values that
    the file declares as JSON are decoded.

    Raises:
        InvalidInput: the file is damaged or not Parquet, or has two columns of one name.
    """
    import pyarrow.parquet as pq

    with file.open() as binary, _translated(file):
        table = pq.ParquetFile(binary)
        _check_size(file, table.metadata)
        batches = table.iter_batches(_BATCH, columns=list(columns) if columns else None)
        yield from _rows(file, batches)


def _check_size(file: DataFile, about: Any) -> None:
    """Refuse a file whose metadata says that it expands too much."""
    for group in map(about.row_group, range(about.num_row_groups)):
        for column in map(group.column, range(group.num_columns)):
            file.check_size(column.total_compressed_size, column.total_uncompressed_size)


def arrow_rows(file: DataFile) -> Iterator[dict[str, Any]]:
    """Yield the rows of Arrow's IPC format, as a file or a stream. Otherwise as `parquet_rows`."""
    import pyarrow as pa

    with file.open() as binary, _translated(file):
        try:
            reader = pa.ipc.open_file(binary)
        except pa.ArrowInvalid:
            binary.seek(0)
            yield from _rows(file, pa.ipc.open_stream(binary))
        else:
            batches = (reader.get_batch(index) for index in range(reader.num_record_batches))
            yield from _rows(file, batches)


def _rows(file: DataFile, batches: Iterator[pa.RecordBatch]) -> Iterator[dict[str, Any]]:
    names: list[str] = []
    changes: dict[str, Change] = {}
    for whole in batches:
        if not names:
            names = whole.schema.names
            if len(set(names)) < len(names):
                raise InvalidInput(f"file {file.name}: several columns have one name: {names}")
            found = {field.name: _change(field.type) for field in whole.schema}
            changes = {name: change for name, change in found.items() if change}
        for start in range(0, len(whole), _BATCH):
            columns = [column.to_pylist() for column in whole.slice(start, _BATCH).columns]
            for row in (
                dict(zip(names, cells, strict=True)) for cells in zip(*columns, strict=True)
            ):
                for name, change in changes.items():
                    row[name] = change(row[name])
                yield row


def _change(kind: pa.DataType) -> Change | None:
    """Return a function that converts Arrow's values of a type: structs to ones without nulls, maps
    to dictionaries, JSON to its value. None if there is nothing to convert.
    """
    import pyarrow as pa

    if pa.types.is_struct(kind):
        return _of_struct({field.name: _change(field.type) for field in kind})
    if pa.types.is_map(kind):
        return _of_map(_change(kind.item_type))
    if pa.types.is_nested(kind) and hasattr(kind, "value_type"):  # the lists
        of_value = _change(kind.value_type)
        return of_value and _of_list(of_value)
    if isinstance(kind, pa.JsonType):
        return lambda text: text if text is None else DECODER.decode(text)
    if isinstance(kind, pa.BaseExtensionType):
        return _change(kind.storage_type)
    return None


def _of_struct(changes: dict[str, Change | None]) -> Change:
    def change(struct: dict[str, Any] | None) -> dict[str, Any] | None:
        if struct is None:
            return None
        return {
            name: value if (inner := changes[name]) is None else inner(value)
            for name, value in struct.items()
            if value is not None
        }

    return change


def _of_list(inner: Change) -> Change:
    return lambda values: values if values is None else [inner(value) for value in values]


def _of_map(inner: Change | None) -> Change:
    def change(items: list[tuple[Any, Any]] | None) -> dict[Any, Any] | None:
        if items is None:
            return None
        found = {key: value if inner is None else inner(value) for key, value in items}
        if len(found) < len(items):
            raise ValueError("a map has a key twice")
        return found

    return change


@contextmanager
def _translated(file: DataFile) -> Iterator[None]:
    import pyarrow as pa

    try:
        yield
    except InvalidInput:
        raise
    except (pa.ArrowException, ValueError, OSError) as error:
        # Arrow raises these for damaged data; errors of a hub are subclasses of OSError.
        if isinstance(error, OSError) and (type(error) is not OSError or error.errno is not None):
            raise
        raise InvalidInput(f"file {file.name}: cannot be read: {error}") from error
