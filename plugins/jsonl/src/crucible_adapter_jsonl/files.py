"""The files of the runs: their names, and the open ones."""

from __future__ import annotations

import hashlib
import os
import stat
import string
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from io import FileIO
from pathlib import Path

from crucible_kitchen import InvalidInput, Unavailable

# No upper-case letters: two ids must not share a file on a disk that ignores case.
_PLAIN = frozenset((string.ascii_lowercase + string.digits + "_-.").encode())
# File systems take names of 255 bytes.
_LONGEST = 200
# Open files are few on many systems (1024 on Linux), runs may be many.
_MOST_OPEN = 64


def file_name(run_id: str) -> str:
    """Return the name of a run's file: different for every id, on any file system."""
    raw = run_id.encode("utf-8", "surrogatepass")
    name = "".join(chr(byte) if byte in _PLAIN else f"%{byte:02x}" for byte in raw)
    if len(name) > _LONGEST:  # "~" is never plain, so no short id has such a name
        name = f"{name[:100]}~{hashlib.sha256(raw).hexdigest()}"
    return f"{name}.jsonl"


def lines_of(file: Path, longest: int) -> Iterator[bytes]:
    """Yield the lines of a file that somebody may be appending to, without their breaks.

    Of a line of more than `longest` bytes one byte more is yielded.

    Raises:
        InvalidInput: it is no regular file: reading a pipe would wait for ever.
        OSError: it cannot be read; `FileNotFoundError` where there is none.
    """
    _check_kind(file, stat.S_ISREG)
    with open(file, "rb", opener=_open) as source:
        while line := source.readline(longest + 1):
            yield line.rstrip(b"\r\n")
            if not line.endswith(b"\n") and len(line) <= longest:
                return  # the end, and not what somebody has meanwhile added to the same line
            while len(line) > longest and not line.endswith(b"\n"):
                line = source.readline(longest + 1)


class RunFiles:
    """The files that this process appends to, opened on first use. Safe from any thread."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._open: dict[str, FileIO] = {}
        self._lock = threading.Lock()

    def append(self, run_id: str, rows: bytes) -> None:
        """Append in a single write, which other appending processes cannot come between.

        Raises:
            Unavailable: a part was written, since the disk is full. The row that is cut is none.
            InvalidInput: there is something else than a file in its place.
            OSError: nothing was written.
        """
        with self._lock:
            file = self._file(run_id)
            written = file.write(rows)
        if written != len(rows):
            raise Unavailable(
                f"{self._folder.absolute()}: only {written} of {len(rows)} bytes were written to "
                f"{file_name(run_id)}; the disk is full",
                no_effect=b"\n" not in rows[1 : written + 1],  # of several rows, not even the first
            )

    def sync(self, run_id: str) -> None:
        """Return when the run's rows are on the disk, whoever appended them."""
        with self._lock:
            if run_id in self._open or (self._folder / file_name(run_id)).exists():
                os.fsync(self._file(run_id).fileno())

    def close(self) -> None:
        """Close every file, also where closing one fails."""
        with self._lock, ExitStack() as closing:
            while self._open:
                closing.callback(self._open.popitem()[1].close)

    def _file(self, run_id: str) -> FileIO:
        if run_id not in self._open:
            if len(self._open) >= _MOST_OPEN:
                self._open.pop(next(iter(self._open))).close()
            _make_folder(self._folder)
            path = self._folder / file_name(run_id)
            # A device is for those who try what a full disk does: /dev/full.
            _check_kind(path, lambda mode: stat.S_ISREG(mode) or stat.S_ISCHR(mode))
            # Unbuffered and "a": one call of write(2) with O_APPEND for each `append`.
            self._open[run_id] = FileIO(path, "a", opener=_open)
            _sync_folder(self._folder)  # the file's name must survive a power cut, too
        return self._open[run_id]


def _check_kind(file: Path, is_right: Callable[[int], bool]) -> None:
    try:
        mode = file.stat().st_mode
    except FileNotFoundError:
        return
    if not is_right(mode):
        raise InvalidInput(f"{file.absolute()} is no file; metrics would be kept there")


def _open(path: str, flags: int) -> int:
    # A pipe that has taken the file's place meanwhile must not make anybody wait.
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0), 0o666)


def _make_folder(folder: Path) -> None:
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    for path in missing:
        _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    if os.name == "posix":  # elsewhere a folder cannot be opened, and needs no sync
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
