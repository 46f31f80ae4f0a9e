"""The lines of a text file, and plain text, of which each line is a row."""

from __future__ import annotations

import codecs
import io
from collections.abc import Iterator

from crucible_kitchen import InvalidInput

from ..files import DataFile

_WIDE = {  # byte order marks; the longer ones first, for one begins as another does
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}


def rows(file: DataFile, encoding: str | None = None) -> Iterator[dict[str, str]]:
    """Yield each line, without its end, as the field `text`. Blank lines are passed over."""
    for line in lines(file, encoding):
        text = line.removesuffix("\n").removesuffix("\r")
        if text and not text.isspace():
            yield {"text": text}


def lines(file: DataFile, encoding: str | None = None) -> Iterator[str]:
    r"""Yield every line, its end included. Only `\n` ends a line: neither U+2028 nor a form feed.

    The text is UTF-8 unless a byte order mark, which is not part of it, or `encoding` says
    otherwise.

    Raises:
        InvalidInput: with the number of the line that cannot be decoded.
    """
    with file.open() as binary:
        start = binary.peek(4)[:4]
        wide = next((name for mark, name in _WIDE.items() if start.startswith(mark)), None)
        if wide is not None:
            try:
                yield from io.TextIOWrapper(binary, wide, newline="\n")
            except UnicodeDecodeError as error:
                raise InvalidInput(f"file {file.name}: is not {wide}: {error.reason}") from error
            return
        if start.startswith(codecs.BOM_UTF8):
            binary.read(len(codecs.BOM_UTF8))
        encoding = encoding or "utf-8"
        for number, line in enumerate(binary, 1):
            try:
                text = line.decode(encoding)
            except UnicodeDecodeError as error:
                raise InvalidInput(
                    f"file {file.name}, line {number}: is not {encoding}: {error.reason}; save "
                    "the file as UTF-8"
                ) from error
            yield text
