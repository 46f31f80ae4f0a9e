"""A report card as the command shows it: a table, and what failed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich import box
from rich.table import Table

from .console import say, table
from .styled import Text, console

if TYPE_CHECKING:
    from ..testing.report import ReportCard, Verdict

STYLES = {"failed": "bold red", "warning": "yellow", "xfailed": "yellow", "passed": "green"}


def show(card: ReportCard, verbose: bool) -> None:
    """Print a card.

    Args:
        card: the card.
        verbose: whether to print where each failure happened.
    """
    out = console()
    out.print(Text(card.title, style="bold"))
    out.print(Text(card.versions))
    say()
    if out.is_terminal:
        grid = Table(box=box.SIMPLE_HEAD, pad_edge=False)
        grid.add_column("outcome")
        grid.add_column("promise", overflow="fold")
        for verdict in card.verdicts:
            promise = Text(verdict.sentence)
            if verdict.reason:
                promise.append(f"\n{_first_line(verdict)}", style="dim")
            grid.add_row(Text(verdict.outcome, style=STYLES.get(verdict.outcome, "")), promise)
        out.print(grid)
    else:
        rows = [(v.outcome, v.sentence, _first_line(v)) for v in card.verdicts]
        table(("outcome", "promise", "reason"), rows)
    for verdict in card.verdicts:
        if verdict.outcome == "failed":
            out.print(Text(f"\n{verdict.sentence}", style="bold"))
            out.print(Text(verdict.promise))
            out.print(Text(verdict.traceback if verbose else verdict.reason, style="red"))
    say()
    out.print(Text(card.summary, style="green" if card.ok else "bold red"))


def _first_line(verdict: Verdict) -> str:
    return verdict.reason.partition("\n")[0]
