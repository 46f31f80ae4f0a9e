"""A database that is one file."""

from __future__ import annotations

import functools
import os
import sqlite3
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from crucible_kitchen import (
    PING_TIMEOUT,
    AdapterError,
    InvalidInput,
    Unauthorized,
    Unavailable,
    check_writable,
    explain_os_errors,
)
from sqlalchemy import URL, Connection, NullPool, StaticPool, Table, create_engine, event
from sqlalchemy.dialects.sqlite import dialect
from sqlalchemy.exc import DBAPIError

from .rows import COLUMNS, KEY, Recorded


class SQLite:
    """One connection, used by one thread at a time: SQLite has one writer anyway.

    It is closed before a fork and opened again after it. SQLite's locks belong to a process, so a
    child that opens a file which its parent had open believes that it holds the parent's locks.
    """

    def __init__(self, url: URL, timeout: float) -> None:
        in_memory = url.database in (None, "", ":memory:") or url.query.get("mode") == "memory"
        # "file:" starts SQLite's own kind of address, whose folder the user creates.
        is_file = not in_memory and not str(url.database).startswith("file:")
        self._file = Path(str(url.database)).absolute() if is_file else None
        self.name = str(self._file or url.database or ":memory:")
        self._url = url
        self._timeout = timeout
        self._lock = threading.RLock()
        self._engine = create_engine(
            url,
            poolclass=StaticPool,
            connect_args={"timeout": timeout, "check_same_thread": False},
            hide_parameters=True,
        )
        event.listen(self._engine, "connect", self._configure)
        if not in_memory:
            _close_before_fork(self)

    def upsert(self, connection: Connection, table: Table, rows: Sequence[Recorded]) -> None:
        # Straight to the driver: SQLAlchemy takes 15 us to bind the values of a row.
        connection.exec_driver_sql(_upsert(table), [*rows])

    def exists(self) -> bool:
        return self._file is None or self._file.exists()

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        with self._lock, self._translated(), self._engine.connect() as connection:
            yield connection

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        with self._lock, self._translated():
            if self._file:
                _make_folder(self._file.parent)
            with self._engine.begin() as connection:
                # A transaction that starts with a read would not wait for another writer.
                connection.exec_driver_sql("BEGIN IMMEDIATE")
                yield connection

    def wait_for(self, connection: Connection, what: str) -> None:
        """Do nothing: this is the only transaction that writes."""

    def ping(self, write: Callable[[Connection], None]) -> None:
        if self._file is None:
            return
        check_writable(self._file.parent)
        seconds = {"timeout": min(self._timeout, PING_TIMEOUT)}
        engine = create_engine(
            self._url, poolclass=NullPool, connect_args=seconds, hide_parameters=True
        )
        with self._translated():
            try:
                self._file.stat()
            except FileNotFoundError:
                return  # without creating it
            with engine.connect() as connection:
                connection.exec_driver_sql("BEGIN IMMEDIATE")
                write(connection)
                connection.rollback()

    def close(self) -> None:
        with self._lock:
            self._engine.dispose()

    def _configure(self, connection: sqlite3.Connection, _: Any) -> None:
        # A text that is not UTF-8 damages one row, and does not stop reading.
        connection.text_factory = functools.partial(str, encoding="utf-8", errors="surrogateescape")
        connection.execute("PRAGMA synchronous = FULL")  # a commit is on the disk
        until = time.monotonic() + self._timeout
        while True:
            try:
                # Readers and a writer do not wait for each other.
                connection.execute("PRAGMA journal_mode = WAL")
                return
            except sqlite3.OperationalError as error:
                # The only statement that does not wait for others by itself (measured, 3.40).
                if not _is_busy(error) or time.monotonic() >= until:
                    raise
            time.sleep(0.01)

    @contextmanager
    def _translated(self) -> Iterator[None]:
        with explain_os_errors(f"cannot keep metrics in {self.name}", no_effect=True):
            try:
                if self._file is not None and self._file.exists() and not self._file.is_file():
                    raise InvalidInput(f"{self.name} is not a file")  # opening a pipe may block
                yield
            except DBAPIError as error:
                raise self._translation(error.orig) from error
            except sqlite3.Error as error:
                raise self._translation(error) from error
            except (FileExistsError, NotADirectoryError) as error:
                if isinstance(error, AdapterError):
                    raise
                raise InvalidInput(f"{self.name}: {error.filename} is not a folder") from error

    def _translation(self, error: BaseException | None) -> AdapterError:
        code = getattr(error, "sqlite_errorname", "")
        text = f"{self.name}: {error}"
        if _is_busy(error):
            return Unavailable(f"{text}, for more than {self._timeout} s", no_effect=True)
        if code.startswith("SQLITE_FULL"):  # the transaction was rolled back
            return Unavailable(text, no_effect=True)
        if code.startswith(("SQLITE_IOERR", "SQLITE_NOMEM", "SQLITE_PROTOCOL")):
            return Unavailable(text)
        if code.startswith("SQLITE_CANTOPEN") and self._file is not None:
            self._open_file()  # SQLite does not say why
        if code.startswith(("SQLITE_CANTOPEN", "SQLITE_READONLY", "SQLITE_PERM", "SQLITE_AUTH")):
            return Unauthorized(text)
        if code.startswith(("SQLITE_NOTADB", "SQLITE_CORRUPT")):
            return InvalidInput(f"{text}; name another file, or move this one away")
        return AdapterError(text)

    def _open_file(self) -> None:
        """Raise the operating system's error for opening or creating the file, if any."""
        try:
            os.close(os.open(str(self._file), os.O_RDWR | getattr(os, "O_NONBLOCK", 0)))
        except FileNotFoundError:
            check_writable(Path(str(self._file)).parent)


@functools.lru_cache(8)
def _upsert(table: Table) -> str:
    name = dialect().identifier_preparer.format_table(table)
    replaced = ", ".join(f"{column} = excluded.{column}" for column in COLUMNS if column not in KEY)
    return (
        f"INSERT INTO {name} ({', '.join(COLUMNS)}) VALUES ({', '.join('?' * len(COLUMNS))})"
        f" ON CONFLICT ({', '.join(KEY)}) DO UPDATE SET {replaced}"
    )


def _is_busy(error: BaseException | None) -> bool:
    return getattr(error, "sqlite_errorname", "").startswith(("SQLITE_BUSY", "SQLITE_LOCKED"))


def _close_before_fork(database: SQLite) -> None:
    reference = weakref.ref(database)
    locked: list[threading.RLock] = []

    def before() -> None:
        if (found := reference()) is not None:
            found._lock.acquire()
            locked.append(found._lock)
            found._engine.dispose()

    def after() -> None:
        while locked:
            locked.pop().release()

    os.register_at_fork(before=before, after_in_parent=after)


def _make_folder(folder: Path) -> None:
    """Create a folder whose name survives a power cut."""
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    for path in missing:
        descriptor = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
