"""One metric as one line of strict JSON, and back."""

from __future__ import annotations

import functools
import json
import math
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from crucible_kitchen import InvalidInput, MetricEntry, Unsupported, check_metric

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
    number, at, kept = check_metric(metric, value, step, metadata)
    if at is not None and not _is_int64(at):
        raise Unsupported(f"the step of {metric!r} does not fit in 64 bits")
    second, nanosecond = divmod(time.time_ns(), 1_000_000_000)
    # By hand, since an encoder takes 4 us and the time as text another 2.
    line = (
        f'\n{{"run_id":{_text(run_id)},"metric":{_text(metric)},"value":{_number(number)},'
        f'"step":{"null" if at is None else at},'
        f'"timestamp":"{_second(second)}.{nanosecond // 1000:06d}+00:00",'
        f'"metadata":{_JSON_OF(kept) if kept else "{}"}}}'
    ).encode("ascii")
    if len(line) > LONGEST + 1:  # the break does not count
        size = len(line) - 1
        raise Unsupported(f"the row of {metric[:100]!r} has {size} bytes, {LONGEST} at most")
    return line


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


def _number(value: float) -> str:
    if math.isfinite(value):
        return float.__repr__(value)
    # Names that float() reads, and that JavaScript and Protocol Buffers use.
    return '"NaN"' if math.isnan(value) else '"Infinity"' if value > 0 else '"-Infinity"'


@functools.lru_cache(1024)
def _text(name: str) -> str:
    """Return a name as JSON; a run has few, each with thousands of rows."""
    return json.dumps(name)


@functools.lru_cache(2)
def _second(since_1970: int) -> str:
    return datetime.fromtimestamp(since_1970, UTC).strftime("%Y-%m-%dT%H:%M:%S")


def _is_int64(step: int) -> bool:
    return -(2**63) <= step < 2**63


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):  # such as 1e999, or a bare NaN, which is not JSON
        raise ValueError(f"{text} is not a finite number")
    return number


_JSON = json.JSONDecoder(parse_float=_finite, parse_constant=_finite)
_JSON_OF = json.JSONEncoder(allow_nan=False, separators=(",", ":")).encode
