"""Where the time of a run went, from its trace.

Own times are without the calls made within a call; the whole has three parts:

    retry, around read   |=====================|
    acme, read               |=====|   |====|
    own time of acme         |-----|   |----|
    own time of retry    |---|     |---|    |--|

    calls that wait                |=======|
    other calls                |=====|        |====|
    waiting                        |-------|
    calling                    |---|          |----|
    own                  |-----|           |--|    |---|  the workflow's own work
    elapsed              |-----------------------------|  the sum of the three
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np

from ..errors import NotFound
from ..events import Event
from .lines import LATEST, Line

WAITING = ("training_client", "await_")
"""The port and callback in which a caller only waits for a backend."""

Interval: TypeAlias = tuple[float, float]
Number: TypeAlias = tuple[str, int]
"""A trace, and the number of a span in it."""


@dataclass(frozen=True, slots=True, order=True)
class Callee:
    """An adapter's callback, or a wrapper around one."""

    port: str
    adapter: str
    wraps: bool
    callback: str


@dataclass(frozen=True, slots=True)
class CalleeTimes:
    """How long the calls of one callee took. Times are own times, in seconds.

    Args:
        callee: what was called.
        calls: how many calls there were.
        errors: how many calls failed; in a batch, how many completions. `NotFound` is an answer.
        total: the sum over all calls.
        p50: the median.
        p95: the 95th percentile.
    """

    callee: Callee
    calls: int
    errors: int
    total: float
    p50: float
    p95: float


@dataclass(frozen=True, slots=True)
class Phase:
    """A kind of span that the workflow emits, such as `training.step`.

    Args:
        name: the event's name.
        count: how many there were.
        total: seconds during which at least one of them was open.
    """

    name: str
    count: int
    total: float


@dataclass(frozen=True, slots=True)
class Profile:
    """Where the time went, in seconds. `waiting`, `calling` and `own` add up to `elapsed`.

    Args:
        elapsed: from the first event to the last one.
        waiting: at least one call waits for a backend.
        calling: at least one call is open, and none waits.
        own: no call is open.
        calls: how many there were, without those made within another call.
        errors: how many of these failed.
        rows: by callee, the one that took the longest first.
        phases: by kind, in order of appearance.
        ended: how the last attempt ended: None, or the type of the error; `unfinished` if the
            trace does not say.
    """

    elapsed: float
    waiting: float
    calling: float
    own: float
    calls: int
    errors: int
    rows: tuple[CalleeTimes, ...]
    phases: tuple[Phase, ...]
    ended: str | None


USED = ("port", "adapter", "callback", "duration_s", "failed", "error")
"""Attributes that are kept of an event: a trace may have millions of them."""


@dataclass(slots=True)
class Trace:
    """The events that one observer wrote: those of a run, or of one attempt at it."""

    name: str
    runs: list[str] = field(default_factory=list)
    lines: list[Line] = field(default_factory=list)

    def add(self, line: Line) -> None:
        event = line.event
        run_id = event.attributes.get("run_id")
        if event.name == "workflow.start" and isinstance(run_id, str):
            self.runs.append(run_id)
        used = {name: event.attributes[name] for name in USED if name in event.attributes}
        slim = Event(sys.intern(event.name), used, event.time, event.span, event.parent)
        self.lines.append(Line(self.name, slim))


def traces(lines: Iterable[Line]) -> list[Trace]:
    """Sort lines by the observer that wrote them, in order of appearance."""
    found: dict[str, Trace] = {}
    for line in lines:
        found.setdefault(line.trace_id, Trace(line.trace_id)).add(line)
    return list(found.values())


@dataclass(frozen=True, slots=True)
class _Call:
    callee: Callee
    within: Number | None
    interval: Interval
    errors: int


def profile(attempts: Iterable[Trace]) -> Profile:
    """Add up the attempts at one run."""
    calls: dict[Number, _Call] = {}
    phases: dict[str, list[Interval]] = {}
    elapsed, ended = 0.0, None
    for attempt in attempts:
        spans = [(line, _interval(line)) for line in attempt.lines]
        elapsed += max(end for _, (_, end) in spans) - min(start for _, (start, _) in spans)
        ended = _ended(attempt)
        for line, interval in spans:
            event = line.event
            if event.span is None:
                continue
            if event.name.startswith("adapter."):
                calls[attempt.name, event.span] = _call(line, interval)
            elif event.name != "workflow.run":
                phases.setdefault(event.name, []).append(interval)
    within_calls = _union([call.interval for call in calls.values()])
    outermost = [call for call in calls.values() if call.within not in calls]
    waiting = _union([call.interval for call in calls.values() if _waits(call.callee)])
    return Profile(
        elapsed=elapsed,
        waiting=waiting,
        calling=max(within_calls - waiting, 0.0),
        own=max(elapsed - within_calls, 0.0),
        calls=len(outermost),
        errors=sum(call.errors for call in outermost),
        rows=tuple(_rows(calls)),
        phases=tuple(Phase(name, len(found), _union(found)) for name, found in phases.items()),
        ended=ended,
    )


def _waits(callee: Callee) -> bool:
    return not callee.wraps and (callee.port, callee.callback) == WAITING


def _ended(attempt: Trace) -> str | None:
    for line in reversed(attempt.lines):
        if line.event.name == "workflow.run":
            error = line.event.attributes.get("error")
            return None if error is None else _text(error)
    return "unfinished"


def _interval(line: Line) -> Interval:
    seconds = line.event.attributes.get("duration_s", 0.0)
    known = isinstance(seconds, int | float) and 0 <= seconds < LATEST
    return (line.event.time - (float(seconds) if known else 0.0), line.event.time)


def _call(line: Line, interval: Interval) -> _Call:
    event, about = line.event, line.event.attributes
    port, adapter, callback = (_text(about.get(key)) for key in ("port", "adapter", "callback"))
    failed, error = about.get("failed"), about.get("error")
    return _Call(
        Callee(port, adapter, event.name == "adapter.around", callback),
        None if event.parent is None else (line.trace_id, event.parent),
        interval,
        failed
        if isinstance(failed, int) and 0 <= failed < LATEST
        else int(bool(error) and error != NotFound.__name__),
    )


def _text(value: Any) -> str:
    """Return one object for equal texts, and `?` for anything that is not a text."""
    return sys.intern(value) if isinstance(value, str) else "?"


def _rows(calls: dict[Number, _Call]) -> Iterator[CalleeTimes]:
    within: dict[Number, list[Interval]] = {}
    for call in calls.values():
        if call.within in calls and call.within is not None:
            within.setdefault(call.within, []).append(call.interval)
    own: dict[Callee, list[float]] = {}
    errors: dict[Callee, int] = {}
    for number, call in calls.items():
        start, end = call.interval
        inner = [(max(a, start), min(b, end)) for a, b in within.get(number, ())]
        own.setdefault(call.callee, []).append(max(end - start - _union(inner), 0.0))
        errors[call.callee] = errors.get(call.callee, 0) + call.errors
    for callee in sorted(own, key=lambda callee: -sum(own[callee])):
        p50, p95 = np.percentile(own[callee], [50, 95])
        total = math.fsum(own[callee])
        yield CalleeTimes(callee, len(own[callee]), errors[callee], total, float(p50), float(p95))


def _union(intervals: Iterable[Interval]) -> float:
    """Return the seconds covered by at least one of the intervals."""
    total, reached = 0.0, -math.inf
    for start, end in sorted(intervals):
        if end > reached:
            total += end - max(start, reached)
            reached = end
    return total
