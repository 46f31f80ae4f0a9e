"""Rows of metrics as curves, thinned for drawing, and in the order in which they are read."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from ..types import IntArray, MetricEntry

Values: TypeAlias = npt.NDArray[np.float64]
"""Numbers as they were recorded."""

LARGEST = 1e300
"""Values beyond it cannot be drawn: the difference of two of them may be infinite."""
INTERVALS = 300
"""Intervals of steps into which a long curve is thinned, two points of each."""

_ORDER = (
    ("reward",),
    ("exact_match", "accuracy", "pass@", "margin"),
    ("nll", "loss", "kl"),
    (),  # any other
    ("num_", "grad_norm", "learning_rate"),
    ("tokens_per_second", "time/"),
    ("progress",),
)
"""What the names of metrics contain, those that are read first first."""
_DULL = frozenset({"progress"})
"""Metrics that say nothing as curves."""


@dataclass(frozen=True, slots=True)
class Curve:
    """A metric over the steps of a run.

    Args:
        metric: its name.
        steps: ascending, int64 `(points,)`.
        values: finite, float64 `(points,)`.
        recorded: points before it was thinned.
        left_out: values that cannot be drawn: NaN, infinities, and those beyond `LARGEST`.
    """

    metric: str
    steps: IntArray
    values: Values
    recorded: int
    left_out: int

    def thinned(self, intervals: int = INTERVALS) -> Curve:
        """Return the lowest and the highest point of each interval; of a short curve, all."""
        count = len(self.steps)
        if count <= 2 * intervals:
            return self
        kept: list[int] = [0, count - 1]
        for part in np.array_split(np.arange(count), intervals):
            values = self.values[part]
            kept += [int(part[values.argmin()]), int(part[values.argmax()])]
        at = np.unique(kept)
        return Curve(self.metric, self.steps[at], self.values[at], self.recorded, self.left_out)

    @property
    def is_thinned(self) -> bool:
        """Whether points are missing that could be drawn."""
        return len(self.steps) < self.recorded - self.left_out


def curves(entries: Iterable[MetricEntry]) -> dict[str, Curve]:
    """Return the curve of each metric that has steps. Of a step's rows the last one counts."""
    found: dict[str, dict[int, float]] = {}
    for entry in entries:
        if entry.step is not None:
            found.setdefault(entry.metric, {})[entry.step] = entry.value
    return {metric: _curve(metric, points) for metric, points in found.items()}


def _curve(metric: str, points: Mapping[int, float]) -> Curve:
    steps = np.array(sorted(points), np.int64)
    values = np.array([points[step] for step in steps.tolist()], np.float64)
    drawn = np.abs(values) <= LARGEST  # false for NaN
    left_out = int(len(values) - drawn.sum())
    return Curve(metric, steps[drawn], values[drawn], len(values), left_out)


def last_values(entries: Iterable[MetricEntry]) -> dict[str, float]:
    """Return the value of each metric at its last step; without steps, the one recorded last."""
    found: dict[str, tuple[float, float]] = {}
    for entry in entries:
        step = float("-inf") if entry.step is None else entry.step
        if entry.metric not in found or step >= found[entry.metric][0]:
            found[entry.metric] = step, entry.value
    return {metric: value for metric, (_, value) in found.items()}


def in_order(metrics: Iterable[str]) -> list[str]:
    """Sort names of metrics: rewards, accuracies, losses, others, throughput; of held-out data
    before those of training.
    """
    return sorted(set(metrics), key=lambda name: (_rank(name), not _is_test(name), name))


def worth_drawing(metrics: Iterable[str]) -> list[str]:
    """Return the names of metrics that are drawn if none is asked for, in order."""
    return [name for name in in_order(metrics) if name not in _DULL]


def headline(metrics: Mapping[str, float], count: int = 2) -> list[str]:
    """Return the names of the metrics that say the most about a run, at most `count`.

    Those of held-out data, if there are any.
    """
    telling = [name for name in in_order(metrics) if _rank(name) <= _OTHER]
    return ([name for name in telling if _is_test(name)] or telling)[:count]


def _is_test(name: str) -> bool:
    return name.startswith("test/")


def _rank(name: str) -> int:
    ranks = (rank for rank, parts in enumerate(_ORDER) if any(part in name for part in parts))
    return next(ranks, _OTHER)


_OTHER = _ORDER.index(())


def union(of_runs: Sequence[Mapping[str, Curve]]) -> list[str]:
    """Return the names of the metrics that any of the runs has."""
    return list(dict.fromkeys(name for each in of_runs for name in each))
