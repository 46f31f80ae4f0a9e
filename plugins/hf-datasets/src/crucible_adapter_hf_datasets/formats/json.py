"""JSON: an object a line, or one document.

Integers have all their digits, a null is a null, and a row has the fields that were written. A
number with a point or an exponent is a float of 64 bits.
"""

from __future__ import annotations

import itertools
import json
import math
import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from crucible_kitchen import InvalidInput

from ..files import DataFile
from .plain import chunks, lines

_AT_ONCE = 1 << 16
"""Characters of a document that are read at a time."""
_LINES = 500
"""Lines that are decoded at a time."""
_ENDS = ("\n", "\r\n", "")


def rows(
    file: DataFile, field: str | None = None, encoding: str | None = None
) -> Iterator[dict[str, Any]]:
    """Yield the rows of a file of JSON.

    If the first line is an object, every line has to be one (blank lines are skipped). Otherwise
    the file is an array of objects, or objects one after the other, across any number of lines;
    an array of texts gives rows with the field `text`. Only a part of these files is in memory.

    A `.json` file that is a single object of lists of equal length is an object of columns; if it
    has one field, a list of objects other than messages, these are the rows. `field` is the name
    of the field that holds the rows.

    Raises:
        InvalidInput: with the line; also for a name that an object has twice, since one value
            would be lost, and for a number beyond a float of 64 bits.
    """
    text = chunks(file, encoding)
    if field is not None:
        parts, length = [], 0
        for part in text:
            parts.append(part)
            file.check_row(length := length + len(part))
        yield from _of_field(file, "".join(parts), field)
        return
    start = ""
    while not start.strip() and (piece := next(text, None)) is not None:
        start += piece
        file.check_row(len(start))
    text = itertools.chain([start], text)
    if start.lstrip().startswith("["):
        yield from _Document(file, 1, text).rows()
        return
    each = lines(file, text)
    numbered = enumerate(each, 1)
    filled = ((number, line) for number, line in numbered if not line.isspace())
    number, line = next(filled, (0, ""))
    try:
        first = DECODER.decode(line)
    except (ValueError, RecursionError):
        first = None
    if not isinstance(first, dict):
        rest = (line for _, line in numbered)
        yield from _Document(file, number, itertools.chain([line], rest)).rows()
        return
    second = next(filled, None)
    if second is None:
        yield from _of_single(file, first)
        return
    yield first
    number, line = second
    yield from itertools.chain.from_iterable(_decoded(file, number, itertools.chain([line], each)))


def _decoded(file: DataFile, number: int, each: Iterator[str]) -> Iterator[list[dict[str, Any]]]:
    """Yield the rows of lines, the first of which has a number, some at a time."""
    # What `decode` calls, which takes a third longer (measured, 3.11).
    scan = DECODER.scan_once  # type: ignore[attr-defined]
    while some := list(itertools.islice(each, _LINES)):
        found: list[dict[str, Any]] = []
        for place, line in enumerate(some, number):
            try:
                row, end = scan(line, 0)
            except Exception:
                row, end = None, -1
            if type(row) is dict and line[end:] in _ENDS:
                found.append(row)
            elif not line.isspace():
                try:
                    found.append(_row(file, place, line))
                except InvalidInput:
                    yield found
                    raise
        number += len(some)
        yield found


def _row(file: DataFile, number: int, line: str) -> dict[str, Any]:
    try:
        row = DECODER.decode(line)
    except (ValueError, RecursionError) as error:
        raise _refused(file, number, error) from error
    if not isinstance(row, dict):
        raise _refused(file, number, f"a row is an object, not {row!r:.40}")
    return row


