"""Events as lines for people, on standard error."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Mapping
from typing import Any

from rich.console import Console as Terminal
from rich.text import Text

from ..events import Event, without_texts
from ..messages.durations import duration
from ..messages.printable import printable

WIDTH = 48
"""Characters for what happened, before the column of durations."""


class Console:
    """Prints a line per event: when, what, how long, and the other attributes.

    It writes to the current `sys.stderr`, so that a progress bar stays intact. Line breaks and
    control characters in names and values are escaped: an event is one line.
    """

    def __init__(self) -> None:
        self._terminal: Terminal | None = None

    def __call__(self, event: Event) -> None:
        file, text = sys.stderr, line(event)
        if not file.isatty():
            file.write(f"{text.plain}\n")
            return
        # Kept, since making one costs more than printing a line.
        if self._terminal is None or self._terminal.file is not file:
            self._terminal = Terminal(file=file, highlight=False)
        self._terminal.print(text, soft_wrap=True)

    def __repr__(self) -> str:
        return "console"


def line(event: Event) -> Text:
    """Return an event as a line."""
    about = dict(without_texts(event).attributes)
    if event.name == "workflow.start":
        about.pop("config", None)  # too long for a line
    seconds, error = about.pop("duration_s", None), about.pop("error", None)
    what = _what(event.name, about)
    clock = time.strftime("%H:%M:%S", time.localtime(event.time))
    text = Text.assemble(
        (f"{clock}.{int(event.time % 1 * 1000):03d}  ", "dim"),
        _shown(what).ljust(WIDTH),
        f"  {'' if seconds is None else duration(seconds):>8}",
        (_shown(f"  {error}") if error else "", "bold red"),
        (_shown(f"  {' '.join(_figures(about))}"), "dim"),
    )
    text.rstrip()
    return text


def _shown(text: str) -> str:
    return printable(text).replace("\n", "\\n").replace("\t", " ")


def _what(name: str, about: dict[str, Any]) -> str:
    """Return what names the event, removing it from the attributes."""
    if name.startswith("adapter."):
        around = "around " if name == "adapter.around" else ""
        about.pop("depth", None)
        port, adapter, callback = (about.pop(key) for key in ("port", "adapter", "callback"))
        return f"{port} {adapter} {around}{callback}"
    words = [name, *(str(about.pop(key)) for key in ("workflow", "dataset") if key in about)]
    if "step" in about:
        total = about.pop("total", None)
        words.append(f"{about.pop('step')}{f'/{total}' if total else ''}")
        about.pop("run_id", None)  # the same for every step
    return " ".join(words)


def _figures(about: Mapping[str, Any], within: str = "") -> Iterator[str]:
    for name, value in about.items():
        if name == "metrics" or isinstance(value, Mapping):
            yield from _figures(value, "" if name == "metrics" else f"{name}.")
        elif value is not None:
            figure = f"{value:.4g}" if isinstance(value, float) else value
            yield f"{within}{name}={figure}"
