"""An event, and what receives it."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeAlias


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened.

    Args:
        name: its kind, from the table of `crucible_kitchen.events`, or a workflow's own.
        attributes: the particulars.
        time: when it happened, in seconds since the epoch; for a span, when it ended.
        span: the number of the span that ended, unique in this process; None for a point in time.
        parent: the number of the span within which it happened, if any.
    """

    name: str
    attributes: Mapping[str, Any]
    time: float = field(default_factory=time.time)
    span: int | None = None
    parent: int | None = None


@dataclass(slots=True)
class _Unsealed:
    """An event that is being made. Its fields are those of `Event`, in the same order."""

    name: str
    attributes: Mapping[str, Any]
    time: float
    span: int | None
    parent: int | None


def sealed(
    name: str, attributes: Mapping[str, Any], time: float, span: int | None, parent: int | None
) -> Event:
    """Return an event. Made before it is frozen, it costs a quarter of `Event(...)`, which sets
    each field of a frozen dataclass by `object.__setattr__`: every observed call makes one.
    """
    made: Any = _Unsealed(name, attributes, time, span, parent)
    made.__class__ = Event
    return made  # type: ignore[no-any-return]


Observer: TypeAlias = Callable[[Event], None]


class Tracer(Protocol):
    """An observer that also learns where spans begin. Only tracers need that.

    `enter` exists for OpenTelemetry, whose instrumented libraries look up the current span of their
    thread: without it their spans would not nest within ours.
    """

    def __call__(self, event: Event) -> None: ...

    def begin(self, event: Event) -> None:
        """The span `event.span` begins. The event has the attributes known by then."""
        ...

    def enter(self, span: int) -> Callable[[], None]:
        """Enter the span in this thread; return a function that leaves it."""
        ...
