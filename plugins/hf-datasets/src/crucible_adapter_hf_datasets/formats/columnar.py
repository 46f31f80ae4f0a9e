"""Parquet and Arrow: columns with types, which the values keep.

Arrow gives every struct of a column all fields that any of them has, with null for missing ones:
the arguments of one tool call get the names of all others. So a null within a struct is read as a
missing field. A null in a column, a list or a map was written, and stays.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeAlias

from crucible_kitchen import InvalidInput

from ..files import DataFile
from .json import DECODER

if TYPE_CHECKING:
    import pyarrow as pa

_BATCH = 4096
"""Rows that are converted at a time, or fewer: about as many as have `_BYTES`."""
_BYTES = 4 << 20

Change: TypeAlias = Callable[[Any], Any]


def parquet_rows(file: DataFile, columns: Sequence[str] | None = None) -> Iterator[dict[str, Any]]:
    """Yield the rows of a Parquet file, with the named columns or all.

    Times are `datetime`s, decimals `Decimal`s, maps dictionaries, binary data `bytes`; values that
    the file declares as JSON are decoded.

    Raises:
        InvalidInput: the file is damaged or not Parquet, or has two columns of one name.
    """
    return _rows(file, parquet_batches(file, columns))


def parquet_batches(
    file: DataFile, columns: Sequence[str] | None = None
) -> Iterator[pa.RecordBatch]:
    """Yield the rows of a Parquet file as they are stored."""
    import pyarrow.parquet as pq

    with file.open() as binary, translated(file):
        table = pq.ParquetFile(binary)
        _check_size(file, table.metadata)
        groups = map(table.metadata.row_group, range(table.metadata.num_row_groups))
        at_once = _at_once(sum(group.total_byte_size for group in groups), table.metadata.num_rows)
        yield from table.iter_batches(at_once, columns=list(columns) if columns else None)


def _at_once(size: int, rows: int) -> int:
    """Return how many rows are converted at a time, of a number of rows that have `size` bytes."""
    return max(100, min(_BATCH, _BYTES * rows // max(size, 1)))


def _check_size(file: DataFile, about: Any) -> None:
    """Refuse a file whose metadata says that it expands too much."""
    for group in map(about.row_group, range(about.num_row_groups)):
        for column in map(group.column, range(group.num_columns)):
            file.check_size(column.total_compressed_size, column.total_uncompressed_size)


def arrow_rows(file: DataFile) -> Iterator[dict[str, Any]]:
    """Yield the rows of Arrow's IPC format, as a file or a stream. Otherwise as `parquet_rows`."""
    return _rows(file, arrow_batches(file))


def arrow_batches(file: DataFile) -> Iterator[pa.RecordBatch]:
    """Yield the rows of a file of Arrow's IPC format as they are stored."""
    import pyarrow as pa

    with file.open() as binary, translated(file):
        try:
            reader = pa.ipc.open_file(binary)
        except pa.ArrowInvalid:
            binary.seek(0)
            stored = iter(pa.ipc.open_stream(binary))
        else:
            stored = (reader.get_batch(index) for index in range(reader.num_record_batches))
        for whole in stored:
            at_once = _at_once(whole.nbytes, len(whole))
            yield from (whole.slice(start, at_once) for start in range(0, len(whole), at_once))


def _rows(file: DataFile, batches: Iterator[pa.RecordBatch]) -> Iterator[dict[str, Any]]:
    return itertools.chain.from_iterable(_converted(file, batches))


def _converted(file: DataFile, batches: Iterator[pa.RecordBatch]) -> Iterator[list[dict[str, Any]]]:
    """Yield the rows of batches; before a failure, those before it."""
    schema: pa.Schema | None = None
    change: Callable[[dict[str, Any]], None] | None = None
    for batch in batches:
        if schema is None:
            schema = batch.schema
            change = changing(file, schema)
        with translated(file):
            rows = batch.to_pylist()
        if change is not None:
            place = 0
            try:
                with translated(file):
                    for place, row in enumerate(rows):  # noqa: B007
                        change(row)
            except InvalidInput:
                yield rows[:place]
                raise
        yield rows


def changing(file: DataFile, schema: pa.Schema) -> Callable[[dict[str, Any]], None] | None:
    """Return what makes a row of one of Arrow's, in place; None if nothing has to be changed.

    Raises:
        InvalidInput: several columns have one name.
    """
    names = schema.names
    if len(set(names)) < len(names):
        raise InvalidInput(f"file {file.name}: several columns have one name: {names}")
    found = {field.name: _change(field.type) for field in schema}
    changes = [(name, change) for name, change in found.items() if change]

    def change(row: dict[str, Any]) -> None:
        for name, of_value in changes:
            row[name] = of_value(row[name])

    return change if changes else None


def is_kept_as_columns(kind: pa.DataType) -> bool:
    """Whether every value of a type that Arrow finds valid becomes Python's, so that it can be
    converted when it is read: a text, a number, a boolean, bytes, and lists and structs of these.
    """
    import pyarrow as pa

    types = pa.types
    if types.is_struct(kind):
        return all(is_kept_as_columns(field.type) for field in kind)
    if types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind):
        return is_kept_as_columns(kind.value_type)
    texts = types.is_string(kind) or types.is_large_string(kind)
    numbers = types.is_integer(kind) or types.is_float32(kind) or types.is_float64(kind)
    return bool(
        texts
        or numbers
        or types.is_boolean(kind)
        or types.is_binary(kind)
        or types.is_large_binary(kind)
    )


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
def translated(file: DataFile) -> Iterator[None]:
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
