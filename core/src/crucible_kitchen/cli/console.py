"""Where the command writes: tables and messages, on a terminal or in a pipe."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text


def console(*, stderr: bool = False) -> Console:
    """Return a console for this moment's streams. In a pipe nothing is cut to a width."""
    file = sys.stderr if stderr else sys.stdout
    width = None if file.isatty() else 10_000
    return Console(file=file, width=width, highlight=False, soft_wrap=not file.isatty())


def fail(message: str) -> None:
    """Say what went wrong, on standard error."""
    out = console(stderr=True)
    # Not wrapped here: a command in the message must stay one line to be copied.
    out.print(Text("error: ", style="bold red"), Text(message), sep="", soft_wrap=True)


def note(message: str) -> None:
    """Say something beside the result, on standard error."""
    console(stderr=True).print(Text(message), soft_wrap=True)


def table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print rows under headings: a table on a terminal, aligned columns in a pipe."""
    out, rows = console(), list(rows)
    if not out.is_terminal:
        columns = list(zip(headings, *rows, strict=True))
        widths = [max(map(len, column)) for column in columns]
        for row in (headings, *rows):
            cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
            print("  ".join(cells).rstrip())
        return
    grid = Table(box=box.SIMPLE_HEAD, pad_edge=False, header_style="bold")
    for index, heading in enumerate(headings):
        grid.add_column(heading, overflow="fold", no_wrap=index == 0)
    for row in rows:
        grid.add_row(*map(Text, row))
    out.print(grid)
