"""One metric as one line of strict JSON, and back."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from crucible_kitchen import InvalidInput, MetricEntry, Unsupported

LONGEST = 16 << 20
"""Largest row in bytes. Longer rows are never written, so a longer line is not a row."""

_HEAD = b'{"run_id":'
_NOT_FINITE = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}


def encode(
    run_id: str, metric: str, value: float, step: int | None, metadata: Mapping[str, Any] | None
) -> bytes:
    """Return the row as it is appended to a file: a line break, then one JSON object.

    The break comes first so that a row never continues a line that a killed writer left
    unfinished. A complete row needs no break after it: no proper part of a JSON object is one.

    Raises:
        InvalidInput: JSON cannot represent a value; the message names it.
        Unsupported: a step beyond 64 bits, or a row beyond `LONGEST`.
    """
    entry = MetricEntry.recorded(run_id, metric, value, step, metadata)
    if entry.step is not None and not _is_int64(entry.step):
        raise Unsupported(f"the step of {metric!r} does not fit in 64 bits")
    row = {
        "run_id": entry.run_id,
        "metric": entry.metric,
        "value": _number(entry.value),
        "step": entry.step,
        "timestamp": entry.timestamp.isoformat(timespec="microseconds"),
        "metadata": entry.metadata,
    }
    line = json.dumps(row, allow_nan=False, separators=(",", ":")).encode("ascii")
    if len(line) > LONGEST:
        raise Unsupported(f"the row of {metric[:100]!r} has {len(line)} bytes, {LONGEST} at most")
    return b"\n" + line


def decode(line: bytes) -> MetricEntry:
    """Return the row of an untrusted line.

    Raises:
        ValueError, TypeError, KeyError, RecursionError: it is not a row.
    """
    if len(line) > LONGEST:
        raise ValueError("longer than a row can be")
    row = _JSON.decode(line.decode())
    value, step = row["value"], row["step"]
    if step is not None and not _is_int64(step):
        raise InvalidInput("the step does not fit in 64 bits")
    return MetricEntry.restored(
        row["run_id"],
        row["metric"],
        _NOT_FINITE[value] if isinstance(value, str) else value,
        step,
        datetime.fromisoformat(row["timestamp"]),
        row["metadata"],
    )


def is_torn(line: bytes) -> bool:
    """Say whether a line that is not a row is one that a killed writer left unfinished.

    Such a line begins as a row does, and is valid up to its end. Other damage is worth a warning.
    """
    if len(line) > LONGEST or not (line.startswith(_HEAD) or _HEAD.startswith(line)):
        return False
    try:
        _JSON.decode(line.decode("ascii"))
    except json.JSONDecodeError as error:
        in_a_text = error.msg.startswith("Unterminated string") and line.decode().isprintable()
        # Otherwise a word such as -Infinity, or an escape, may have been cut.
        return in_a_text or error.pos > len(line) - len("-Infinity")
    except (ValueError, RecursionError):
        pass
    return False


def _number(value: float) -> float | str:
    if math.isfinite(value):
        return value
    # Names that float() reads, and that JavaScript and Protocol Buffers use.
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"


def _is_int64(step: int) -> bool:
    return -(2**63) <= step < 2**63


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):  # such as 1e999, or a bare NaN, which is not JSON
        raise ValueError(f"{text} is not a finite number")
    return number


_JSON = json.JSONDecoder(parse_float=_finite, parse_constant=_finite)
