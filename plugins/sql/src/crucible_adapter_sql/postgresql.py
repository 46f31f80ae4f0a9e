"""A PostgreSQL server, with psycopg."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
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
from sqlalchemy import URL, Connection, Engine, NullPool, Table, create_engine, event, text
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as NoFreeConnection

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

    def insert(self, table: Table) -> Any:
        return insert(table)

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
            # Times are read as text, whose form a role may have changed.
            cursor.execute("SELECT set_config('datestyle', 'ISO', false)")
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


def _state_of_refusal(message: str) -> str:
    """Return the code of an error from before the connection, by its text."""
    for sign in ("password", "authentication", "pg_hba.conf", "role "):
        if sign in message:
            return "28000"
    if 'database "' in message:
        return "3D000"
    return "08000"
