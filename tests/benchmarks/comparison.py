"""Two ways to do the same work, in turns, and the ratio between them.

Turns, since whatever else the machine does then affects both alike. The ratio is the median of
the rounds' ratios, so that a machine that gets slower meanwhile does not change it.
"""

from __future__ import annotations

import gc
import resource
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Generic, Literal, TypeVar

T = TypeVar("T")

Clock = Callable[[], float]


def wall() -> float:
    """Return seconds of the clock on the wall."""
    return time.perf_counter()


def cpu() -> float:
    """Return CPU seconds of this process, its threads and its ended children: what to compare where
    other work shares the machine and none of this work waits for a disk or a server.
    """
    children = resource.getrusage(resource.RUSAGE_CHILDREN)  # os.times counts hundredths
    return time.process_time() + children.ru_utime + children.ru_stime


@dataclass(frozen=True)
class Goal:
    """A bound for a ratio.

    Args:
        kind: `at least`, for a ratio of rates (or `times as fast`); `at most`, for a ratio of
            costs: times, or bytes.
        bound: the ratio.
    """

    kind: Literal["at least", "at most"]
    bound: float

    def is_met_by(self, ratio: float) -> bool:
        return ratio >= self.bound if self.kind == "at least" else ratio <= self.bound

    def __str__(self) -> str:
        return f"{'>=' if self.kind == 'at least' else '<='} {self.bound:g}x"


def at_least(bound: float) -> Goal:
    """Return the goal of a rate: this many times what the alternative does in a second."""
    return Goal("at least", bound)


def at_most(bound: float) -> Goal:
    """Return the goal of a cost: this many times the seconds or bytes of the alternative."""
    return Goal("at most", bound)


@dataclass(frozen=True)
class Row:
    """A line of the table.

    Args:
        what: what was measured.
        against: the alternative, which does the same work.
        goal: what the ratio should be; None if it is only shown.
        ratio: ours against theirs, in the sense of the goal; of rates without a goal.
        ours: the median of a round.
        theirs: the same of the alternative.
        unit: of both, such as `tokens/s`, `us` or `MiB`.
        note: what a reader must know, such as why a goal is missed and what comes next.
    """

    what: str
    against: str
    goal: Goal | None
    ratio: float
    ours: float
    theirs: float
    unit: str
    note: str = ""

    @property
    def met(self) -> bool | None:
        return None if self.goal is None else self.goal.is_met_by(self.ratio)


@dataclass(frozen=True)
class Growth:
    """How a cost grows: a curve a way to do the work.

    Args:
        what: what was measured, the title.
        variable: what was doubled, with its unit.
        unit: of the cost.
        values: of the variable, at least four, each twice the one before.
        curves: for each way to do the work, the cost at each value.
        note: what a reader must know.
    """

    what: str
    variable: str
    unit: str
    values: Sequence[float]
    curves: Mapping[str, Sequence[float]]
    note: str = ""


@dataclass
class Contest(Generic[T]):
    """Ways to do the same work.

    Args:
        rounds: how often each way is measured, in turns; 5 at least for a number to publish.
        warm_up: rounds before those, which are not counted.
        clock: `wall` or `cpu`.
    """

    rounds: int = 5
    warm_up: int = 1
    clock: Clock = wall
    seconds: dict[str, list[float]] = field(default_factory=dict)
    results: dict[str, T] = field(default_factory=dict)

    def run(self, **ways: Callable[[], T]) -> Contest[T]:
        """Run the ways in turns, each round in the other order; keep each way's last result."""
        names = list(ways)
        self.seconds = {name: [] for name in names}
        for turn in range(self.warm_up + self.rounds):
            for name in names if turn % 2 == 0 else reversed(names):
                gc.collect()
                started = self.clock()
                self.results[name] = ways[name]()
                if turn >= self.warm_up:
                    self.seconds[name].append(self.clock() - started)
        return self

    def row(
        self,
        ours: str,
        theirs: str,
        *,
        what: str,
        against: str,
        goal: Goal | None,
        work: float,
        unit: str,
        note: str = "",
    ) -> Row:
        """Return the line of the table for two of the ways.

        Args:
            ours: the name of our way.
            theirs: the name of the alternative.
            what: see `Row`.
            against: see `Row`.
            goal: see `Row`.
            work: for a goal of a rate, the units done in a round; for a goal of a cost, what a
                round's seconds are divided by and then shown in `unit` (`1e-6 * calls` for `us`).
            unit: see `Row`.
            note: see `Row`.
        """
        pairs = list(zip(self.seconds[ours], self.seconds[theirs], strict=True))
        median = {name: statistics.median(self.seconds[name]) for name in (ours, theirs)}
        if goal is not None and goal.kind == "at most":
            ratio = statistics.median(mine / other for mine, other in pairs)
            shown = {name: seconds / work for name, seconds in median.items()}
        else:
            ratio = statistics.median(other / mine for mine, other in pairs)
            shown = {name: work / seconds for name, seconds in median.items()}
        return Row(what, against, goal, ratio, shown[ours], shown[theirs], unit, note)
