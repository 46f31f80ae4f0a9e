"""Keep blobs in one SQLite file: a complete adapter, as `docs/adapters/write.md` explains it."""

from __future__ import annotations

import shutil
import sqlite3
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, BinaryIO

from crucible_kitchen import (
    AdapterOptions,
    InvalidInput,
    LocalPath,
    NotFound,
    helper,
    hookimpl,
    resource,
)


class Options(AdapterOptions):
    file: LocalPath
    """The database. It is made on first use; its folder must exist."""
    timeout: float = 10.0
    """Seconds to wait for another process that writes."""


# --- what lives between calls ---


class Database:
    """One connection. Callbacks come from any thread, and statements must not overlap."""

    def __init__(self, opts: Options) -> None:
        # Without an isolation level every statement is a transaction of its own.
        self._connection = sqlite3.connect(
            opts.file, timeout=opts.timeout, isolation_level=None, check_same_thread=False
        )
        self._lock = threading.Lock()
        self.share(opts.timeout)
        self.run("CREATE TABLE IF NOT EXISTS blobs (path TEXT PRIMARY KEY, data BLOB)")

    def run(self, statement: str, *values: str | bytes) -> list[Any]:
        with self._lock:
            return self._connection.execute(statement, values).fetchall()

    def share(self, timeout: float) -> None:
        """Let readers and a writer not wait for each other."""
        until = time.monotonic() + timeout
        while True:
            try:
                self.run("PRAGMA journal_mode = WAL")
                return
            except sqlite3.OperationalError as error:  # alone of all, this does not wait by itself
                if "BUSY" not in error.sqlite_errorname or time.monotonic() > until:
                    raise
            time.sleep(0.01)

    def store(self, path: str, file: BinaryIO, size: int) -> None:
        """Store a blob of `size` bytes, piece by piece, in one transaction."""
        with self._lock, self._connection as connection:  # which commits, or rolls back
            connection.execute("BEGIN IMMEDIATE")
            room = "REPLACE INTO blobs VALUES (?, zeroblob(?)) RETURNING rowid"
            [(row,)] = connection.execute(room, [path, size])
            with connection.blobopen("blobs", "data", row) as blob:
                shutil.copyfileobj(file, blob, 1 << 20)

    def close(self) -> None:
        with self._lock:
            self._connection.close()


@resource
def database(opts: Options) -> Database:
    return Database(opts)


@hookimpl
def close(opts: Options) -> None:
    if (made := database.pop(opts)) is not None:
        made.close()


# --- the mandatory callbacks ---


@hookimpl
def read(opts: Options, path: str) -> bytes:
    for (data,) in database(opts).run("SELECT data FROM blobs WHERE path = ?", key(path)):
        return bytes(data)
    raise NotFound(f"no blob {path!r} in {opts.file}")


@hookimpl
def stream(opts: Options, path: str, chunk_size: int) -> Iterator[bytes]:
    if chunk_size < 1:
        raise InvalidInput(f"chunk_size must be at least 1, not {chunk_size}")
    database(opts)  # makes the table
    # A connection of its own: its read transaction goes on seeing this blob when it is replaced.
    connection = sqlite3.connect(opts.file, isolation_level=None, check_same_thread=False)
    try:
        connection.execute("BEGIN")
        row = connection.execute("SELECT rowid FROM blobs WHERE path = ?", [key(path)]).fetchone()
        if row is None:
            raise NotFound(f"no blob {path!r} in {opts.file}")
        with connection.blobopen("blobs", "data", row[0], readonly=True) as blob:
            while chunk := blob.read(chunk_size):
                yield chunk
    finally:
        connection.close()


@hookimpl
def write(opts: Options, path: str, data: bytes | Iterable[bytes] | BinaryIO) -> None:
    name = key(path)
    # All or nothing: the data is complete before the transaction that stores it.
    with tempfile.TemporaryFile() as file:
        file.writelines(pieces(data))
        size = file.tell()
        file.seek(0)
        database(opts).store(name, file, size)


@hookimpl
def exists(opts: Options, path: str) -> bool:
    return bool(database(opts).run("SELECT 1 FROM blobs WHERE path = ?", key(path)))


# --- an optional one, and a helper ---


@hookimpl
def delete(opts: Options, path: str) -> None:
    database(opts).run("DELETE FROM blobs WHERE path = ?", key(path))


@helper
def vacuum(opts: Options) -> None:
    """Give the space of deleted blobs back to the file system."""
    database(opts).run("VACUUM")


def pieces(data: bytes | Iterable[bytes] | BinaryIO) -> Iterable[bytes]:
    """Return the data in pieces: of a file, which would iterate by lines of any length, too."""
    if isinstance(data, bytes):
        return [data]
    read = getattr(data, "read", None)
    return data if read is None else iter(lambda: read(1 << 20), b"")


def key(path: str) -> str:
    """Return the path; refuse one that would leave a folder, and a second spelling of another."""
    if not {"", ".", ".."}.isdisjoint(path.split("/")):
        raise InvalidInput(f"{path!r} is not a path below the store; write 'folder/name'")
    if path.encode(errors="replace").decode() != path:
        raise InvalidInput(f"{path!r} is not valid Unicode")
    return path


if TYPE_CHECKING:
    import sqlite_blob_store as this_module
    from crucible_kitchen.hookspecs import (
        AdapterSpec,
        BlobStoreOptionalSpec,
        BlobStoreSpec,
        implements,
    )

    _: BlobStoreSpec[Options] = this_module

    def optional_callbacks(
        optional: BlobStoreOptionalSpec[Options], general: AdapterSpec[Options]
    ) -> None:
        implements(optional.delete)(this_module.delete)
        implements(general.close)(this_module.close)
