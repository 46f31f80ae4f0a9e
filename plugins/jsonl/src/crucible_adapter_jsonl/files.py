"""The files of the runs: their names, and those that are open."""

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

from crucible_kitchen import InvalidInput

_PLAIN = frozenset((string.ascii_lowercase + string.digits + "_-.").encode())
"""No upper-case letters: two ids must not share a file on a disk that ignores case."""
_LONGEST = 200
"""File systems accept names of 255 bytes."""
_MOST_OPEN = 64
"""Systems limit open files (1024 on Linux), and there may be more runs."""


def file_name(run_id: str) -> str:
    """Return the name of a run's file: different for every id, on any file system."""
    raw = run_id.encode("utf-8", "surrogatepass")
    name = "".join(chr(byte) if byte in _PLAIN else f"%{byte:02x}" for byte in raw)
    if len(name) > _LONGEST:  # "~" is never plain, so no short id has such a name
        name = f"{name[:100]}~{hashlib.sha256(raw).hexdigest()}"
    return f"{name}.jsonl"


def lines_of(file: Path, longest: int) -> Iterator[bytes]:
    """Yield the lines of a file, without their breaks, while other processes may append to it.

    A line of more than `longest` bytes is cut to one byte more than that.

    Raises:
        InvalidInput: it is not a regular file: reading a pipe would block forever.
        OSError: it cannot be read; `FileNotFoundError` if it does not exist.
    """
    _check_kind(file, stat.S_ISREG)
    with open(file, "rb", opener=_open) as source:
        while line := source.readline(longest + 1):
            yield line.rstrip(b"\r\n")
            if not line.endswith(b"\n") and len(line) <= longest:
                return  # the end, without what was meanwhile added to the same line
            while len(line) > longest and not line.endswith(b"\n"):
                line = source.readline(longest + 1)


class RunFiles:
    """The files that this process appends to, opened on first use. Safe from any thread."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._open: dict[str, FileIO] = {}
        self._lock = threading.Lock()

    def name_of(self, run_id: str) -> Path:
        """Return the path of a run's file."""
        return self._folder.absolute() / file_name(run_id)

    def append(self, run_id: str, rows: bytes) -> int:
        """Append in a single write, so that rows of other processes do not mix with it.

        Returns:
            How many bytes were written: fewer than there are if the disk is full. A cut row is not
            read.

        Raises:
            InvalidInput: something other than a file is in its place.
            OSError: nothing was written.
        """
        with self._lock:
            return self._file(run_id).write(rows)

    def sync(self, run_id: str) -> None:
        """Return when the run's rows are on the disk, including those of other processes."""
        with self._lock:
            if run_id in self._open or (self._folder / file_name(run_id)).exists():
                os.fsync(self._file(run_id).fileno())

    def close(self) -> None:
        """Close every file, even if closing one fails."""
        with self._lock, ExitStack() as closing:
            while self._open:
                closing.callback(self._open.popitem()[1].close)

    def _file(self, run_id: str) -> FileIO:
        if run_id not in self._open:
            if len(self._open) >= _MOST_OPEN:
                self._open.pop(next(iter(self._open))).close()
            _make_folder(self._folder)
            path = self._folder / file_name(run_id)
            # Devices are accepted for tests of a full disk: /dev/full.
            _check_kind(path, lambda mode: stat.S_ISREG(mode) or stat.S_ISCHR(mode))
            # Unbuffered and "a": one call of write(2) with O_APPEND for each `append`.
            self._open[run_id] = FileIO(path, "a", opener=_open)
            _sync_folder(self._folder)  # the file's name must survive a power cut as well
        return self._open[run_id]


def _check_kind(file: Path, is_right: Callable[[int], bool]) -> None:
    try:
        mode = file.stat().st_mode
    except FileNotFoundError:
        return
    if not is_right(mode):
        raise InvalidInput(f"{file.absolute()} is not a file; metrics would be kept there")


def _open(path: str, flags: int) -> int:
    # Opening a pipe that has replaced the file meanwhile must not block.
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
