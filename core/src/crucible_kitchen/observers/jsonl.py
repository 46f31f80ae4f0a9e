"""Events as JSON lines in a file: a trace.

A line has `trace` (the same for everything that one observer wrote), `event`, `time`, `span`,
`parent` and `attributes`. Numbers of spans are unique within a trace, so a file may hold many.
"""

from __future__ import annotations

import json
import math
import os
import secrets
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..events import Event
from ..files import open_named, refuse_pipe
from ..paths import check_writable

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
    """Appends each event to a file, as a whole line that outlives the process at once.

    Args:
        path: the file; it, and the folder that it is in, are made if there is none.

    Raises:
        OSError: it cannot be written.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path).absolute()
        self.trace = secrets.token_hex(4)
        # A stream that is garbage ends where it is collected, which may be in the middle of a line.
        self._lock = threading.RLock()
        self._file: int | None = None
        self._open()

    def __call__(self, event: Event) -> None:
        line = encode(self.trace, event)
        with self._lock:
            # One write in append mode is one line, whoever else writes to the file.
            file = self._open()
            if (written := os.write(file, line)) != len(line):  # the disk is full
                self._close()  # what comes next begins a line of its own
                raise OSError(f"{written} of {len(line)} bytes could be written")

    def __repr__(self) -> str:
        return f"jsonl {self.path}"

    def close(self) -> None:
        """Close the file. An event that comes later opens it again."""
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
    """Say whether the last line has no end, as a power cut or a full disk leaves it."""
    try:
        size = os.lseek(file, 0, os.SEEK_END)
    except OSError:  # a pipe, which is never torn
        return False
    return size > 0 and os.pread(file, 1, size - 1) != b"\n"


def encode(trace: str, event: Event) -> bytes:
    """Return an event as a line."""
    line = {
        "trace": trace,
        "event": event.name,
        "time": round(event.time, 7),
        "span": event.span,
        "parent": event.parent,
        "attributes": event.attributes,
    }
    try:
        text = json.dumps(line, allow_nan=False, default=_plain)
    except ValueError:
        text = json.dumps(_finite(line), default=_plain)
    return text.encode() + b"\n"


def _plain(value: Any) -> Any:
    """Return what JSON has no form for: a number of NumPy, else no more than what kind it is."""
    if isinstance(value, np.generic):
        return _finite(value.item())
    if isinstance(value, Mapping):
        return dict(value)
    return f"<{type(value).__name__}>"


def _finite(value: Any) -> Any:
    """Return NaN and infinities as text: JSON has no such numbers."""
    if isinstance(value, Mapping):
        return {name: _finite(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


LONGEST = 2**20
"""How many bytes of a line are read: a longer one is no event."""

LATEST = 1e12
"""What times are below, in seconds since 1970, and durations, too: some 30,000 years."""


@dataclass(frozen=True, slots=True)
class Line:
    """A line of a trace: an event, and which observer wrote it."""

    trace: str
    event: Event


def read(path: Path) -> Iterator[Line | None]:
    """Yield each line of a file that holds traces, None for one that is something else.

    Raises:
        OSError: it cannot be read, or is not a file.
    """
    with open_named(path) as lines:
        while line := lines.readline(LONGEST):
            if len(line) == LONGEST and line[-1:] != b"\n":
                while (rest := lines.readline(LONGEST)) and rest[-1:] != b"\n":
                    pass  # it is read by and by, for it may have no end
                yield None
            elif line.strip():
                yield decode(line)


def decode(line: bytes) -> Line | None:
    """Return what a line says, or None if it is torn or no line of a trace."""
    try:
        match json.loads(line):
            case {
                "trace": str(trace),
                "event": str(name),
                "time": int() | float() as time,
                "span": None | int() as span,
                "parent": None | int() as parent,
                "attributes": dict(about),
            } if abs(time) < LATEST:
                return Line(trace, Event(name, about, float(time), span, parent))
    except (ValueError, OverflowError, RecursionError):
        pass
    return None
