"""Rows as they are written. Without SQLAlchemy, which takes long to import."""

from __future__ import annotations

import functools
import json
import time
import uuid
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, TypeAlias

from crucible_kitchen import InvalidInput, Unsupported, check_metric

KEY = ("run_id", "metric", "slot")
"""The slot is the step as text, or a text that is unique to the row."""

Key: TypeAlias = tuple[str, str, str]

COLUMNS = (*KEY, "step", "value", "recorded_at", "metadata")
"""What is written of a row, in the order of a `Recorded`."""

Recorded: TypeAlias = tuple[str, str, str, int | None, float, str, str]
"""A row as a driver takes it: the time in UTC as text without a zone, the metadata as JSON."""

_LONGEST = 1000
"""Longest name in bytes. An entry of PostgreSQL's indices holds 2704, and a key has two names."""


def recorded(
    run_id: str,
    metrics: Mapping[str, float],
    step: int | None,
    metadata: Mapping[str, Any] | None,
) -> list[Recorded]:
    """Return the rows of numbers that are recorded now; `row[:3]` is a row's key.

    Raises:
        InvalidInput: see `check_metric`; or a name that a text column cannot hold.
        Unsupported: a step beyond 64 bits.
    """
    now, rows = _now(), []
    for metric, value in metrics.items():
        number, at, kept = check_metric(metric, value, step, metadata)
        run, name = _checked_both(run_id, metric)
        if at is not None and not -(2**63) <= at < 2**63:
            raise Unsupported(f"the step of {metric!r} does not fit in 64 bits")
        slot = uuid.uuid4().hex if at is None else str(at)
        rows.append((run, name, slot, at, number, now, json.dumps(kept) if kept else "{}"))
    return rows


def _now() -> str:
    second, nanosecond = divmod(time.time_ns(), 1_000_000_000)
    return f"{_second(second)}.{nanosecond // 1000:06d}"  # 0.5 us; of a `datetime`, 2 us


@functools.lru_cache(2)
def _second(since_1970: int) -> str:
    return datetime.fromtimestamp(since_1970, UTC).strftime("%Y-%m-%d %H:%M:%S")


@functools.lru_cache(1024)  # a run has few metrics, each with thousands of rows
def _checked_both(run_id: str, metric: str) -> tuple[str, str]:
    return checked("run_id", run_id), checked("metric", metric)


def checked(what: str, name: str) -> str:
    """Return a name that both databases can hold.

    Raises:
        InvalidInput: it is too long, holds a NUL character, or is not valid Unicode.
    """
    shown = name if len(name) <= 100 else f"{name[:100]}..."
    try:
        length = len(name.encode())
    except UnicodeEncodeError:
        raise InvalidInput(f"{what} {shown!r} is not valid Unicode") from None
    if "\0" in name:
        raise InvalidInput(f"{what} {shown!r} holds a NUL character")
    if length > _LONGEST:
        raise InvalidInput(f"{what} {shown!r} has {length} bytes; the limit is {_LONGEST}")
    return name
