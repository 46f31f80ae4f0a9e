"""CSV and TSV. Every value is a text, possibly "", and a row has a cell for each column."""

from __future__ import annotations

import csv
import re
from collections import Counter
from collections.abc import Iterator, Sequence

from crucible_kitchen import InvalidInput

from ..files import DataFile
from .plain import chunks, lines

_FIELD = r'(?:"[^"]*(?:""[^"]*)*"|[^"\t\r\n]*)'
_QUOTED = re.compile(rf"{_FIELD}(?:\t{_FIELD})*\r?\n?")
"""A record of TSV in which quotation marks are those of the format."""

_PIECE = re.compile(r"[^\r]*\r\n?|[^\r]+")


def rows(
    file: DataFile,
    sep: str | None = None,
    names: Sequence[str] | None = None,
    encoding: str | None = None,
) -> Iterator[dict[str, str]]:
    """Yield the rows of a CSV or a TSV.

    A CSV is read by RFC 4180: a field that begins with a quotation mark ends with one, and may hold
    separators, line ends and doubled quotation marks; within any other field a quotation mark is a
    character. Blank lines are skipped.

    TSVs come in two kinds, which only the whole file distinguishes: if a library for CSV wrote it,
    every field with a quotation mark is quoted; otherwise (IANA's `text/tab-separated-values`) no
    field is, and a quotation mark is a character. So a mark at the start of a field never swallows
    the rows up to the next one.

    Args:
        file: the file.
        sep: the separator of cells; None is a tab in a file `.tsv`, and a comma in others.
        names: the names of the columns, if the file has no header.
        encoding: encoding of the text; UTF-8 if None.

    Raises:
        InvalidInput: the quoting of a row is broken, or it has more or fewer cells than there are
            columns (with the line in which the row begins); two columns have one name; a TSV is
            well-formed as either kind, with different rows.
    """
    sep = sep or ("\t" if file.suffix == ".tsv" else ",")
    if sep == "\t" and not _is_quoted(file, encoding):
        records = _unquoted(file, encoding)
    else:
        records = _records(file, sep, encoding)
    yield from _rows(file, records, names)


def _rows(
    file: DataFile, records: Iterator[tuple[int, list[str]]], names: Sequence[str] | None
) -> Iterator[dict[str, str]]:
    columns = list(names) if names is not None else next(records, (0, []))[1]
    if twice := [repr(name) for name, count in Counter(columns).items() if count > 1]:
        raise InvalidInput(f"file {file.name}: several columns are named {', '.join(twice)}")
    for line, cells in records:
        if len(cells) != len(columns):
            raise InvalidInput(
                f"file {file.name}, line {line}: the row has {len(cells)} cells, but there are "
                f"{len(columns)} columns ({', '.join(columns)}); a cell that holds a separator or "
                "a line end has to be quoted"
            )
        yield dict(zip(columns, cells, strict=True))


def _records(file: DataFile, sep: str, encoding: str | None) -> Iterator[tuple[int, list[str]]]:
    """Yield the cells of each record, and the line in which it begins."""
    # The limit is of the process, and there is no other way to set it: a document may be longer
    # than 128 KiB.
    csv.field_size_limit(2**31 - 1)
    length = 0  # of the record that is being read: a quotation mark may open in its first line

    def pieces() -> Iterator[str]:
        nonlocal length
        for piece in _pieces(file, encoding):
            length += len(piece)
            file.check_row(length, begin)
            yield piece

    begin = 1
    try:
        records = csv.reader(pieces(), delimiter=sep, strict=True)
    except TypeError as error:
        raise InvalidInput(f"file {file.name}: {sep!r} separates no cells: {error}") from error
    try:
        for cells in records:
            length = 0
            if cells:
                yield begin, cells
            begin = records.line_num + 1
    except csv.Error as error:
        raise InvalidInput(
            f"file {file.name}, line {begin}: the quoting of the row that begins here is broken: "
            f"{error}; a quotation mark at the start of a cell needs one at its end, and those "
            "between are doubled"
        ) from error


def _pieces(file: DataFile, encoding: str | None) -> Iterator[str]:
    r"""Yield the lines. Those of a file without any `\n` end in `\r`."""
    every = lines(file, chunks(file, encoding))
    first = next(every, "")
    yield from [first] if first.endswith("\n") else _PIECE.findall(first)
    yield from every


def _unquoted(file: DataFile, encoding: str | None) -> Iterator[tuple[int, list[str]]]:
    for number, line in enumerate(lines(file, chunks(file, encoding)), 1):
        if text := line.removesuffix("\n").removesuffix("\r"):
            yield number, text.split("\t")


def _is_quoted(file: DataFile, encoding: str | None) -> bool:
    """Say whether the quotation marks of a TSV are those of the format."""
    record: list[str] = []
    begin, is_open = 1, False  # where the record begins; whether a quotation mark is open
    length = 0  # of the record
    tabs: int | None = None  # in the first line, and in every other so far
    suspect: tuple[int, int] | None = None  # a record of lines each of which may be a row
    for number, line in enumerate(lines(file, chunks(file, encoding)), 1):
        if tabs is None:
            tabs = line.count("\t")
        elif line.count("\t") != tabs and line.rstrip("\r\n"):
            tabs = -1
        if not record:
            begin = number
            if '"' not in line:
                continue
        record.append(line)
        length += len(line)
        file.check_row(length, begin)
        is_open ^= bool(line.count('"') % 2)
        if not is_open:
            if not _QUOTED.fullmatch("".join(record)):
                return False
            if len(record) > 1 and suspect is None:
                suspect = begin, number
            record.clear()
            length = 0
    if record:
        return False
    if suspect is not None and tabs is not None and tabs > 0:
        raise InvalidInput(
            f"file {file.name}, line {suspect[0]}: a quotation mark opens here and closes in line "
            f"{suspect[1]}, and each line between may be a row of its own: it may be "
            "one text or several rows; save the file as CSV or JSON Lines"
        )
    return True
