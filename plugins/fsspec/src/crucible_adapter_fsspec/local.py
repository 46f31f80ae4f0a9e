"""Blobs as files of a local folder.

A blob is written under a temporary name in its own folder, synced, and renamed, so that at every
instant its name has the complete old content or the complete new one. A writer holds a lock on its
temporary file; a file whose lock is free was left by a killed writer, and is removed.
"""

from __future__ import annotations

import builtins
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, suppress
from io import BufferedWriter, FileIO
from pathlib import Path

from crucible_kitchen import (
    InvalidInput,
    NotFound,
    Unavailable,
    check_writable,
    explain_os_errors,
)

from .data import Data, pieces
from .names import is_blob, is_temporary, parts_of, temporary_name

try:
    import fcntl
except ImportError:  # Windows, where nothing is swept
    fcntl = None  # type: ignore[assignment]


class LocalFolder:
    """The blobs under one folder, which the first write creates."""

    def __init__(self, root: Path) -> None:
        try:
            self._root = _resolve(root)
        except (OSError, RuntimeError) as error:
            raise InvalidInput(f"the folder {root} (option url): {error}") from error
        self._start = os.path.join(self._root, "")
        self._swept: set[str] = set()

    def read(self, path: str, start: int = 0, end: int | None = None) -> bytes:
        with self._translated(path):
            target, size = self._find(path)
            with FileIO(target) as file:
                if start == 0 and end is None:
                    whole = file.read(size + 1)
                    # Another size: it was replaced meanwhile, or has more than one call reads.
                    return whole if len(whole) == size else whole + file.readall()
                file.seek(start)
                if end is None:
                    return file.readall()
                # Not up to an end far behind that of the file: as much memory would be asked for.
                return _read(file, min(end, os.fstat(file.fileno()).st_size) - start)

    def stream(self, path: str, chunk_size: int) -> Iterator[bytes]:
        with self._translated(path):
            file = FileIO(self._find(path)[0])
        # An open file keeps its content even if the blob is replaced meanwhile.
        with file:
            while True:
                try:
                    chunk = _read(file, chunk_size)
                except OSError:
                    with self._translated(path):
                        raise
                if not chunk:
                    return
                yield chunk
                del chunk  # or the next one is read into memory that is not in the cache

    def write(self, path: str, data: Data) -> None:
        with self._translated(path, no_effect=True):
            target, found = self._look(path)
            if found is not None and stat.S_ISDIR(found.st_mode):
                raise InvalidInput(f"blob path {path!r}: it is a folder")
            folder = os.path.dirname(target)
            file = self._begin(path, folder)
        try:
            for piece in pieces(data):  # an error of the caller's iterator is not translated
                with self._translated(path, no_effect=True):
                    file.write(piece)
            with self._translated(path, no_effect=True):
                file.flush()
                os.fsync(file.fileno())
                if not fcntl:  # Windows cannot rename an open file
                    file.close()
                os.replace(file.name, target)  # still locked, or it could be swept
        except BaseException:
            with suppress(OSError):  # it flushes again, for which there is no space
                file.close()
            with suppress(OSError):
                os.unlink(file.name)
            self._prune(Path(folder))
            raise
        with self._translated(path):
            file.close()
            _sync_folder(folder)

    def exists(self, path: str) -> bool:
        with self._translated(path):
            return _is_file(self._look(path)[1])

    def delete(self, path: str) -> None:
        with self._translated(path):
            target, found = self._look(path)
            if _is_file(found):
                with suppress(FileNotFoundError):
                    os.unlink(target)
                self._prune(Path(target).parent)

    def list(self, prefix: str) -> list[str]:
        with explain_os_errors(f"cannot list the blobs in {self._root}"):
            found = self._files(prefix, _unless_missing)
            return sorted(path for path, file in found if is_blob(path) and self._is_inside(file))

    def clean(self, prefix: str, dry_run: bool) -> builtins.list[str]:
        """Remove what killed writers left; return the paths. See `AdapterSpec.clean`."""
        found = (Path(file) for _, file in self._files(prefix))
        left = [file for file in found if is_temporary(file.name)]
        removed = [file for file in left if _remove_left(file, bool(prefix), dry_run)]
        if not dry_run:
            for file in removed:
                self._prune(file.parent)
        return [str(file) for file in removed]

    def ping(self) -> None:
        """Try whether the folder can be written, or made."""
        check_writable(self._root)

    # --- paths ---

    def _files(
        self, prefix: str, onerror: Callable[[OSError], None] | None = None
    ) -> Iterator[tuple[str, str]]:
        """Yield everything below the root that is not a folder and whose path has the prefix, each
        with its place.
        """
        above = prefix.rpartition("/")[0]
        folder = self._root / above
        # Links to folders are not followed, or a blob would be listed under two names.
        if above and (not is_blob(above) or _resolve(folder) != folder):
            return
        for directory, _, names in os.walk(folder, onerror=onerror):
            for name in names:
                file = os.path.join(directory, name)
                path = file.removeprefix(self._start).replace(os.sep, "/")
                if path.startswith(prefix):
                    yield path, file

    def _look(self, path: str) -> tuple[str, os.stat_result | None]:
        """Return the place of a blob, and what is there; None if nothing is.

        What has no symbolic link on its way cannot be outside: one `lstat` for each part of the
        path says so, and what is there.

        Raises:
            InvalidInput: it is no path of a blob, or leads out of the root.
            OSError: the place cannot be looked at.
        """
        parts = parts_of(path)
        if os.name == "nt":  # which has other links as well
            return self._look_through_links(path, parts)
        place, found = self._start[:-1], None
        for part in parts:
            place = f"{place}/{part}"
            try:
                found = os.lstat(place)
            except (FileNotFoundError, NotADirectoryError):
                return self._start + path, None
            if stat.S_ISLNK(found.st_mode):
                return self._look_through_links(path, parts)
        return place, found

    def _look_through_links(
        self, path: str, parts: builtins.list[str]
    ) -> tuple[str, os.stat_result | None]:
        target = self._root.joinpath(*parts)
        try:
            real = _resolve(target)
        except (OSError, RuntimeError) as error:  # a loop of links, or a name that is too long
            raise InvalidInput(f"blob path {path!r}: {error}") from error
        if not real.is_relative_to(self._root):
            raise InvalidInput(f"blob path {path!r}: a symbolic link leads out of {self._root}")
        try:
            return str(target), os.stat(target)
        except (FileNotFoundError, NotADirectoryError):
            return str(target), None

    def _find(self, path: str) -> tuple[str, int]:
        """Return the place and the size in bytes of a blob that exists."""
        target, found = self._look(path)
        if found is None or not _is_file(found):  # opening a pipe would block forever
            raise NotFound(f"there is no blob {path!r} in {self._root}")
        return target, found.st_size

    def _is_inside(self, file: str) -> bool:
        try:
            mode = os.lstat(file).st_mode
        except (FileNotFoundError, NotADirectoryError):  # it was deleted since its folder was read
            return False
        if not stat.S_ISLNK(mode):
            return stat.S_ISREG(mode)
        return os.path.isfile(file) and Path(file).resolve().is_relative_to(self._root)

    def _translated(
        self, path: str, *, no_effect: bool | None = None
    ) -> AbstractContextManager[None]:
        return explain_os_errors(f"blob {path!r} in {self._root}", no_effect=no_effect)

    # --- writing ---

    def _begin(self, path: str, folder: str) -> BufferedWriter[FileIO]:
        for _ in range(100):  # a `delete` may remove the empty folder again
            self._sweep(folder)
            try:
                return self._create(folder)
            except (FileNotFoundError, NotADirectoryError):
                with suppress(FileNotFoundError):
                    self._make_folder(path, Path(folder))
        raise Unavailable(
            f"blob path {path!r}: its folder {folder} cannot be created, or is removed again"
        )

    def _make_folder(self, path: str, folder: Path) -> None:
        missing = [each for each in (folder, *folder.parents) if not each.is_dir()]
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except (FileExistsError, NotADirectoryError) as error:
            for each in missing:
                if each.exists() and not each.is_dir():
                    raise InvalidInput(
                        f"blob path {path!r}: {each} is not a folder, so nothing can be below it"
                    ) from error
            raise FileNotFoundError(folder) from error  # it existed, and was removed meanwhile
        for each in missing:
            _sync_folder(each.parent)

    def _create(self, folder: str) -> BufferedWriter[FileIO]:
        while True:
            # Not by `open`, which also asks whether it is a terminal.
            file = BufferedWriter(FileIO(os.path.join(folder, temporary_name()), "xb"))
            if not fcntl:
                return file
            with suppress(OSError):  # without locks, nothing is swept
                fcntl.flock(file, fcntl.LOCK_EX)
            if os.fstat(file.fileno()).st_nlink:
                return file
            file.close()  # swept between creation and locking

    def _sweep(self, folder: str) -> None:
        """Remove what killed writers left in the folder, once for each folder."""
        if not fcntl or folder in self._swept:
            return
        self._swept.add(folder)
        for left in filter(lambda file: is_temporary(file.name), Path(folder).glob(".*")):
            _remove_left(left)

    def _prune(self, folder: Path) -> None:
        """Remove empty folders, so that blobs can have their names."""
        with suppress(OSError):
            while folder != self._root:
                folder.rmdir()
                folder = folder.parent


