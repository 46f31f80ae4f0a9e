"""The format of a trace: a file with one line of JSON an event.

A line has `trace` (the same for everything that one observer wrote), `event`, `time`, `span`,
`parent` and `attributes`. Numbers of spans are unique within a trace, so a file may hold several.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..events import Event
from ..files import open_named
from ..messages.numbers import as_json

LONGEST = 2**20
"""Bytes of a line that are read: anything longer is not an event."""

LATEST = 1e12
"""Upper bound of times, in seconds since 1970, and of durations: some 30,000 years."""


@dataclass(frozen=True, slots=True)
class Line:
    """A line of a trace.

    Args:
        trace_id: which observer wrote it.
        event: what it wrote.
    """

    trace_id: str
    event: Event


def encode(trace_id: str, event: Event) -> bytes:
    """Return an event as a line."""
    line = {
        "trace": trace_id,
        "event": event.name,
        "time": round(event.time, 7),
        "span": event.span,
        "parent": event.parent,
        "attributes": event.attributes,
    }
    try:
        text = json.dumps(line, allow_nan=False, default=_plain)
    except ValueError:
        text = json.dumps(as_json(line), default=_plain)
    return text.encode() + b"\n"


def decode(line: bytes) -> Line | None:
    """Return what a line says, or None if it is torn or not a line of a trace."""
    try:
        match json.loads(line):
            case {
                "trace": str(trace_id),
                "event": str(name),
                "time": int() | float() as time,
                "span": None | int() as span,
                "parent": None | int() as parent,
                "attributes": dict(about),
            } if abs(time) < LATEST:
                return Line(trace_id, Event(name, about, float(time), span, parent))
    except (ValueError, OverflowError, RecursionError):
        pass
    return None


def read(path: Path) -> Iterator[Line | None]:
    """Yield each line of a file, None for a line that is not of a trace.

    Raises:
        OSError: it cannot be read, or is not a file.
    """
    with open_named(path) as lines:
        while line := lines.readline(LONGEST):
            if len(line) == LONGEST and line[-1:] != b"\n":
                while (rest := lines.readline(LONGEST)) and rest[-1:] != b"\n":
                    pass  # in pieces, since it may never end
                yield None
            elif line.strip():
                yield decode(line)


def _plain(value: Any) -> Any:
    """Convert NumPy scalars and mappings; describe anything else by its type."""
    if isinstance(value, np.generic):
        return as_json(value.item())
    if isinstance(value, Mapping):
        return dict(value)
    return f"<{type(value).__name__}>"
