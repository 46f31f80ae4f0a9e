"""Runs as one HTML file, without a script and without anything from elsewhere.

Needs Jinja, of the extra `plot`. All text is escaped, and of foreign text the characters are shown
by their codes that `printable` shows so.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.resources import files
from typing import Any

from ..errors import ConfigurationError
from ..messages.numbers import as_json
from ..messages.printable import printable, text_of
from .chart import svg
from .curves import INTERVALS, Curve, in_order
from .settings import differences, settings_of
from .stored import SampleRow, StoredRun

SAMPLES = 50
"""Samples of an evaluation that a page shows."""
CHARACTERS = 4000
"""Characters of a text that a page shows."""
_TEMPLATE = ("templates", "report", "page.html.jinja")


@dataclass(frozen=True, slots=True)
class Evaluation:
    """The samples of an evaluation.

    Args:
        step: after which it was.
        samples: the first `SAMPLES` of them.
        count: how many there are.
    """

    step: int
    samples: Sequence[SampleRow]
    count: int


@dataclass(frozen=True, slots=True)
class Told:
    """What a page tells of a run.

    Args:
        run: the run.
        curves: by metric.
        last: the last value of each metric.
        evaluations: with samples, the latest first.
        older: evaluations with samples that the page does not show.
    """

    run: StoredRun
    curves: Mapping[str, Curve]
    last: Mapping[str, float]
    evaluations: Sequence[Evaluation] = ()
    older: int = 0


def html(told: Sequence[Told], metrics: Sequence[str]) -> str:
    """Return a page about runs.

    Args:
        told: the runs, at least one.
        metrics: names of those that are drawn, in order.

    Raises:
        ConfigurationError: Jinja is not installed.
    """
    try:
        from jinja2 import Environment, StrictUndefined
    except ImportError as error:
        raise ConfigurationError(
            "a page needs Jinja: pip install 'crucible-kitchen[plot]'"
        ) from error
    environment = Environment(
        autoescape=True,
        undefined=StrictUndefined,
        finalize=lambda value: value if hasattr(value, "__html__") else printable(text_of(value)),
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"number": number, "text": text, "utc": utc}
    source = files(__package__.rpartition(".")[0]).joinpath(*_TEMPLATE).read_text("utf-8")
    records = [each.run.record for each in told]
    names = [each.run.run_id for each in told]
    return environment.from_string(source).render(
        title=" · ".join(names) if len(names) <= 3 else f"{len(names)} runs",
        told=told,
        charts=[(name, _drawn(told, name)) for name in metrics],
        notes=_notes(told, metrics),
        last=in_order(name for each in told for name in each.last),
        settings=[None if record is None else settings_of(record) for record in records],
        differences=differences(records) if len(told) > 1 else {},
    )


def _drawn(told: Sequence[Told], metric: str) -> str:
    there = [(n, each.curves[metric]) for n, each in enumerate(told) if metric in each.curves]
    return svg(metric, [(run, curve.thinned()) for run, curve in there])


def _notes(told: Sequence[Told], metrics: Sequence[str]) -> list[str]:
    """Return what a reader must know of the curves that cannot be seen in them."""
    notes = []
    drawn = [each.curves[name] for each in told for name in metrics if name in each.curves]
    if long := [curve.recorded for curve in drawn if curve.thinned().is_thinned]:
        notes.append(
            f"Of curves of up to {max(long):,} points the lowest and the highest of each of "
            f"{INTERVALS} intervals of steps are drawn."
        )
    for each in told:
        missing = [
            f"{name} {curve.left_out:,}"
            for name, curve in each.curves.items()
            if curve.left_out and name in metrics
        ]
        if missing:
            notes.append(
                f"{each.run.run_id}: NaN and infinite values are not drawn: {', '.join(missing)}."
            )
    return notes


def number(value: Any) -> str:
    """Return a value for a table of numbers."""
    if value is None:
        return ""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return text(value)
    return f"{value:,.0f}" if 1000 <= abs(value) < 1e15 else f"{value:.4g}"


def text(value: Any) -> str:
    """Return a value as text that is safe to read, cut to `CHARACTERS`."""
    if value is None:
        return ""
    if not isinstance(value, str):
        value = json.dumps(as_json(value), ensure_ascii=False, default=text_of)
    more = len(value) - CHARACTERS
    return printable(value[:CHARACTERS]) + (f" … {more:,} more characters" if more > 0 else "")


def utc(time: str | None) -> str:
    """Return a time of a record (ISO 8601) for a reader, in UTC."""
    try:
        return f"{datetime.fromisoformat(time or '').astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"
    except ValueError:
        return text(time)
