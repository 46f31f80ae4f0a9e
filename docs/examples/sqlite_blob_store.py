"""Keep blobs in one SQLite file: a complete adapter, as `docs/adapters.md` explains it."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, BinaryIO

from crucible_kitchen import AdapterOptions, InvalidInput, NotFound, helper, hookimpl, resource


class Options(AdapterOptions):
    file: Path
    """The database. It is made on first use; its folder must exist."""
    timeout: float = 10.0
    """Seconds to wait for another process that writes."""


# --- what lives between calls ---


@resource
def database(opts: Options) -> sqlite3.Connection:
    # Callbacks come from any thread; SQLite's own lock keeps them apart.
    connection = sqlite3.connect(
        opts.file, timeout=opts.timeout, isolation_level=None, check_same_thread=False
    )
    connection.execute("PRAGMA journal_mode = WAL")  # readers and a writer do not wait
    connection.execute("CREATE TABLE IF NOT EXISTS blobs (path TEXT PRIMARY KEY, data BLOB)")
    return connection


@hookimpl
def close(opts: Options) -> None:
    if (connection := database.pop(opts)) is not None:
        connection.close()


# --- the mandatory callbacks ---


@hookimpl
def read(opts: Options, path: str) -> bytes:
    row = database(opts).execute("SELECT data FROM blobs WHERE path = ?", [key(path)]).fetchone()
    if row is None:
        raise NotFound(f"no blob {path!r} in {opts.file}")
    return bytes(row[0])


@hookimpl
def stream(opts: Options, path: str, chunk_size: int) -> Iterator[bytes]:
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
    # All or nothing: the data is complete before the one statement that stores it.
    content = data if isinstance(data, bytes) else b"".join(data)
    database(opts).execute("REPLACE INTO blobs VALUES (?, ?)", [key(path), content])


@hookimpl
def exists(opts: Options, path: str) -> bool:
    query = "SELECT 1 FROM blobs WHERE path = ?"
    return database(opts).execute(query, [key(path)]).fetchone() is not None


# --- an optional one, and a helper ---


@hookimpl
def delete(opts: Options, path: str) -> None:
    database(opts).execute("DELETE FROM blobs WHERE path = ?", [key(path)])


@helper
def vacuum(opts: Options) -> None:
    """Give the space of deleted blobs back to the file system."""
    database(opts).execute("VACUUM")


def key(path: str) -> str:
    """Return the path in its one spelling; refuse one that would leave a folder."""
    parsed = PurePosixPath(path)
    if parsed.is_absolute() or ".." in parsed.parts or not parsed.parts:
        raise InvalidInput(f"{path!r} is not a path below the store; write 'folder/name'")
    return str(parsed)


if TYPE_CHECKING:
    import sqlite_blob_store as this_module

    from crucible_kitchen.hookspecs import BlobStoreSpec

    _: BlobStoreSpec[Options] = this_module
