"""Where the command writes: tables and messages, on a terminal or in a pipe.

Everything printed is `Text`, which shows control characters by their codes and is never searched
for markup: names, errors and rows come from elsewhere. Messages and tables mask the secrets of
URLs, whatever they repeat; rows of data are shown as they are.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import rich.text
from rich import box
from rich.console import Console
from rich.style import Style
from rich.table import Table

from ..masking import masked
from ..messages.printable import printable


class Text(rich.text.Text):
    """Text with a style, whose control characters are escaped."""

    def __init__(self, text: str = "", style: str | Style = "", **layout: Any) -> None:
        super().__init__(printable(text), style, **layout)

    def append(
        self, text: rich.text.Text | str, style: str | Style | None = None
    ) -> rich.text.Text:
        return super().append(printable(text) if isinstance(text, str) else text, style)


def console(*, stderr: bool = False) -> Console:
    """Return a console for the current streams. In a pipe nothing is cut to a width."""
    file = sys.stderr if stderr else sys.stdout
    width = None if file.isatty() else 10_000
    return Console(file=file, width=width, highlight=False, soft_wrap=not file.isatty())


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
    console().print(Text(message), soft_wrap=True)


def fail(message: str) -> None:
    """Say what went wrong, on standard error."""
    out = console(stderr=True)
    # Not wrapped: a command in the message must stay one line, to be copied.
    out.print(Text("error: ", style="bold red"), Text(_mask(message)), sep="", soft_wrap=True)


def note(message: str) -> None:
    """Say something that is not part of the result, on standard error."""
    console(stderr=True).print(Text(_mask(message)), soft_wrap=True)


def table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print rows under headings: a table on a terminal, aligned columns in a pipe.

    In a pipe a row is one line; line breaks in its cells become spaces.
    """
    out, rows = console(), [[masked(cell) for cell in row] for row in rows]
    if not out.is_terminal:
        lines = [[_one_line(printable(cell)) for cell in row] for row in (headings, *rows)]
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        padded = (map(str.ljust, line, widths) for line in lines)
        out.print(Text("\n".join("  ".join(cells).rstrip() for cells in padded)))
        return
    grid = Table(box=box.SIMPLE_HEAD, pad_edge=False, header_style="bold")
    for index, heading in enumerate(headings):
        grid.add_column(heading, overflow="fold", no_wrap=index == 0)
    for row in rows:
        grid.add_row(*map(Text, row))
    out.print(grid)


def _one_line(text: str) -> str:
    return re.sub(r"\s*[\n\t]\s*", " ", text)
