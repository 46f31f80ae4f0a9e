"""Blobs as files, or objects, of a file system that fsspec reaches.

Nothing is ever written through an open remote file: leaving `with fs.open(path, "wb")` by an
exception publishes what was written so far. The data goes to a local file first, in constant
memory, and from there in one upload.
"""

from __future__ import annotations

import builtins
import errno
import functools
import io
import os
import tempfile
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, BinaryIO, TypeAlias

from crucible_kitchen import (
    PING_TIMEOUT,
    CrucibleWarning,
    InvalidInput,
    NotFound,
    explain_os_errors,
)
from fsspec import AbstractFileSystem

from .data import PIECE, Data, pieces
from .failures import translated
from .names import is_blob, is_temporary, parts_of, temporary_name

_OBJECT_STORES = frozenset({"abfs", "abfss", "adl", "az", "gcs", "gs", "hf", "oss", "s3", "s3a"})
"""Protocols whose uploads appear whole or not at all, and whose `mv` copies."""

_Unfinished: TypeAlias = tuple[str, str, datetime, Callable[[], Any]]
"""The path of an unfinished write, its name, its start, and a function that removes it."""


class RemoteFolder:
    """The blobs under a root on one fsspec file system."""

    def __init__(self, fs: AbstractFileSystem, root: str) -> None:
        self._fs = fs
        self._root = root.rstrip("/") + "/"
        self._name = fs.unstrip_protocol(root.rstrip("/"))

    def read(self, path: str, start: int = 0, end: int | None = None) -> bytes:
        at = self._locate(path)
        with self._translated(path):
            size = self._size(path)
            if start == 0 and end is None:
                return bytes(self._fs.cat_file(at))
            # Servers answer ranges that reach beyond the end differently.
            end = size if end is None else min(end, size)
            return bytes(self._fs.cat_file(at, start=start, end=end)) if start < end else b""

    def stream(self, path: str, chunk_size: int) -> Iterator[bytes]:
        at = self._locate(path)
        with self._translated(path):
            self._size(path)
            file = self._open(at)
        with file:
            while True:
                with self._translated(path):
                    chunk = file.read(chunk_size)
                if not chunk:
                    return
                yield bytes(chunk)

    def write(self, path: str, data: Data) -> None:
        at = self._locate(path)
        if isinstance(data, bytes):
            self._publish(path, lambda name: self._fs.pipe_file(name, data), at)
            return
        with spooled(data) as file:
            options = self._upload_options(os.path.getsize(file))
            self._publish(path, lambda name: self._fs.put_file(file, name, **options), at)

    def exists(self, path: str) -> bool:
        with self._translated(path):
            try:
                self._size(path)
            except NotFound:
                return False
            return True

    def delete(self, path: str) -> None:
        if self.exists(path):
            with self._translated(path), suppress(FileNotFoundError):
                self._fs.rm_file(self._locate(path))

    def list(self, prefix: str) -> list[str]:
        above = prefix.rpartition("/")[0]
        if above and not is_blob(above):
            return []
        try:
            with self._translated(prefix):
                at = self._root + above if above else self._root.rstrip("/")
                found = self._fs.find(at, detail=True)
        except NotFound:
            return []
        files = (name for name, info in found.items() if info["type"] == "file")
        paths = (name.removeprefix(self._root) for name in files if name.startswith(self._root))
        return sorted(path for path in paths if path.startswith(prefix) and is_blob(path))

    def clean(self, prefix: str, dry_run: bool) -> builtins.list[str]:
        """Remove what killed writers left; return the names. See `AdapterSpec.clean`.

        There are no locks, so without a prefix only leftovers older than a day are removed.
        """
        removed = []
        before = datetime.now(UTC) - timedelta(days=1)
        with self._translated(prefix, "unfinished writes under"):
            for path, name, begun, remove in [*self._unfinished(prefix)]:
                if path.startswith(prefix) and (prefix or begun < before):
                    if not dry_run:
                        with suppress(FileNotFoundError):  # it has just been finished
                            remove()
                    removed.append(name)
        return removed

    def _unfinished(self, prefix: str) -> Iterator[_Unfinished]:
        """Yield the uploads of several parts, or the temporary files, that are not finished."""
        try:
            if "s3" in self._fs.protocol:
                yield from self._uploads(prefix)
            elif self._renames():
                yield from self._temporary_files(prefix)
        except FileNotFoundError:  # nothing has been written yet
            return
        except (OSError, NotImplementedError) as error:
            # Permission to write does not imply permission to list, and not every server can.
            refused = isinstance(error, PermissionError | NotImplementedError)
            if not refused and getattr(error, "errno", None) != errno.ENOSYS:
                raise
            where = self._fs.unstrip_protocol(self._root)
            warnings.warn(
                f"cannot look for unfinished writes in {where}: {error}",
                CrucibleWarning,
                stacklevel=2,
            )

    def _uploads(self, prefix: str) -> Iterator[_Unfinished]:
        bucket, _, key = (self._root + prefix).partition("/")
        place = {"Bucket": bucket, "Prefix": key}
        more: dict[str, str] = {}
        while True:
            page = self._fs.call_s3("list_multipart_uploads", **place, **more)
            for upload in page.get("Uploads", ()):
                at = f"{bucket}/{upload['Key']}"
                which = {"Key": upload["Key"], "UploadId": upload["UploadId"]}
                abort = functools.partial(
                    self._fs.call_s3, "abort_multipart_upload", Bucket=bucket, **which
                )
                name = f"{self._fs.unstrip_protocol(at)} (upload {upload['UploadId']})"
                yield at.removeprefix(self._root), name, upload["Initiated"], abort
            if not page.get("IsTruncated"):
                return
            more = {
                "KeyMarker": page["NextKeyMarker"],
                "UploadIdMarker": page["NextUploadIdMarker"],
            }

    def _temporary_files(self, prefix: str) -> Iterator[_Unfinished]:
        for at in self._fs.find((self._root + prefix).rpartition("/")[0]):
            if at.startswith(self._root) and is_temporary(at.rpartition("/")[2]):
                begun = self._fs.modified(at)
                begun = begun if begun.tzinfo else begun.replace(tzinfo=UTC)
                remove = functools.partial(self._fs.rm_file, at)
                yield at.removeprefix(self._root), self._fs.unstrip_protocol(at), begun, remove

    def ping(self) -> None:
        """Ask for the bucket or, if the first write creates the root, for the root."""
        must_exist = self._is_object_store()
        asked = self._root.partition("/")[0] if must_exist else self._root.rstrip("/")
        failed: list[Exception] = []

        def ask() -> None:
            try:
                self._fs.info(asked)
            except Exception as error:
                if must_exist or not isinstance(error, FileNotFoundError):
                    failed.append(error)

        # Each file system has its own timeouts and retries, which take minutes.
        asking = threading.Thread(target=ask, daemon=True)
        asking.start()
        asking.join(PING_TIMEOUT)
        with self._translated(self._fs.unstrip_protocol(asked), "store"):
            if asking.is_alive():
                raise TimeoutError(f"no answer within {PING_TIMEOUT} s")
            for error in failed:
                raise error

    def _translated(
        self, path: str, what: str = "blob", *, no_effect: bool | None = None
    ) -> AbstractContextManager[None]:
        return translated(path, f"{what} {path!r} in {self._name}", no_effect=no_effect)

    def _locate(self, path: str) -> str:
        return self._root + "/".join(parts_of(path))

    def _size(self, path: str) -> int:
        """Return a blob's size in bytes, never a cached one. A folder is not a blob."""
        try:
            info = self._fs.info(self._locate(path))
        except (FileNotFoundError, NotADirectoryError):
            info = {"type": "nothing"}
        if info["type"] != "file":
            raise NotFound(f"there is no blob {path!r} in {self._fs.unstrip_protocol(self._root)}")
        return int(info["size"])

    def _open(self, at: str) -> BinaryIO:
        # s3fs holds two blocks of 50 MiB by default.
        file: BinaryIO = self._fs.open(at, "rb", block_size=8 * PIECE)
        return file

    def _publish(self, path: str, upload: Callable[[str], Any], at: str) -> None:
        """Upload under the blob's name if uploads are atomic, else under a temporary name first.

        Renaming a complete file ensures that the blob's name never holds a part.
        """
        if not self._renames():
            with self._translated(path):
                upload(at)
            return
        folder = at.rpartition("/")[0]
        temporary = f"{folder}/{temporary_name()}"  # in a folder that `clean` searches
        try:
            with self._translated(path, no_effect=True):
                self._refuse_folder(path, at)  # or the file would be moved into it
                self._fs.makedirs(folder, exist_ok=True)
                upload(temporary)
            with self._translated(path):
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


