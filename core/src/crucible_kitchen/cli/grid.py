"""Tables that fit the width of a terminal, in which no word is broken if that can be avoided."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich import box
from rich.cells import cell_len
from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table

from ..messages.printable import printable
from .styled import Text

_GAP = 2
"""Blanks between two columns, and two items of a line."""
_LONGEST = 36
"""Characters of a word that is never broken: names are shorter, paths and URLs may be longer."""
_VALUE = 16
"""The same of a table with two columns, which are a name and its value."""


def fitted(headings: Sequence[str], rows: Sequence[Sequence[str]], width: int) -> RenderableType:
    """Return rows under headings; where words would be broken, each row as lines of its own.

    Args:
        headings: one for each column.
        rows: their cells. Those of the first column are never wrapped.
        width: characters in a line.
    """
    columns = [[*map(printable, column)] for column in zip(headings, *rows, strict=True)]
    longest = _VALUE if len(columns) == 2 else _LONGEST
    full = [max(cell_len(line) for cell in column for line in _lines(cell)) for column in columns]
    least = [
        *full[:1],
        *(
            max(min(cell_len(word), longest) for cell in column for word in cell.split() or [""])
            for column in columns[1:]
        ),
    ]
    space = width - _GAP * (len(columns) - 1)
    if sum(least) > space:
        return Group(*_stacked(headings, rows, width))
    made = Table(
        box=box.SIMPLE_HEAD,
        padding=(0, _GAP - 1, 0, 0),  # next to the blank that the box has between columns
        pad_edge=False,
        show_edge=False,
        header_style="bold",
    )
    for heading, size in zip(headings, _widths(least, full, space), strict=True):
        made.add_column(Text(heading), overflow="fold", width=size)
    for row in rows:
        made.add_row(*map(Text, row))
    return Padding(made, (1, 0), expand=False)


def _lines(cell: str) -> list[str]:
    return cell.split("\n")


def _widths(least: Sequence[int], full: Sequence[int], space: int) -> list[int]:
    """Return the width of each column: what it needs, or an even share of what is left."""
    widths, spare = [*least], space - sum(least)
    wanting = sorted(range(len(least)), key=lambda column: full[column] - least[column])
    for place, column in enumerate(wanting):
        more = min(full[column] - least[column], spare // (len(wanting) - place))
        widths[column] += more
        spare -= more
    return widths


def _stacked(
    headings: Sequence[str], rows: Sequence[Sequence[str]], width: int
) -> Iterator[RenderableType]:
    """Yield each row as its first cell, and below that what the others are, as many to a line as
    fit.
    """
    for first, *others in rows:
        yield Text(first, "bold", overflow="fold")
        line = Text()
        for heading, cell in zip(headings[1:], others, strict=True):
            if not cell:
                continue
            item = Text(f"{heading} ", "dim").append(Text(cell, "not dim"))
            if line and line.cell_len + _GAP + item.cell_len > width - _GAP:
                yield _indented(line)
                line = Text()
            line.append(" " * _GAP if line else "").append(item)
        if line:
            yield _indented(line)


def _indented(line: Text) -> Padding:
    return Padding(line, (0, 0, 0, _GAP), expand=False)
