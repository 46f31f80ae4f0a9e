"""The text of a file, its lines, and the format of plain text, with a row a line."""

from __future__ import annotations

import codecs
import itertools
from collections.abc import Iterable, Iterator

from crucible_kitchen import InvalidInput

from ..files import DataFile

_MARKS = {
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
    codecs.BOM_UTF8: "utf-8-sig",
}
"""Encodings by byte order mark, the longer marks first: some start with a shorter one."""
_AT_ONCE = 1 << 16
"""Bytes that are read at a time."""


def rows(file: DataFile, encoding: str | None = None) -> Iterator[dict[str, str]]:
    """Yield each line, without its end, as the field `text`. Blank lines are skipped."""
    for line in lines(file, chunks(file, encoding)):
        text = line.removesuffix("\n").removesuffix("\r")
        if text and not text.isspace():
            yield {"text": text}


def chunks(file: DataFile, encoding: str | None = None) -> Iterator[str]:
    """Yield the text of a file, piece by piece.

    It is UTF-8 unless a byte order mark, which is not part of it, or `encoding` says otherwise.

    Raises:
        InvalidInput: a byte cannot be decoded; the message has its line.
    """
    with file.open() as binary:
        start = binary.peek(4)[:4]
        mark = next((name for mark, name in _MARKS.items() if start.startswith(mark)), None)
        encoding = mark or encoding or "utf-8"
        decoder = codecs.getincrementaldecoder(encoding)()
        line, done = 1, False
        while not done:
            data = binary.read(_AT_ONCE)
            done = not data
            try:
                text = decoder.decode(data, done)
            except UnicodeDecodeError as error:
                line += error.object[: error.start].count(b"\n")
                raise InvalidInput(
                    f"file {file.name}, line {line}: is not {encoding}: {error.reason}; save the "
                    "file as UTF-8"
                ) from error
            line += text.count("\n")
            if text:
                yield text


def lines(file: DataFile, text: Iterable[str]) -> Iterator[str]:
    r"""Yield the lines of a text in pieces, their ends included.

    Only `\n` ends a line: neither U+2028 nor a form feed does.
    """
    return itertools.chain.from_iterable(_lines(file, text))


def _lines(file: DataFile, text: Iterable[str]) -> Iterator[list[str]]:
    """Yield the lines that end in each piece."""
    begun: list[str] = []
    length = 0  # of the line that has not ended yet
    for piece in text:
        *ended, rest = piece.split("\n")
        found = [f"{line}\n" for line in ended]
        if found:
            length = 0
            if begun:
                found[0] = f"{''.join(begun)}{found[0]}"
                begun.clear()
            yield found
        if rest:
            begun.append(rest)
            length += len(rest)
            file.check_row(length)
    if begun:
        yield ["".join(begun)]
