"""Blobs as files, or objects, of a file system that fsspec reaches.

Nothing is ever written through an open remote file: leaving `with fs.open(path, "wb")` by an
exception publishes whatever was written so far. The data goes to a local file first, in constant
memory, and from there in one upload.
"""

from __future__ import annotations

import errno
import io
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

from crucible_kitchen import (
    AdapterTimeout,
    InvalidInput,
    NotFound,
    Unauthorized,
    Unavailable,
)
from fsspec import AbstractFileSystem

from .data import PIECE, Data, pieces
from .names import is_blob, parts_of, temporary_name

# Their uploads appear whole or not at all, and their `mv` copies.
_OBJECT_STORES = frozenset({"abfs", "abfss", "adl", "az", "gcs", "gs", "hf", "oss", "s3", "s3a"})

# By their names, for the clients below fsspec need not be installed: those of the standard
# library, botocore, aiohttp and azure-core.
_NO_CREDENTIALS = frozenset({"NoCredentialsError", "PartialCredentialsError"})
_TOO_SLOW = frozenset({"ReadTimeoutError", "ConnectTimeoutError"})
_NO_CONNECTION = frozenset(
    {"ConnectionError", "HTTPClientError", "ClientConnectionError", "ServiceRequestError"}
)

_PING_TIMEOUT = 5.0


