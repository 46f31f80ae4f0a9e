"""Where progress is shown: a live bar on a terminal, one in a notebook, plain lines elsewhere."""

from __future__ import annotations

import html
import sys
import time
from collections.abc import Sequence
from typing import Any, Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeRemainingColumn
from rich.progress import Progress as RichProgress
from rich.text import Text

from ..messages.printable import printable

SHORTEST_PAUSE = 0.1
"""Seconds between two changes of a notebook's bar: each is a message to the browser."""


class Screen(Protocol):
    """Where lines and bars are shown. Bars of one kind take each other's place."""

    width: int
    """Characters of a line that can be read at a glance."""
    live: bool
    """Whether bars are shown; else only lines are."""

    def line(self, text: str) -> None:
        """Show a line, above the bar."""
        ...

    def bar(self, kind: str, done: int, total: int | None, figures: Sequence[str]) -> None:
        """Show a bar, in place of one of another kind.

        Args:
            kind: what is done, in words; "" for the steps of training, whose last state stays.
            done: how much is done.
            total: of how much, if it is known.
            figures: what is said of it.
        """
        ...

    def stop(self) -> None:
        """Remove the bar from the live part of the screen."""
        ...


def standard_error() -> Console:
    """Return a console for the current standard error. In a pipe nothing is cut to a width."""
    width = None if sys.stderr.isatty() else 10_000
    return Console(stderr=True, width=width, highlight=False, soft_wrap=not sys.stderr.isatty())


def screen_of(out: Console) -> Screen:
    """Return the screen that a console writes to; in a notebook the output of the cell."""
    if out.is_jupyter:
        return Notebook()
    return Terminal(out)


class Terminal:
    """A terminal, or a file or pipe, which gets lines alone."""

    def __init__(self, out: Console) -> None:
        self._out = out
        self.live = out.is_terminal
        self.width = out.width if out.is_terminal else 80
        self._bar: RichProgress | None = None
        self._kind: str | None = None
        self._task = TaskID(0)

    def line(self, text: str) -> None:
        (self._bar.console if self._bar else self._out).print(Text(printable(text)))
        self._out.file.flush()

    def bar(self, kind: str, done: int, total: int | None, figures: Sequence[str]) -> None:
        if self._kind != kind:
            self.stop()
        about = "  ".join(figures)
        if self._bar is None:
            named = [TextColumn("    {task.description}", markup=False)] if kind else []
            self._bar = RichProgress(
                *named,
                BarColumn(bar_width=None),
                MofNCompleteColumn(),
                TextColumn("{task.fields[about]}", markup=False),
                TimeRemainingColumn(),
                console=self._out,
                expand=True,
                transient=bool(kind),
            )
            self._kind = kind
            self._task = self._bar.add_task(printable(kind), total=total, about=about)
            self._bar.start()
        self._bar.update(self._task, completed=done, total=total, about=printable(about))

    def stop(self) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = self._kind = None


class Notebook:
    """The output of a notebook's cell. It needs no widgets: the bar is HTML that is replaced."""

    live = True
    width = 100

    def __init__(self) -> None:
        self._handle: Any = None
        self._kind: str | None = None
        self._last: tuple[str, int, int | None, Sequence[str]] | None = None
        self._shown_at = 0.0

    def line(self, text: str) -> None:
        print(printable(text), flush=True)

    def bar(self, kind: str, done: int, total: int | None, figures: Sequence[str]) -> None:
        if self._kind != kind:
            self.stop()
        self._kind, self._last = kind, (kind, done, total, figures)
        if done == total or time.monotonic() - self._shown_at >= SHORTEST_PAUSE:
            self._show()

    def stop(self) -> None:
        if self._last is not None:
            self._show()
            if self._kind:
                self._display({"text/plain": "", "text/html": ""})  # the next bar takes its place
            else:
                self._handle = None
        self._kind = self._last = None

    def _show(self) -> None:
        assert self._last is not None
        kind, done, total, figures = self._last
        of = "?" if total is None else f"{total:,}"
        text = printable("  ".join([*([kind] if kind else []), f"{done:,}/{of}", *figures]))
        value = "" if total is None else f' value="{done}" max="{total}"'
        bar = f'<progress{value} style="width: 20em"></progress>'
        line = f'<div style="font-family: monospace">{bar} {html.escape(text)}</div>'
        self._display({"text/plain": text, "text/html": line})
        self._shown_at = time.monotonic()

    def _display(self, data: dict[str, str]) -> None:
        display = sys.modules["IPython"].display.display
        if self._handle is None:
            self._handle = display(data, raw=True, display_id=True)
        else:
            self._handle.update(data, raw=True)
