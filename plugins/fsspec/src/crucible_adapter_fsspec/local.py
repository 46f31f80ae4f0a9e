"""Blobs as files of a local folder.

A blob is written under a temporary name in its own folder, synced, and renamed, so that at every
instant its name has the whole old content or the whole new one. A writer holds a lock on its
temporary file; one whose lock is free was left by a writer that was killed, and is removed.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from io import BufferedReader, BufferedWriter
from pathlib import Path

from crucible_kitchen import InvalidInput, NotFound, Unauthorized, Unavailable

from .data import Data, pieces
from .names import is_blob, is_temporary, parts_of, temporary_name

try:
    import fcntl
except ImportError:  # Windows, where nothing is swept
    fcntl = None  # type: ignore[assignment]


class LocalFolder:
    """The blobs under one folder, which is made by the first write."""

    def __init__(self, root: Path) -> None:
        self._root = root.resolve()
        self._swept: set[Path] = set()

    def read(self, path: str, start: int = 0, end: int | None = None) -> bytes:
        with self._open(path) as file:
            file.seek(start)
            return file.read() if end is None else file.read(max(0, end - start))

    def stream(self, path: str, chunk_size: int) -> Iterator[bytes]:
        # An open file keeps its content, even if the blob is replaced meanwhile.
        with self._open(path) as file:
            while chunk := file.read(chunk_size):
                yield chunk

    def write(self, path: str, data: Data) -> None:
        target = self._locate(path)
        with _explained(path):
            file = self._begin(path, target)
        try:
            with file:
                for piece in pieces(data):  # an error of the caller's own iterator stays as it is
                    with _explained(path):
                        file.write(piece)
                with _explained(path):
                    file.flush()
                    os.fsync(file.fileno())
                    if not fcntl:  # Windows renames no open file
                        file.close()
                    os.replace(file.name, target)  # still locked, or it could be swept now
        except BaseException:
            Path(file.name).unlink(missing_ok=True)
            self._prune(target.parent)
            raise
        _sync_folder(target.parent)

    def exists(self, path: str) -> bool:
        with _explained(path):
            return self._locate(path).is_file()

    def delete(self, path: str) -> None:
        target = self._locate(path)
        with _explained(path):
            if target.is_file():
                target.unlink(missing_ok=True)
                self._prune(target.parent)

    def list(self, prefix: str) -> list[str]:
        above = prefix.rpartition("/")[0]
        folder = self._root / above
        # Links to folders are not followed, or a blob would be listed under two names.
        if above and (not is_blob(above) or folder.resolve() != folder):
            return []
        return sorted(
            path
            for directory, _, names in os.walk(folder, onerror=_unless_missing)
            for name in names
            if (path := Path(directory, name).relative_to(self._root).as_posix()).startswith(prefix)
            if is_blob(path) and self._is_inside(Path(directory, name))
        )

    def ping(self) -> None:
        """Look whether the folder can be written or made."""
        try:
            above = next(each for each in (self._root, *self._root.parents) if each.exists())
        except PermissionError as error:
            raise Unauthorized(f"{error.filename} may not be seen") from error
        if not above.is_dir():
            raise InvalidInput(f"{self._root} cannot be a folder: {above} is a file")
        effective = os.access in os.supports_effective_ids
        if not os.access(above, os.W_OK | os.X_OK, effective_ids=effective):
            raise Unauthorized(f"the folder {above} may not be written")

    # --- paths ---

    def _locate(self, path: str) -> Path:
        target = self._root.joinpath(*parts_of(path))
        try:
            real = _resolve(target)
        except (OSError, RuntimeError) as error:  # a loop of links, or a name that is too long
            raise InvalidInput(f"blob path {path!r}: {error}") from error
        if not real.is_relative_to(self._root):
            raise InvalidInput(f"blob path {path!r}: a symbolic link leads out of {self._root}")
        return target

    def _is_inside(self, file: Path) -> bool:
        return file.is_file() and (
            not file.is_symlink() or file.resolve().is_relative_to(self._root)
        )

    def _open(self, path: str) -> BufferedReader:
        target = self._locate(path)
        with _explained(path):
            if not target.is_file():  # opening a pipe would wait for ever
                raise NotFound(f"there is no blob {path!r} in {self._root}")
            return target.open("rb")

    # --- writing ---

    def _begin(self, path: str, target: Path) -> BufferedWriter:
        for _ in range(100):
            with suppress(FileNotFoundError):  # a `delete` has just removed the empty folder
                self._make_folder(path, target.parent)
                self._sweep(target.parent)
                if target.is_dir():
                    raise InvalidInput(f"blob path {path!r}: it is a folder")
                return self._create(target.parent)
        raise Unavailable(
            f"blob path {path!r}: its folder {target.parent} cannot be made, or goes at once"
        )

    def _make_folder(self, path: str, folder: Path) -> None:
        missing = [each for each in (folder, *folder.parents) if not each.is_dir()]
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except (FileExistsError, NotADirectoryError) as error:
            for each in missing:
                if each.is_file():
                    raise InvalidInput(
                        f"blob path {path!r}: {each} is a blob, so nothing can be below it"
                    ) from error
            raise FileNotFoundError(folder) from error  # it was there, and is gone again
        for each in missing:
            _sync_folder(each.parent)

    def _create(self, folder: Path) -> BufferedWriter:
        while True:
            file = (folder / temporary_name()).open("xb")
            if not fcntl:
                return file
            with suppress(OSError):  # where there are no locks, nothing is swept either
                fcntl.flock(file, fcntl.LOCK_EX)
            if os.fstat(file.fileno()).st_nlink:
                return file
            file.close()  # swept between being made and being locked

    def _sweep(self, folder: Path) -> None:
        """Remove what killed writers left in the folder. Once for each folder is enough."""
        if not fcntl or folder in self._swept:
            return
        self._swept.add(folder)
        for left in filter(lambda file: is_temporary(file.name), folder.glob(".*")):
            with suppress(OSError), left.open("rb") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                left.unlink()

    def _prune(self, folder: Path) -> None:
        """Remove folders that hold nothing: their names are free for blobs."""
        with suppress(OSError):
            while folder != self._root:
                folder.rmdir()
                folder = folder.parent


def _resolve(path: Path) -> Path:
    """Follow links, also where what they lead to is missing.

    Raises:
        OSError, RuntimeError: a loop of links, or a name that is too long.
    """
    try:
        return path.resolve(strict=True)  # else Python 3.13 says nothing about a loop
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        return path.resolve()


def _sync_folder(folder: Path) -> None:
    if os.name == "posix":  # elsewhere a folder cannot be opened, and needs no sync
        try:
            descriptor = os.open(folder, os.O_RDONLY)
        except FileNotFoundError:  # a `delete` was quicker
            return
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _unless_missing(error: OSError) -> None:
    if not isinstance(error, FileNotFoundError | NotADirectoryError):
        raise error


@contextmanager
def _explained(path: str) -> Iterator[None]:
    """Turn what the operating system says about a blob into what the contract says."""
    try:
        yield
    except PermissionError as error:
        raise Unauthorized(f"blob {path!r}: {error.strerror} ({error.filename})") from error
    except FileNotFoundError as error:
        raise NotFound(f"there is no blob {path!r}") from error
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            raise InvalidInput(f"blob path {path!r}: {error.strerror}") from error
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise Unavailable(f"blob {path!r}: {error.strerror}", no_effect=True) from error
        raise
