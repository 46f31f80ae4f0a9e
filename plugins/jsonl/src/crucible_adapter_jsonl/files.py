"""The files of the runs: their names, and the open ones."""

from __future__ import annotations

import hashlib
import os
import string
import threading
from io import FileIO
from pathlib import Path

from crucible_kitchen import Unavailable

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


class RunFiles:
    """The files that this process appends to, opened on first use. Safe from any thread."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._open: dict[str, FileIO] = {}
        self._lock = threading.Lock()

    def append(self, run_id: str, rows: bytes) -> None:
        """Append in a single write, which other appending processes cannot come between."""
        with self._lock:
            file = self._file(run_id)
            written = file.write(rows)
        if written != len(rows):
            raise Unavailable(
                f"{file.name}: only {written} of {len(rows)} bytes were written; the disk is full?"
            )

    def sync(self, run_id: str) -> None:
        """Return when the run's rows are on the disk, whoever appended them."""
        with self._lock:
            if run_id in self._open or (self._folder / file_name(run_id)).exists():
                os.fsync(self._file(run_id).fileno())

    def close(self) -> None:
        """Close every file."""
        with self._lock:
            while self._open:
                self._open.popitem()[1].close()

    def _file(self, run_id: str) -> FileIO:
        if run_id not in self._open:
            if len(self._open) >= _MOST_OPEN:
                self._open.pop(next(iter(self._open))).close()
            _make_folder(self._folder)
            # Unbuffered and "a": one call of write(2) with O_APPEND for each `append`.
            self._open[run_id] = FileIO(self._folder / file_name(run_id), "a")
            _sync_folder(self._folder)  # the file's name must survive a power cut, too
        return self._open[run_id]


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
