"""What every benchmark is told."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from .comparison import Contest, cpu, wall


class Skipped(Exception):
    """A benchmark lacks what it needs; the message says what."""


@dataclass(frozen=True)
class Settings:
    """How to measure.

    Args:
        rounds: times that each way is measured.
        clock: seconds on the wall, or of the CPU.
        small: whether to do little work, to see that it runs.
        device: where torch computes.
    """

    rounds: int = 5
    clock: Literal["wall", "cpu"] = "wall"
    small: bool = False
    device: str = "cpu"

    def contest(
        self, warm_up: int = 1, clock: Literal["wall", "cpu"] | None = None
    ) -> Contest[Any]:
        """Return a contest to be run; with `clock` where only one of them makes sense."""
        clocks = {"wall": wall, "cpu": cpu}
        return Contest(1 if self.small else self.rounds, warm_up, clocks[clock or self.clock])
