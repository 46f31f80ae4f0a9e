"""The table of metrics, and entries as its rows."""

from __future__ import annotations

import json
import math
import uuid
from datetime import UTC, datetime
from typing import Any, TypeAlias

from crucible_kitchen import InvalidInput, MetricEntry, Unsupported
from sqlalchemy import (
    JSON,
    BigInteger,
    Column,
    DateTime,
    Double,
    Integer,
    MetaData,
    Row,
    Select,
    Table,
    Text,
    UniqueConstraint,
    cast,
    select,
)
from sqlalchemy.types import UserDefinedType

Key: TypeAlias = tuple[str, str, str]
"""Run, metric and slot: the step as text, or a text that is unique to the row."""

KEY = ("run_id", "metric", "slot")

_LONGEST = 1000
"""Longest name in bytes. An entry of PostgreSQL's indices holds 2704, and a key has two names."""


class _AsItIs(UserDefinedType[float]):
    """A column without a type in SQLite, which stores -0.0 as 0.0 in a column of floats."""

    cache_ok = True

    def get_col_spec(self, **_: Any) -> str:
        return "BLOB"


def metrics_table(name: str) -> Table:
    """Return the definition of the table. Rows with a higher `id` were recorded later."""
    return Table(
        name,
        MetaData(),
        Column("id", BigInteger().with_variant(Integer, "sqlite"), primary_key=True),
        Column("run_id", Text, nullable=False),
        Column("metric", Text, nullable=False),
        Column("slot", Text, nullable=False),
        Column("step", BigInteger),
        Column("value", Double().with_variant(_AsItIs(), "sqlite")),
        Column("recorded_at", DateTime(timezone=True), nullable=False),
        Column("metadata", JSON, nullable=False),
        UniqueConstraint(*KEY),
    )


def key_of(entry: MetricEntry) -> Key:
    """Return the key of an entry.

    Raises:
        InvalidInput: a name that a text column cannot hold.
        Unsupported: a step beyond 64 bits.
    """
    run_id, metric = checked("run_id", entry.run_id), checked("metric", entry.metric)
    if entry.step is None:
        return run_id, metric, uuid.uuid4().hex
    if not -(2**63) <= entry.step < 2**63:
        raise Unsupported(f"the step of {metric!r} does not fit in 64 bits")
    return run_id, metric, str(entry.step)


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


def row_of(key: Key, entry: MetricEntry) -> dict[str, Any]:
    return {
        "run_id": entry.run_id,
        "metric": entry.metric,
        "slot": key[2],
        "step": entry.step,
        "value": entry.value,
        "recorded_at": entry.timestamp,
        "metadata": dict(entry.metadata),
    }


def rows_of_run(table: Table, run_id: str) -> Select[Any]:
    """Return the query for the rows of a run, in order, with the columns that `entry_of` reads.

    Times and metadata are read as text: the drivers would fail at the first damaged value, and lose
    all other rows.
    """
    columns = table.c
    asked = [
        cast(column, Text).label(column.name)
        if column.name in ("recorded_at", "metadata")
        else column
        for column in (columns[name] for name in _ASKED)
    ]
    of_run = columns.run_id == checked("run_id", run_id)
    return select(*asked).where(of_run).order_by(columns.id)


_ASKED = ("run_id", "metric", "step", "value", "recorded_at", "metadata")


def entry_of(row: Row[Any]) -> MetricEntry:
    """Return the entry of an untrusted row: SQLite's columns may hold anything.

    Raises:
        ValueError, TypeError, RecursionError: it is not an entry.
    """
    if not is_text(row.metric):
        raise InvalidInput("the metric's name is not text")
    at = datetime.fromisoformat(row.recorded_at)
    return MetricEntry.restored(
        row.run_id,
        row.metric,
        math.nan if row.value is None else row.value,  # SQLite stores NaN as NULL
        row.step,
        at if at.tzinfo else at.replace(tzinfo=UTC),  # SQLite has no zones; UTC was written
        _JSON.decode(row.metadata),
    )


def is_text(value: object) -> bool:
    """Say whether a value of a text column is text: in SQLite it may be a number or bytes."""
    try:
        return isinstance(value, str) and checked("text", value) == value
    except InvalidInput:
        return False


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):  # such as 1e999, or a bare NaN, which is not JSON
        raise ValueError(f"{text} is not a finite number")
    return number


_JSON = json.JSONDecoder(parse_float=_finite, parse_constant=_finite)
