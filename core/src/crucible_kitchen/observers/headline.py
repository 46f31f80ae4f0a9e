"""The figures that a line of progress has room for: the ones that a run is watched by."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ..messages.printable import text_of

HEADLINES: Sequence[Sequence[tuple[str, str]]] = (
    (("teacher_kl", "teacher_kl"),),
    (("env/all/reward/total", "reward"),),
    (("dpo_loss", "loss"), ("accuracy", "accuracy")),
    (("train_mean_nll", "loss"),),
    (("loss", "loss"),),
    (("reward", "reward"),),
)
"""Metrics and their labels. The first group counts whose first metric a step has: what a workflow
lowers or raises comes before what it measures besides."""

EVALUATIONS = (
    "test/teacher_kl",
    "test/env/all/reward/total",
    "test/dpo_loss",
    "test/accuracy",
    "test/nll",
    "test/exact_match",
    "test/env/all/frac_unparsed",
)
"""Metrics of an evaluation that are named first."""

COMMON = ("learning_rate", "grad_norm", "progress", "num_tokens", "tokens_per_second", "time/step")
"""Metrics of every loop, which say nothing of what is learned."""


def headline(metrics: Mapping[str, float]) -> list[tuple[str, float]]:
    """Return what a step is watched by, labelled; of an unknown workflow its first metric."""
    for group in HEADLINES:
        if group[0][0] in metrics:
            return [(label, metrics[name]) for name, label in group if name in metrics]
    return [each for each in metrics.items() if each[0] not in COMMON][:1]


def in_words(metrics: Mapping[str, Any], width: int) -> str:
    """Return the metrics of an evaluation for one line.

    Those that a run is watched by come first, each with its interval, if it has one.

    Args:
        metrics: by name.
        width: characters that the line may have. Of metrics beyond it, their number is given.
    """
    shown = list(_with_intervals(metrics))
    line = ""
    for count, each in enumerate(shown):
        more = len(shown) - count
        longer = f"{line}, {each}" if line else each
        rest = f", and {more - 1} more" if more > 1 else ""
        if line and len(longer) + len(rest) > width:
            return f"{line}, and {more} more"
        line = longer
    return line


def _with_intervals(metrics: Mapping[str, Any]) -> Iterator[str]:
    first = [name for name in EVALUATIONS if name in metrics]
    ends = {f"{name}/{end}" for name in metrics for end in ("low", "high")}
    for name in dict.fromkeys([*first, *metrics]):
        if name in ends:
            continue
        low, high = metrics.get(f"{name}/low"), metrics.get(f"{name}/high")
        interval = f" ({number(low)} to {number(high)})" if None not in (low, high) else ""
        yield f"{name} {number(metrics[name])}{interval}"


def number(value: Any) -> str:
    """Return a number in at most four figures; anything else as text."""
    if not isinstance(value, int | float):  # of a workflow of another package
        return text_of(value)
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
