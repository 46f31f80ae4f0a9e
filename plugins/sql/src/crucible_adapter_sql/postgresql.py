"""A PostgreSQL server, with psycopg."""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from crucible_kitchen import (
    PING_TIMEOUT,
    AdapterError,
    InvalidInput,
    NotFound,
    Unauthorized,
    Unavailable,
)
from sqlalchemy import (
    URL,
    Connection,
    Engine,
    NullPool,
    Table,
    TextClause,
    create_engine,
    event,
    text,
)
from sqlalchemy.dialects.postgresql import dialect
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as NoFreeConnection

from .rows import COLUMNS, KEY, Recorded

_MANY = 50
"""Rows from which a COPY and its savepoint are quicker than one statement."""

_PREPARER = dialect().identifier_preparer  # type: ignore[no-untyped-call]

_PING_STEP = PING_TIMEOUT / 2
"""Seconds for each of the two steps of a ping, connecting and writing."""


class PostgreSQL:
    """A pool of connections to a server."""

    def __init__(self, url: URL, timeout: float) -> None:
        self._url = url
        self.name = f"{url.host or 'localhost'}:{url.port or 5432}/{url.database or ''}"
        self._timeout = timeout
        # The server of a pooled connection may have been restarted.
        self._engine = self._connected_by(timeout, pool_pre_ping=True, pool_timeout=timeout)
        event.listen(self._engine, "connect", self._configure)

    def upsert(self, connection: Connection, table: Table, rows: Sequence[Recorded]) -> None:
        rows = [*{row[:3]: row for row in rows}.values()]  # a statement may touch a row once
        # A resumed run replaces rows, which COPY cannot: it is tried since it takes half the time.
        if len(rows) < _MANY or not _copied(connection, table, rows):
            # All rows as one parameter: a statement a row took 35 us, this 25.
            connection.execute(
                _upsert(table), {"rows": json.dumps([_as_text(row) for row in rows])}
            )

    def exists(self) -> bool:
        return True

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        with self._translated(), self._engine.connect() as connection:
            yield connection

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        with self._translated(), self._engine.begin() as connection:
            yield connection

    def wait_for(self, connection: Connection, what: str) -> None:
        lock = text("SELECT pg_advisory_xact_lock(hashtextextended(:what, 0))")
        connection.execute(lock, {"what": what})

    def ping(self, write: Callable[[Connection], None]) -> None:
        engine = self._connected_by(min(self._timeout, _PING_STEP), poolclass=NullPool)
        with self._translated(), engine.connect() as connection:
            connection.execute(text(f"SET LOCAL statement_timeout = {1000 * _PING_STEP:.0f}"))
            write(connection)
            connection.rollback()

    def close(self) -> None:
        self._engine.dispose()

    def _connected_by(self, timeout: float, **pool: Any) -> Engine:
        seconds = max(2, math.ceil(timeout))  # libpq waits at least 2 s
        limits = {"connect_timeout": seconds, "tcp_user_timeout": 1000 * seconds}
        try:
            return create_engine(
                self._url,
                connect_args=limits,
                isolation_level="READ COMMITTED",  # a role may have another default
                hide_parameters=True,
                **pool,
            )
        except ImportError as error:
            raise InvalidInput(
                'PostgreSQL needs psycopg: pip install "crucible-adapter-sql[postgresql]"'
            ) from error

    def _configure(self, connection: Any, _: Any) -> None:
        with connection.cursor() as cursor:
            # 0 would mean forever.
            wait = max(1, math.ceil(self._timeout * 1000))
            cursor.execute("SELECT set_config('lock_timeout', %s, false)", [f"{wait}ms"])
            # Times are text, whose form and zone a role may have changed.
            cursor.execute("SELECT set_config('datestyle', 'ISO', false)")
            cursor.execute("SELECT set_config('timezone', 'UTC', false)")
            # If a role has it off, the server answers before a commit is on the disk.
            cursor.execute(
                "SELECT set_config('synchronous_commit', 'on', false)"
                " WHERE current_setting('synchronous_commit') = 'off'"
            )
        connection.commit()

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except DBAPIError as error:
            raise self._translation(error.orig) from error
        except NoFreeConnection as error:
            raise Unavailable(
                f"{self.name}: no connection was free for {self._timeout} s", no_effect=True
            ) from error
        except Exception as error:
            if not hasattr(error, "sqlstate"):
                raise
            raise self._translation(error) from error  # of psycopg, which copies rows itself

    def _translation(self, error: BaseException | None) -> AdapterError:
        message = f"{self.name}: {error}"
        # The codes of PostgreSQL's appendix A. A failed connection has none.
        state = getattr(error, "sqlstate", None) or _state_of_refusal(str(error))
        # 25006: a replica, or a read-only database.
        if state.startswith("28") or state in ("42501", "25006"):
            return Unauthorized(message)
        if state == "3D000":
            return NotFound(message)
        # No connection, conflicting transactions, a server that is full or shutting down.
        if state.startswith(("08", "40", "53", "57", "58")) or state == "55P03":
            return Unavailable(message)
        return AdapterError(message)


def _copied(connection: Connection, table: Table, rows: Sequence[Recorded]) -> bool:
    """Add rows, or none if one of their keys is in the table already; say whether they were."""
    import psycopg

    driver: Any = connection.connection.driver_connection
    columns = ", ".join(COLUMNS)
    statement = f"COPY {_PREPARER.format_table(table)} ({columns}) FROM STDIN"
    try:
        # The transaction within the transaction is a savepoint.
        with driver.transaction(), driver.cursor().copy(statement) as copying:
            for row in rows:
                copying.write_row(row)
    except psycopg.errors.UniqueViolation:
        return False
    return True


@functools.lru_cache(8)
def _upsert(table: Table) -> TextClause:
    types = {"step": "bigint", "value": "float8", "recorded_at": "timestamptz", "metadata": "json"}
    values = ", ".join(
        f"CAST(r->>{place} AS {types.get(column, 'text')})" for place, column in enumerate(COLUMNS)
    )
    replaced = ", ".join(f"{column} = excluded.{column}" for column in COLUMNS if column not in KEY)
    return text(
        f"INSERT INTO {_PREPARER.format_table(table)} ({', '.join(COLUMNS)})"
        f" SELECT {values} FROM json_array_elements(CAST(:rows AS json)) AS r"
        f" ON CONFLICT ({', '.join(KEY)}) DO UPDATE SET {replaced}"
    )


def _as_text(row: Recorded) -> list[object]:
    return [repr(each) if isinstance(each, float) else each for each in row]  # JSON has no NaN


def _state_of_refusal(message: str) -> str:
    """Return the code of an error from before the connection, by its text."""
    for sign in ("password", "authentication", "pg_hba.conf", "role "):
        if sign in message:
            return "28000"
    if 'database "' in message:
        return "3D000"
    return "08000"
