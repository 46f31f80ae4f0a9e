"""The table of metrics, and entries as its rows."""

from __future__ import annotations

import json
import math
from datetime import UTC, datetime
from typing import Any

from crucible_kitchen import InvalidInput, MetricEntry
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

from .rows import KEY, checked


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
