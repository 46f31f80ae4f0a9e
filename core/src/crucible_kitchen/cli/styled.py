"""Styled text, for terminals. Apart from `console`, since importing rich takes as long as a command
that prints a plain list.
"""

from __future__ import annotations

import sys
from typing import Any

import rich.text
from rich.console import Console
from rich.style import Style

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
