"""One metric as one line of strict JSON, and back."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from crucible_kitchen import MetricEntry


def encode(
    run_id: str, metric: str, value: float, step: int | None, metadata: Mapping[str, Any] | None
) -> bytes:
    """Return the row as it is appended to a file: a line break, then one JSON object.

    The break comes first so that a row never continues a line which a killed writer left
    unfinished. A whole row needs no break behind it: no part of a JSON object is one.

    Raises:
        InvalidInput: something that JSON cannot hold; the message names it.
    """
    entry = MetricEntry.recorded(run_id, metric, value, step, metadata)
    row = {
        "run_id": entry.run_id,
        "metric": entry.metric,
        "value": _number(entry.value),
        "step": entry.step,
        "timestamp": entry.timestamp.isoformat(timespec="microseconds"),
        "metadata": entry.metadata,
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


def _number(value: float) -> float | str:
    if math.isfinite(value):
        return value
    # What float() reads, and the names that JavaScript and Protocol Buffers use.
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
