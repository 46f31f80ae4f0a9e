"""The file of a cassette, recorded: JSON lines, of which the last one says that it is complete.

    {"cassette": 1, "id": "...", "port": "completer", "adapter": "openai", "callbacks": [...]}
    {"call": 1, "name": "complete", "arguments": {...}, "returned": {...}}
    {"call": 2, "name": "stream_complete", "arguments": {...}, "streams": true}
    {"call": 2, "item": {...}}
    {"call": 2, "ended": "exhausted"}
    {"helper": "get_tokenizer"}
    {"object": 0, "name": "get_tokenizer", "arguments": [...], "returned": {"$object": 1}}
    {"object": 1, "name": "eos_token_id", "is": 2}
    {"end": {"lines": 7, "sha256": "..."}}

A line whose arguments hold what looks like a mask, and hides nothing, has `"literal": true`.

A recording is written to `<file>.<random>.part` and takes the file's name when it is complete, so
that a kill leaves a part without an end, and no cassette. A part is locked as long as it is written
to; the next recording removes those that no process writes any more. A cassette is never replaced:
where one is there, nothing is recorded, and a recording that finds one at its end is kept as
`<file>.<random>`.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import secrets
import shutil
import threading
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

from crucible_kitchen import CrucibleWarning, InvalidInput, explain_os_errors

try:
    import fcntl
except ImportError:  # Windows, where parts of killed recordings stay
    fcntl = None  # type: ignore[assignment]

VERSION = 1
"""Of the format."""


class Tape:
    """A cassette that is being recorded. Safe to use from any thread.

    Args:
        file: where it will be.
        header: what its first line says besides the version and the id.
    """

    def __init__(self, file: Path, header: Mapping[str, Any]) -> None:
        self.file = file
        self.id = secrets.token_hex(8)
        self._lock = threading.Lock()
        self._process = os.getpid()
        with explain_os_errors(f"cannot record to {file}", no_effect=True):
            self._replaces = _stamp(file)
            if self._replaces is not None:
                raise InvalidInput(taken(file))
            file.parent.mkdir(parents=True, exist_ok=True)
            _sweep(file)
            self._part = _next_to(file, ".part")
            self._out: BinaryIO = self._part.open("xb")
            _try_to_lock(self._out.fileno())
        self._sha256, self._lines, self._finished_at = hashlib.sha256(), 0, -1
        self.write({"cassette": VERSION, "id": self.id, **header})

    def write(self, line: Mapping[str, Any]) -> None:
        """Write a line; after `finish`, the recording goes on.

        Raises:
            AdapterError: it cannot be written.
        """
        if os.getpid() != self._process:
            raise InvalidInput(
                f"{self.file} is recorded by the process that this one was forked from; bind the "
                "adapter in this process"
            )
        content = _json(line)
        with self._lock, explain_os_errors(f"cannot record to {self.file}"):
            if self._finished_at >= 0:
                self._reopen()
            self._out.write(content)
            self._out.flush()
            self._sha256.update(content)
            self._lines += 1

    def finish(self) -> None:
        """Give the cassette its name, or one next to it if another has it by now. Finishing twice
        is fine.
        """
        if os.getpid() != self._process:
            return
        with self._lock, explain_os_errors(f"cannot record to {self.file}"):
            if self._finished_at >= 0:
                return
            end = {"lines": self._lines, "sha256": self._sha256.hexdigest()}
            self._finished_at = self._out.tell()
            self._out.write(_json({"end": end}))
            self._out.flush()
            os.fsync(self._out.fileno())
            self._out.close()
            meant = self.file
            if _stamp(meant) != self._replaces:
                self.file = _next_to(meant)
            self._part.replace(self.file)
            self._replaces = _stamp(self.file)
        if self.file != meant:
            warnings.warn(
                f"{meant} was recorded by another process meanwhile, and stays; this recording is "
                f"{self.file.name}, next to it",
                CrucibleWarning,
                stacklevel=2,
            )

    def __del__(self) -> None:
        # Of an adapter that was not closed: the part stays, without an end.
        with contextlib.suppress(AttributeError, OSError):
            self._out.close()

    def _reopen(self) -> None:
        """Go on with a copy of the finished cassette, which stays until that is finished."""
        if _stamp(self.file) != self._replaces:
            raise InvalidInput(
                f"{self.file} was removed, or recorded anew, after this recording was finished, "
                "which cannot go on; bind the adapter again",
                no_effect=False,
            )
        shutil.copyfile(self.file, self._part)
        self._out = self._part.open("r+b")
        _try_to_lock(self._out.fileno())
        self._out.seek(self._finished_at)
        self._out.truncate()
        self._finished_at = -1


def _json(line: Mapping[str, Any]) -> bytes:
    try:
        text = json.dumps(line, ensure_ascii=False, allow_nan=False, separators=(", ", ": "))
        return f"{text}\n".encode()
    except UnicodeEncodeError:  # half of a surrogate pair
        return f"{json.dumps(line, allow_nan=False)}\n".encode()


def taken(file: Path) -> str:
    """Return what is said of a recording onto a cassette that exists."""
    return (
        f"{file} exists, and a recording replaces no cassette; delete it to record it again, "
        'or set mode = "once" to replay what exists'
    )


def _next_to(file: Path, suffix: str = "") -> Path:
    return file.with_name(f"{file.name}.{secrets.token_hex(4)}{suffix}")


def _stamp(file: Path) -> tuple[int, int] | None:
    try:
        about = file.stat()
    except FileNotFoundError:
        return None
    return about.st_ino, about.st_mtime_ns


def _try_to_lock(descriptor: int) -> bool:
    if not fcntl:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:  # another process has it, or the file system has no locks
        return False
    return True


def _sweep(file: Path) -> None:
    """Remove the parts that killed recordings left."""
    for part in parts_of(file):
        try:
            with part.open("rb") as abandoned:
                if _try_to_lock(abandoned.fileno()):
                    part.unlink(missing_ok=True)
        except FileNotFoundError:  # finished, or removed by another
            continue


def parts_of(file: Path) -> list[Path]:
    """Return the recordings of a cassette that are unfinished, or under way."""
    if not file.parent.is_dir():
        return []
    found = (each for each in file.parent.iterdir() if each.name.startswith(f"{file.name}."))
    return sorted(each for each in found if each.suffix == ".part")
