"""One metric as one line of strict JSON, and back."""

from __future__ import annotations

import json
import math
import operator
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, SupportsFloat

from crucible_kitchen import InvalidInput, MetricEntry


def encode(
    run_id: str, metric: str, value: float, step: int | None, metadata: Mapping[str, Any] | None
) -> bytes:
    """Return the row as it is appended to a file: a line break, then one JSON object.

    The break comes first so that a row never continues a line which a killed writer left
    unfinished. A whole row needs no break behind it: no part of a JSON object is one.

    Raises:
        InvalidInput: something that JSON cannot hold; the message names it.
    """
    row = {
        "run_id": run_id,
        "metric": metric,
        "value": _number(metric, value),
        "step": None if step is None else _step(metric, step),
        "timestamp": datetime.now(UTC).isoformat(timespec="microseconds"),
        "metadata": _checked(metadata or {}),
    }
    return b"\n" + json.dumps(row, allow_nan=False, separators=(",", ":")).encode("ascii")


def decode(line: bytes) -> MetricEntry | None:
    """Return the row of a line; None for a line that is empty or was torn."""
    try:
        row = json.loads(line)
        return MetricEntry(
            run_id=row["run_id"],
            metric=row["metric"],
            value=float(row["value"]),
            step=row["step"],
            timestamp=datetime.fromisoformat(row["timestamp"]),
            metadata=row["metadata"],
        )
    except (ValueError, TypeError, KeyError):
        return None


def _number(metric: str, value: SupportsFloat) -> float | str:
    if not isinstance(value, SupportsFloat):
        raise InvalidInput(f"the value of {metric!r} must be a number, not {value!r}")
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError) as error:
        raise InvalidInput(f"the value of {metric!r} is no float: {error}") from error
    if math.isfinite(number):
        return number
    # What float() reads, and the names that JavaScript and Protocol Buffers use.
    return "NaN" if math.isnan(number) else "Infinity" if number > 0 else "-Infinity"


def _step(metric: str, step: int) -> int:
    try:
        return int(operator.index(step))  # True is 1
    except TypeError:
        raise InvalidInput(f"the step of {metric!r} must be an integer, not {step!r}") from None


def _checked(metadata: Mapping[str, Any]) -> dict[str, Any]:
    for key, value in metadata.items():
        if not isinstance(key, str):
            raise InvalidInput(f"metadata keys must be strings, not {key!r}")
        try:
            json.dumps(value, allow_nan=False)
        except (TypeError, ValueError, RecursionError) as error:
            raise InvalidInput(f"metadata[{key!r}] is not JSON: {error}") from error
    return dict(metadata)
