"""One metric as one line of strict JSON, and back."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from crucible_kitchen import InvalidInput, MetricEntry, Unsupported

LONGEST = 16 << 20
"""Bytes of a row: nobody writes a longer one, so a longer line is none."""

_HEAD = b'{"run_id":'
_NOT_FINITE = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}


def encode(
    run_id: str, metric: str, value: float, step: int | None, metadata: Mapping[str, Any] | None
) -> bytes:
    """Return the row as it is appended to a file: a line break, then one JSON object.

    The break comes first so that a row never continues a line which a killed writer left
    unfinished. A whole row needs no break behind it: no part of a JSON object is one.

    Raises:
        InvalidInput: something that JSON cannot hold; the message names it.
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
    """Return the row of a line, whoever wrote it.

    Raises:
        ValueError, TypeError, KeyError, RecursionError: it is none.
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
    """Say whether a line that is no row is one that a killed writer left unfinished.

    That one begins as a row does, and is right as far as it goes. Of other damage somebody should
    know.
    """
    if len(line) > LONGEST or not (line.startswith(_HEAD) or _HEAD.startswith(line)):
        return False
    try:
        _JSON.decode(line.decode("ascii"))
    except json.JSONDecodeError as error:
        in_a_text = error.msg.startswith("Unterminated string") and line.decode().isprintable()
        # A word such as -Infinity, or an escape, is what else may be cut.
        return in_a_text or error.pos > len(line) - len("-Infinity")
    except (ValueError, RecursionError):
        pass
    return False


def _number(value: float) -> float | str:
    if math.isfinite(value):
        return value
    # What float() reads, and the names that JavaScript and Protocol Buffers use.
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"


def _is_int64(step: int) -> bool:
    return -(2**63) <= step < 2**63


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):  # such as 1e999, or a bare NaN, which is no JSON
        raise ValueError(f"{text} is no finite number")
    return number


_JSON = json.JSONDecoder(parse_float=_finite, parse_constant=_finite)
