"""Where the command writes: tables and messages, on a terminal or in a pipe.

Everything printed shows control characters by their codes and is never searched for markup: names,
errors and rows come from elsewhere. Messages and tables mask the secrets of URLs, whatever they
repeat; rows of data are shown as they are. What is plain is written without rich.
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TextIO

import typer

from ..masking.evident import masked
from ..messages.numbers import as_json
from ..messages.printable import printable, printable_json, text_of

JSON: Any = typer.Option("--json", help="Print one JSON document.")
"""The option of commands that print data."""


_mask: Callable[[str], str] = masked


def conceal(mask: Callable[[str], str] = masked) -> None:
    """Mask messages with this function from now on, such as with a kitchen's secrets."""
    global _mask
    _mask = mask


def without_secrets(text: str) -> str:
    """Return a text as messages show it."""
    return _mask(text)


def say(message: str = "") -> None:
    """Print a line of the result, on standard output."""
    _print(message)


def say_piece(text: str, *, stderr: bool = False) -> None:
    """Print a piece of a line at once, as it arrives."""
    if text:
        stream = sys.stderr if stderr else sys.stdout
        stream.write(printable(text))
        stream.flush()


def say_json(value: Any) -> None:
    """Print plain data as one JSON document, on standard output; NaN and infinities as text.

    Secrets are the caller's to mask.
    """
    text = json.dumps(as_json(value), indent=2, ensure_ascii=False, default=text_of)
    sys.stdout.write(printable_json(text) + "\n")


def fail(message: str) -> None:
    """Say what went wrong, on standard error."""
    _print(_mask(message), "error: ", stderr=True)


def note(message: str) -> None:
    """Say something that is not part of the result, on standard error."""
    _print(_mask(message), stderr=True)


def _print(text: str, label: str = "", *, stderr: bool = False) -> None:
    file = sys.stderr if stderr else sys.stdout
    if not _may_be_styled(file) and "\t" not in text:  # rich makes spaces of tabs
        file.write(f"{label}{printable(text)}\n")
        file.flush()
        return
    from .styled import Text, console

    out = console(stderr=stderr)
    # Not wrapped: a command in the message must stay one line, to be copied.
    out.print(Text(label, style="bold red"), Text(text), sep="", soft_wrap=True)


def _may_be_styled(file: TextIO) -> bool:
    """Say whether rich might style what is printed there: these variables make a terminal of a
    pipe.
    """
    return file.isatty() or "FORCE_COLOR" in os.environ or "TTY_COMPATIBLE" in os.environ


def records(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> list[dict[str, str]]:
    """Return the rows of a table for `say_json`, secrets of URLs masked as `table` does."""
    return [dict(zip(headings, map(masked, row), strict=True)) for row in rows]


def table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print rows under headings: a table on a terminal, aligned columns in a pipe.

    On a terminal that is too narrow for the words of a row, each row is lines of its own. In a
    pipe a row is one line; line breaks in its cells become spaces.
    """
    rows = [[masked(cell) for cell in row] for row in rows]
    if _may_be_styled(sys.stdout):
        from . import grid, styled

        if (out := styled.console()).is_terminal:
            out.print(grid.fitted(headings, rows, out.width))
            return
    lines = [[_one_line(printable(cell)) for cell in row] for row in (headings, *rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    padded = (map(str.ljust, line, widths) for line in lines)
    _print("\n".join("  ".join(cells).rstrip() for cells in padded))


def _one_line(text: str) -> str:
    return re.sub(r"\s*[\n\t]\s*", " ", text)