@contextmanager
def spooled(data: Data) -> Iterator[str]:
    """Write data to a local file; provide its path, under which it can be read once.

    If the system can reopen an open file, the file has no name that a killed process would leave.
    """
    with explain_os_errors("there is no folder for temporary files", no_effect=True):
        where = f"cannot keep a blob in {tempfile.gettempdir()} until its upload"
    local = functools.partial(explain_os_errors, where, no_effect=True)
    with ExitStack() as stack:
        with local():
            if os.path.exists("/dev/fd"):
                file: Any = tempfile.TemporaryFile()  # noqa: SIM115
                path = f"/dev/fd/{file.fileno()}"
            else:
                folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="crucible-"))
                path = str(Path(folder, "blob"))
                file = Path(path).open("wb")  # noqa: SIM115
        stack.callback(_close, file)
        for piece in pieces(data):
            with local():
                file.write(piece)
        with local():
            file.flush()
            file.seek(0)  # the position may be shared by all who open it
        yield path


def _close(file: BinaryIO) -> None:
    with suppress(OSError):  # it flushes again, for which there is no space
        file.close()


class MemoryFolder(RemoteFolder):
    """The blobs under a root of fsspec's `memory://`, which only this process can see.

    Its open files are the stored ones: a reader would share its position with every other, and
    a writer would publish each piece. So both use whole contents, and a stream uses a view of
    one: replacing a blob creates another object.
    """

    def stream(self, path: str, chunk_size: int) -> Iterator[bytes]:
        at = self._locate(path)
        with self._translated(path):
            self._size(path)
            content = self._fs.store[self._fs._strip_protocol(at)].getbuffer()
        for start in range(0, len(content), chunk_size):
            yield bytes(content[start : start + chunk_size])

    def write(self, path: str, data: Data) -> None:
        content = b"".join(pieces(data))
        at = self._locate(path)
        self._refuse_folder(path, at)  # which would hide the blob
        with self._translated(path):
            self._fs.pipe_file(at, content)

    def _open(self, at: str) -> BinaryIO:
        return io.BytesIO(self._fs.cat_file(at))
