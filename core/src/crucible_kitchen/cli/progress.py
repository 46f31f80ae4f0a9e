"""The progress of a command's run, and how it ended."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping, Sequence
from typing import Any

from ..kitchen import Kitchen
from ..messages.printable import text_of
from ..observers.headline import number
from ..observers.progress import RunProgress
from ..observers.screens import Terminal
from .console import table
from .continuation import Continuation
from .styled import Text, console


class Progress:
    """Observes one run, from its start to its summary.

    Args:
        kitchen: of the run.
        stderr: whether it is shown on standard error, since the result is something else.
    """

    def __init__(self, kitchen: Kitchen, *, stderr: bool = False) -> None:
        self._kitchen = kitchen
        self._console = console(stderr=stderr)
        self._shown = RunProgress(Terminal(self._console), kitchen.describe)
        self._started = time.monotonic()

    def __enter__(self) -> Progress:
        self._forget = self._kitchen.observe(self._shown)
        return self

    def __exit__(self, *exception: object) -> None:
        self._forget()
        self.stop()

    def stop(self) -> None:
        """Remove the bar from the live part of the screen; the last state of training stays."""
        self._shown.close()

    @property
    def run_id(self) -> str | None:
        """The run; None before it begins."""
        return self._shown.run_id

    @property
    def name(self) -> str:
        """What is run, in words."""
        return "the workflow" if self.run_id is None else f"the run {self.run_id}"

    def continuation(self, arguments: Sequence[str], profile: str | None) -> Continuation:
        """Return how to continue the run, which was started with these arguments."""
        return Continuation(self._kitchen, arguments, profile, self.run_id, self._shown.saved)

    def result(self, result: Any) -> None:
        """Print how the run ended."""
        self.stop()
        if result is None:
            return
        fields: dict[str, Any] = {}
        if dataclasses.is_dataclass(result) and not isinstance(result, type):
            names = [field.name for field in dataclasses.fields(result) if field.repr]
            fields = {name: getattr(result, name) for name in names}
        found = fields.pop("metrics", None)
        metrics = found if isinstance(found, Mapping) else {}
        rows = [(name, number(value)) for name, value in sorted(metrics.items())]
        rows.append(("time", f"{time.monotonic() - self._started:.1f} s"))
        table(("summary", ""), rows)
        for name, value in fields.items():
            if value is not None:  # ids and paths, in one piece to be copied
                line = self._kitchen.redacted(f"{name:<12}{text_of(value)}")
                self._console.print(Text(line), soft_wrap=True)
