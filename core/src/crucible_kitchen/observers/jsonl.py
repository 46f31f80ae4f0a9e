"""Events as JSON lines in a file: a trace, whose format is in `crucible_kitchen.traces.lines`."""

from __future__ import annotations

import os
import secrets
import threading
from pathlib import Path

from ..events import Event, without_texts
from ..files import refuse_pipe
from ..options.paths import check_writable
from ..traces.lines import encode

_APPEND = os.O_RDWR | os.O_APPEND | os.O_CLOEXEC


def try_to_append(path: Path) -> None:
    """Try whether `JsonLines` could write to a file, and leave nothing behind.

    Raises:
        OSError, AdapterError: it could not.
    """
    refuse_pipe(path)
    try:
        os.close(os.open(path, _APPEND))
    except FileNotFoundError:
        check_writable(path.parent)


class JsonLines:
    """Appends each event to a file, as a whole line that survives the process at once.

    Args:
        path: the file; it, and the folder that it is in, are made if they do not exist.

    Raises:
        OSError: it cannot be written.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path).absolute()
        self.trace_id = secrets.token_hex(4)
        # Reentrant: a stream that is garbage ends where it is collected, perhaps within a write.
        self._lock = threading.RLock()
        self._file: int | None = None
        self._open()

    def __call__(self, event: Event) -> None:
        line = encode(self.trace_id, without_texts(event))
        with self._lock:
            # One write in append mode is one line, even when other processes write to the file.
            file = self._open()
            if (written := os.write(file, line)) != len(line):  # the disk is full
                self._close()  # opening it again begins a new line
                raise OSError(f"{written} of {len(line)} bytes could be written")

    def __repr__(self) -> str:
        return f"jsonl {self.path}"

    def close(self) -> None:
        """Close the file. A later event opens it again."""
        with self._lock:
            self._close()

    def _open(self) -> int:
        if self._file is None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            refuse_pipe(self.path)
            self._file = os.open(self.path, _APPEND | os.O_CREAT, 0o666)
            if _is_torn(self._file):
                os.write(self._file, b"\n")
        return self._file

    def _close(self) -> None:
        file, self._file = self._file, None
        if file is not None:
            os.close(file)


def _is_torn(file: int) -> bool:
    """Say whether the last line is incomplete, as a power cut or a full disk leaves it."""
    try:
        size = os.lseek(file, 0, os.SEEK_END)
    except OSError:  # a pipe, which is never torn
        return False
    return size > 0 and os.pread(file, 1, size - 1) != b"\n"