class RemoteFolder:
    """The blobs under a root on one fsspec file system."""

    def __init__(self, fs: AbstractFileSystem, root: str) -> None:
        self._fs = fs
        self._root = root.rstrip("/") + "/"

    def read(self, path: str, start: int = 0, end: int | None = None) -> bytes:
        at = self._locate(path)
        with _explained(path):
            size = self._size(path)
            if start == 0 and end is None:
                return bytes(self._fs.cat_file(at))
            # Servers answer ranges that reach beyond the end differently.
            end = size if end is None else min(end, size)
            return bytes(self._fs.cat_file(at, start=start, end=end)) if start < end else b""

    def stream(self, path: str, chunk_size: int) -> Iterator[bytes]:
        at = self._locate(path)
        with _explained(path):
            self._size(path)
            file = self._open(at)
        with file:
            while True:
                with _explained(path):
                    chunk = file.read(chunk_size)
                if not chunk:
                    return
                yield bytes(chunk)

    def write(self, path: str, data: Data) -> None:
        at = self._locate(path)
        if isinstance(data, bytes):
            self._publish(path, lambda name: self._fs.pipe_file(name, data), at)
            return
        with tempfile.TemporaryDirectory(prefix="crucible-") as folder:
            spooled = Path(folder, "blob")
            with spooled.open("wb") as file:
                for piece in pieces(data):
                    file.write(piece)
            options = self._upload_options(spooled.stat().st_size)
            self._publish(path, lambda name: self._fs.put_file(str(spooled), name, **options), at)

    def exists(self, path: str) -> bool:
        with _explained(path):
            try:
                self._size(path)
            except NotFound:
                return False
            return True

    def delete(self, path: str) -> None:
        if self.exists(path):
            with _explained(path), suppress(FileNotFoundError):
                self._fs.rm_file(self._locate(path))

    def list(self, prefix: str) -> list[str]:
        above = prefix.rpartition("/")[0]
        if above and not is_blob(above):
            return []
        try:
            with _explained(prefix):
                found = self._fs.find(self._root + above if above else self._root.rstrip("/"))
        except NotFound:
            return []
        paths = (name.removeprefix(self._root) for name in found if name.startswith(self._root))
        return sorted(path for path in paths if path.startswith(prefix) and is_blob(path))

    def ping(self) -> None:
        """Ask for the bucket or, where the first write makes the root, for the root."""
        must_exist = self._is_object_store()
        asked = self._root.partition("/")[0] if must_exist else self._root.rstrip("/")
        failed: list[Exception] = []

        def ask() -> None:
            try:
                self._fs.info(asked)
            except Exception as error:
                if must_exist or not isinstance(error, FileNotFoundError):
                    failed.append(error)

        # Each file system has timeouts and retries of its own, minutes of them.
        asking = threading.Thread(target=ask, daemon=True)
        asking.start()
        asking.join(_PING_TIMEOUT)
        with _explained(self._fs.unstrip_protocol(asked), "store"):
            if asking.is_alive():
                raise TimeoutError(f"no answer within {_PING_TIMEOUT} s")
            for error in failed:
                raise error

    def _locate(self, path: str) -> str:
        return self._root + "/".join(parts_of(path))

    def _size(self, path: str) -> int:
        """Return a blob's size in bytes, after asking for it anew. A folder is no blob."""
        try:
            info = self._fs.info(self._locate(path))
        except (FileNotFoundError, NotADirectoryError):
            info = {"type": "nothing"}
        if info["type"] != "file":
            raise NotFound(f"there is no blob {path!r} in {self._fs.unstrip_protocol(self._root)}")
        return int(info["size"])

    def _open(self, at: str) -> BinaryIO:
        # The default of s3fs is 50 MiB, of which it holds two.
        file: BinaryIO = self._fs.open(at, "rb", block_size=8 * PIECE)
        return file

    def _publish(self, path: str, upload: Callable[[str], Any], at: str) -> None:
        """Upload under the blob's own name where uploads are atomic, else under another name
        first. A name that only `rename` can give to a whole file never holds a part.
        """
        with _explained(path):
            if not self._renames():
                upload(at)
                return
            self._refuse_folder(path, at)  # or the file would be moved into it
            temporary = self._root + temporary_name()
            try:
                self._fs.makedirs(at.rpartition("/")[0], exist_ok=True)
                upload(temporary)
                self._fs.mv(temporary, at)
            except BaseException:
                with suppress(Exception):
                    self._fs.rm_file(temporary)
                raise

    def _upload_options(self, size: int) -> dict[str, int]:
        if "s3" not in self._fs.protocol:
            return {}
        # The defaults hold ten parts of 50 MiB in memory. S3 takes at most 10,000 parts.
        return {"chunksize": max(8 * PIECE, -(-size // 10_000)), "max_concurrency": 4}

    def _refuse_folder(self, path: str, at: str) -> None:
        if self._fs.isdir(at):
            raise InvalidInput(f"blob path {path!r}: it is a folder")

    def _renames(self) -> bool:
        inherits = type(self._fs).mv is AbstractFileSystem.mv  # which copies, then deletes
        return not inherits and not self._is_object_store()

    def _is_object_store(self) -> bool:
        protocol = self._fs.protocol
        protocols = {protocol} if isinstance(protocol, str) else set(protocol)
        return not protocols.isdisjoint(_OBJECT_STORES)


class MemoryFolder(RemoteFolder):
    """The blobs under a root of fsspec's `memory://`, which this process alone can see.

    Its open files are the stored ones: a reader would share its position with every other, and
    a writer would publish each piece. So both go through whole contents, and a stream through a
    view of one: a blob that is replaced meanwhile is another object.
    """

    def stream(self, path: str, chunk_size: int) -> Iterator[bytes]:
        at = self._locate(path)
        with _explained(path):
            self._size(path)
            content = self._fs.store[self._fs._strip_protocol(at)].getbuffer()
        for start in range(0, len(content), chunk_size):
            yield bytes(content[start : start + chunk_size])

    def write(self, path: str, data: Data) -> None:
        content = b"".join(pieces(data))
        at = self._locate(path)
        self._refuse_folder(path, at)  # which would take the blob, and hide it
        with _explained(path):
            self._fs.pipe_file(at, content)

    def _open(self, at: str) -> BinaryIO:
        return io.BytesIO(self._fs.cat_file(at))


_PASSING = (errno.EBUSY, errno.EIO, getattr(errno, "EREMOTEIO", errno.EIO))  # of Linux alone


@contextmanager
def _explained(path: str, what: str = "blob") -> Iterator[None]:
    """Turn what file systems and the clients below them raise into what the contract says."""
    try:
        yield
    except (FileExistsError, IsADirectoryError, NotADirectoryError) as error:
        raise InvalidInput(f"blob path {path!r}: {error} is a blob or a folder already") from error
    except FileNotFoundError as error:
        raise NotFound(f"{what} {path!r}: {error}") from error
    except PermissionError as error:
        raise Unauthorized(f"{what} {path!r}: {error}") from error
    except TimeoutError as error:
        raise AdapterTimeout(f"{what} {path!r}: {error}") from error
    except Exception as error:
        names = {cls.__name__ for cls in type(error).__mro__}
        if names & _NO_CREDENTIALS:
            raise Unauthorized(f"{what} {path!r}: {error}") from error
        if names & _TOO_SLOW:
            raise AdapterTimeout(f"{what} {path!r}: {error}") from error
        # s3fs makes EBUSY of a server's "slow down" and "service unavailable", and EREMOTEIO of
        # an "internal server error", which it counts among those that pass, too.
        if names & _NO_CONNECTION or getattr(error, "errno", None) in _PASSING:
            raise Unavailable(f"{what} {path!r}: {error}") from error
        raise
