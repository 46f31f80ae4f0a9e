"""The formats of files, each read as it is written: a text stays the text of the file, whatever it
looks like.

`datasets` reads text with readers of tables, which guess: dates of JSON become times, `007` of a
CSV 7, `NA` a missing value, and a row lacks fields that the first rows did not have. Therefore it
only decides which files make up a data set.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeAlias

from ..files import COMPRESSIONS, DataFile
from . import columnar, delimited, json, plain

Row: TypeAlias = dict[str, Any]
Reader: TypeAlias = Callable[..., Iterator[Row]]
"""Yields the rows of a file, in order; `InvalidInput` names the file, and the line of a text."""

KINDS: Mapping[str, Mapping[str, Reader]] = {
    "json": {".jsonl": json.rows, ".ndjson": json.rows, ".json": json.rows},
    "csv": {".csv": delimited.rows},
    "tsv": {".tsv": delimited.rows},
    "parquet": {
        ".parquet": columnar.parquet_rows,
        ".geoparquet": columnar.parquet_rows,
        ".gpq": columnar.parquet_rows,
    },
    "arrow": {".arrow": columnar.arrow_rows},
    "text": {".txt": plain.rows},
}
"""The readers of each kind, by the suffix of the file's name."""

COLUMNS: Mapping[str, Callable[..., Iterator[Any]]] = {
    "parquet": columnar.parquet_batches,
    "arrow": columnar.arrow_batches,
}
"""The readers of those kinds that hold columns: Arrow's batches of rows, as they are stored."""

_KIND_OF = {suffix: kind for kind, readers in KINDS.items() for suffix in readers}

NAMES = (
    f"{', '.join(_KIND_OF)}, each also with {', '.join(COMPRESSIONS[:-1])} or {COMPRESSIONS[-1]}"
)
"""The known suffixes, for messages."""


def kind_of(suffix: str) -> str:
    """Return the kind of files with a suffix, or "" if it is not one of data."""
    return _KIND_OF.get(suffix, "")


def read(file: DataFile, kind: str, options: Mapping[str, Any]) -> Iterator[Row]:
    """Yield the rows of a file.

    Args:
        file: the file.
        kind: one of `KINDS`.
        options: arguments of the kind's readers.
    """
    readers = KINDS[kind]
    reader = readers.get(file.suffix) or next(iter(readers.values()))
    return reader(file, **options)