def _is_file(found: os.stat_result | None) -> bool:
    return found is not None and stat.S_ISREG(found.st_mode)


def _read(file: FileIO, count: int) -> bytes:
    """Read up to `count` bytes; fewer only at the end of the file.

    A read(2) returns at most 2 GiB, and fewer bytes than there are on some file systems.
    """
    pieces: list[bytes] = []
    while count > 0 and (piece := file.read(count)):
        pieces.append(piece)
        count -= len(piece)
    return b"".join(pieces)


def _remove_left(left: Path, surely: bool = False, dry_run: bool = False) -> bool:
    """Remove a temporary file if its writer is dead; say whether it was.

    Args:
        left: the file.
        surely: the writer is known to be dead; otherwise it is if the file's lock is free.
        dry_run: do not remove it.
    """
    with suppress(OSError), ExitStack() as stack:
        if not stat.S_ISREG(left.lstat().st_mode):
            return False  # not ours; opening a pipe would wait for ever
        if not surely:
            if not fcntl:
                return False
            descriptor = os.open(left, os.O_RDWR | os.O_NONBLOCK)
            stack.callback(os.close, descriptor)
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if not dry_run:
            left.unlink()
        return True
    return False


def _resolve(path: Path) -> Path:
    """Follow links, even if their target is missing.

    Raises:
        OSError, RuntimeError: a loop of links, or a name that is too long.
    """
    try:
        return path.resolve(strict=True)  # otherwise Python 3.13 does not report a loop
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        return path.resolve()


def _sync_folder(folder: str | Path) -> None:
    if os.name == "posix":  # elsewhere a folder cannot be opened, and needs no sync
        try:
            descriptor = os.open(folder, os.O_RDONLY)
        except FileNotFoundError:  # a `delete` has just removed it
            return
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _unless_missing(error: OSError) -> None:
    if not isinstance(error, FileNotFoundError | NotADirectoryError):
        raise error
