"""The table of metrics in any of the databases."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol

from crucible_kitchen import CrucibleWarning, MetricEntry
from sqlalchemy import Connection, Row, Select, Table, inspect, select

from .rows import Recorded, recorded
from .table import entry_of, is_text, metrics_table, rows_of_run


class Server(Protocol):
    """What differs between SQLite and PostgreSQL. Errors are raised as `AdapterError`s."""

    name: str
    """The name of the database, without secrets."""

    def exists(self) -> bool:
        """Say whether there is a database to read, without creating one."""
        ...

    def upsert(self, connection: Connection, table: Table, rows: Sequence[Recorded]) -> None:
        """Write rows in their order. A row replaces the one of its key, which may be among them,
        and takes its place.
        """
        ...

    def reading(self) -> AbstractContextManager[Connection]: ...

    def writing(self) -> AbstractContextManager[Connection]:
        """Open a transaction that is on the disk when it ends, or had no effect."""
        ...

    def wait_for(self, connection: Connection, what: str) -> None:
        """Lock `what` until the end of the transaction, after other transactions released it."""
        ...

    def ping(self, write: Callable[[Connection], None]) -> None:
        """Write within seconds, or fail, in a transaction that is rolled back."""
        ...

    def close(self) -> None: ...


class Database:
    """The metrics in one table. Safe from any thread."""

    def __init__(self, server: Server, table: str) -> None:
        self._server = server
        self._table = metrics_table(table)

    def write(self, rows: Sequence[Recorded]) -> None:
        """Write all rows or none. A row replaces the one of its key, and takes its place."""
        with self._server.writing() as connection:
            self._write(connection, rows)

    def read(self, run_id: str) -> list[MetricEntry]:
        entries, damaged = [], 0
        for row in self._select(rows_of_run(self._table, run_id)):
            try:
                entries.append(entry_of(row))
            except (ValueError, TypeError, RecursionError):
                damaged += 1
        if damaged:
            what = "1 row is" if damaged == 1 else f"{damaged} rows are"
            warnings.warn(
                f"{self._server.name}, table {self._table.name}: {what} not a metric of the run "
                f"{run_id!r}, and left out",
                CrucibleWarning,
                stacklevel=2,
            )
        return entries

    def runs(self) -> list[str]:
        # Sorted here, since each database orders texts differently.
        found = self._select(select(self._table.c.run_id).distinct())
        return sorted(row.run_id for row in found if is_text(row.run_id))

    def ping(self) -> None:
        rows = recorded("crucible ping", {"ping": 0.0}, None, None)
        self._server.ping(lambda connection: self._write(connection, rows))

    def close(self) -> None:
        self._server.close()

    def _write(self, connection: Connection, rows: Sequence[Recorded]) -> None:
        if not self._is_made(connection):
            self._server.wait_for(connection, self._table.name)
            self._table.metadata.create_all(connection)
        # Two writers that replace the same rows in different orders would deadlock.
        for run_id in sorted({row[0] for row in rows}):
            self._server.wait_for(connection, f"{self._table.name}/{run_id}")
        self._server.upsert(connection, self._table, rows)

    def _select(self, statement: Select[Any]) -> list[Row[Any]]:
        if not self._server.exists():
            return []
        with self._server.reading() as connection:
            return [*connection.execute(statement)] if self._is_made(connection) else []

    def _is_made(self, connection: Connection) -> bool:
        return inspect(connection).has_table(self._table.name)
