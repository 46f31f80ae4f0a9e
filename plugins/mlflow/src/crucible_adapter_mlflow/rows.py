"""One metric as MLflow keeps it: a key, a value, a time in milliseconds and a step."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Self

from crucible_kitchen import MetricEntry, Unsupported

from .names import decode, encode

LONGEST_KEY = 250
"""Longest name of a metric in characters."""
LEAST_STEP = -(2**62)
"""Steps below it mean "no step"; see `Row.recorded`."""
WRITERS = 2**30
"""Number of writers that can be distinguished."""

END = 253_402_300_800_000
"""The first millisecond of the year 10000, beyond every `datetime`."""

_NO_STEP = -(2**63)
_LARGEST = sys.float_info.max
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Row:
    """A metric's value in MLflow, whose history keeps every different one of a run."""

    key: str
    value: float
    timestamp: int
    step: int

    @classmethod
    def recorded(cls, entry: MetricEntry, timestamp: int, writer: int) -> Self:
        """Return the row of an entry.

        In MLflow every value has a step, and no two rows are equal. A row without a step gets one
        below all others, which grows with time and differs between writers.
        """
        step = entry.step
        if step is None:
            step = _NO_STEP + timestamp // 1000 * WRITERS + writer
        return cls(encode(entry.metric), entry.value, timestamp, step)

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> Self:
        """Return the row of a server's answer.

        Raises:
            LookupError, TypeError, ValueError, OverflowError: it is not a row.
        """
        key, timestamp, step = (
            fields["key"],
            whole(fields["timestamp"]),
            whole(fields.get("step", 0)),
        )
        if not isinstance(key, str) or isinstance(fields["value"], bool):
            raise TypeError("a row is a name and a number")
        if not (0 <= timestamp < END and -(2**63) <= step < 2**63):
            raise ValueError("a time or a step that MLflow cannot hold")
        # Numbers, "NaN" and "Infinity"; a database behind MLflow may store an infinity as the
        # largest float.
        value = float(fields["value"])
        if abs(value) == _LARGEST:
            value = math.copysign(math.inf, value)
        return cls(key, value, timestamp, step)

    def to_json(self) -> dict[str, Any]:
        value: float | str = self.value
        if math.isnan(self.value):  # names as in the JSON form of Protocol Buffers
            value = "NaN"
        elif math.isinf(self.value):
            value = "Infinity" if self.value > 0 else "-Infinity"
        return {"key": self.key, "value": value, "timestamp": self.timestamp, "step": self.step}

    @property
    def identity(self) -> tuple[object, ...]:
        """A later row with the same identity replaces this one."""
        if self.step < LEAST_STEP:
            return (self.key, self.step, self.timestamp)
        return (self.key, self.step)

    def entry(self, run_id: str) -> MetricEntry:
        return MetricEntry(
            run_id=run_id,
            metric=decode(self.key),
            value=self.value,
            step=None if self.step < LEAST_STEP else self.step,
            timestamp=_EPOCH + timedelta(milliseconds=self.timestamp),
        )


def whole(number: int | str) -> int:
    """Return a 64-bit integer, which Protocol Buffers write as a number or as text.

    Raises:
        TypeError, ValueError: it is not an integer.
    """
    if isinstance(number, bool) or not isinstance(number, int | str):
        raise TypeError(f"a {type(number).__name__} is not an integer")
    return int(number)


def milliseconds(time: datetime) -> int:
    """Return a time in milliseconds since 1970, as MLflow counts it."""
    return (time - _EPOCH) // timedelta(milliseconds=1)


def check(entry: MetricEntry) -> MetricEntry:
    """Return the entry if MLflow can hold it.

    Raises:
        Unsupported: it would be read back as another, or not at all.
    """
    if entry.metadata:
        raise Unsupported(f"MLflow keeps only the number, so {entry.metric!r} cannot have metadata")
    if abs(entry.value) == _LARGEST:
        raise Unsupported(
            f"the value of {entry.metric!r} is {entry.value!r}, which MLflow cannot "
            "distinguish from an infinity; record the infinity, or a smaller number"
        )
    if entry.step is not None and not LEAST_STEP <= entry.step < 2**63:
        raise Unsupported(
            f"the step of {entry.metric!r} is {entry.step}; MLflow accepts -2**62 to 2**63 - 1"
        )
    if len(key := encode(entry.metric)) > LONGEST_KEY:
        raise Unsupported(
            f"the name of the metric {entry.metric[:40]!r}... has {len(key)} characters as MLflow "
            f"writes it; the limit is {LONGEST_KEY}"
        )
    return entry