class _Document:
    """A JSON text that is decoded value by value while it is read.

    Args:
        file: the file, for messages.
        line: the number of its first line.
        text: the pieces of the text from there.
    """

    def __init__(self, file: DataFile, line: int, text: Iterable[str]) -> None:
        self.file, self.line, self.text = file, line, iter(text)
        self.held, self.at = "", 0

    def rows(self) -> Iterator[dict[str, Any]]:
        """Yield the objects of the array, or a sequence of objects."""
        first = self.next()
        if not first:
            return
        if first != "[":
            row = self.value()
            if not self.next():
                yield from _of_single(self.file, row)
                return
            yield row
            while self.next():
                yield self.value()
            return
        self.at += 1
        if self.next() == "]":
            self.at += 1
        else:
            yield self.value(in_array=True)
            while self.next() == ",":
                self.at += 1
                yield self.value(in_array=True)
            if self.next() != "]":
                raise _refused(self.file, self.line, "expected ',' or ']' after a row")
            self.at += 1
        if self.next():
            raise _refused(self.file, self.line, "there is more after the end of the array")

    def next(self) -> str:
        """Move to the next character that is not a space, and return it; "" at the end."""
        while True:
            start = self.at
            while self.at < len(self.held) and self.held[self.at] in " \t\r\n":
                self.at += 1
            self.line += self.held.count("\n", start, self.at)
            if self.at < len(self.held):
                return self.held[self.at]
            if not self.more():
                return ""

    def value(self, in_array: bool = False) -> dict[str, Any]:
        """Decode the value that begins here. A text in an array is also a row."""
        kind = self.next()
        if kind != "{" and not (in_array and kind == '"'):
            found = repr(self.held[self.at : self.at + 20].split("\n")[0]) if kind else "the end"
            raise _refused(self.file, self.line, f"a row is an object, not {found}")
        while True:
            try:
                value, end = DECODER.raw_decode(self.held, self.at)
                break
            except json.JSONDecodeError as error:  # the rest of it may not have been read yet
                if not self.more():
                    raise _refused(self.file, self.line, error) from error
            except (ValueError, RecursionError) as error:
                raise _refused(self.file, self.line, error) from error
        self.line += self.held.count("\n", self.at, end)
        self.at = end
        return {"text": value} if kind == '"' else value

    def more(self) -> bool:
        """Double the part of the current value that is in memory; say whether there was more."""
        wanted = max(_AT_ONCE, len(self.held) - self.at)
        parts = [self.held[self.at :]]
        self.file.check_row(len(parts[0]), self.line)
        while wanted > 0 and (piece := next(self.text, "")):
            parts.append(piece)
            wanted -= len(piece)
        self.held, self.at = "".join(parts), 0
        return len(parts) > 1


def _of_single(file: DataFile, value: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the rows of a file that holds one object: itself, unless it holds rows."""
    fields = list(value.values())
    if file.suffix == ".json" and fields and all(isinstance(field, list) for field in fields):
        objects = [item for field in fields for item in field if isinstance(item, dict)]
        talks = any("role" in item or "from" in item for item in objects)
        if len(fields) == 1 and objects and len(objects) == len(fields[0]) and not talks:
            yield from objects
            return
        if not talks and len({len(field) for field in fields}) == 1:
            for cells in zip(*fields, strict=True):
                yield dict(zip(value, cells, strict=True))
            return
    yield value


def _of_field(file: DataFile, text: str, field: str) -> Iterator[dict[str, Any]]:
    try:
        document = DECODER.decode(text)
    except json.JSONDecodeError as error:
        raise _refused(file, error.lineno, error.msg) from error
    except (ValueError, RecursionError) as error:
        raise _refused(file, 1, error) from error
    found = document.get(field) if isinstance(document, dict) else None
    if not isinstance(found, list) or not all(isinstance(row, dict) for row in found):
        raise InvalidInput(f"file {file.name}: its field {field!r} is not a list of objects")
    yield from found


def _object(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    # One name for all rows takes less memory, and makes rows a quarter faster to read again.
    found = {sys.intern(name): value for name, value in pairs}
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"an object has the name {twice!r} twice")
    return found


def _float(text: str) -> float:
    number = float(text)
    if math.isinf(number):
        raise ValueError(f"the number {text:.40} is beyond a float of 64 bits")
    return number


def _refused(file: DataFile, line: int, reason: Exception | str) -> InvalidInput:
    if isinstance(reason, json.JSONDecodeError):
        reason = f"{reason.msg} (character {reason.pos + 1})"
    elif isinstance(reason, RecursionError):
        reason = "nested too deeply"
    return InvalidInput(f"file {file.name}, line {line}: not a row of JSON: {reason}")


DECODER = json.JSONDecoder(object_pairs_hook=_object, parse_float=_float, strict=False)
"""Accepts two things in addition to JSON: NaN and the infinities, which Python writes, as floats,
and texts with control characters, such as a tab, that are not escaped.
"""
