"""What was found out about installed packages when they were last read, on disk.

A file for each folder on `sys.path`, in a folder of the cache. What is kept of a package has the
times and sizes of the files that it was read from, so that a package which was installed, changed
or removed is never seen as it was before. Whatever is wrong with the file, the package can be read
again, and a folder that cannot be written to is left as it is. A file that someone else could have
written is not read: it says which code runs. A file appears whole or not at all, so any number of
processes may use the folder.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import stat
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any, TypeAlias

from ..files import cache_folder

SETTLED = 2.0
"""Seconds after which a change shows in a file's times: those of some file systems are coarse."""

_UNUSED = 90 * 24 * 3600.0  # seconds after which a file is removed, to be made again if needed

Stamp: TypeAlias = list[int]
"""Times in ns and sizes of files."""


class Memory:
    """What is known of packages, by the folders of their metadata. Leaving the block saves it.

    Args:
        name: the folder of the cache.
        fewest: how many packages in a folder are worth a file: fewer are read as quickly as it.
    """

    def __init__(self, name: str, *, fewest: int = 1) -> None:
        self._name = name
        self._fewest = fewest
        self._recalled: dict[str, dict[str, Any]] = {}
        self._seen: dict[str, dict[str, Any]] = {}
        self._learned: set[str] = set()

    def recall(self, folder: str) -> Any:
        """Return what was kept of a package, as JSON gives it back; None if nothing was.

        It may be out of date, or of an older release: the caller compares the stamp in it, and
        keeps it again if it holds.
        """
        place, name = os.path.split(folder)
        if place not in self._recalled:
            self._recalled[place] = _load(self._file(place))
        return self._recalled[place].get(name)

    def keep(self, folder: str, entry: Any) -> None:
        """Remember what holds of a package: plain data, with a stamp."""
        place, name = os.path.split(folder)
        self._seen.setdefault(place, {})[name] = entry
        if entry is not self.recall(folder):
            self._learned.add(place)

    def __enter__(self) -> Memory:
        return self

    def __exit__(self, kind: object, *failure: object) -> None:
        for place in self._learned:
            if kind is None and len(self._seen[place]) >= self._fewest:
                with contextlib.suppress(OSError):
                    _save(self._file(place), self._seen[place])

    def _file(self, place: str) -> Path | None:
        digest = hashlib.sha256(os.path.abspath(place).encode("utf-8", "surrogateescape"))
        try:
            return cache_folder() / self._name / f"1-{digest.hexdigest()[:24]}.json"
        except RuntimeError:  # there is no home
            return None


def stamp_of(paths: Iterable[str]) -> Stamp | None:
    """Return times in ns and sizes of files or folders, 0 for what is missing.

    None if one of them cannot be looked at.
    """
    stamp = []
    for path in paths:
        try:
            about = os.stat(path)
        except (FileNotFoundError, NotADirectoryError):
            stamp += [0, 0, 0]
        except OSError:
            return None
        else:
            # Both times: an installer may set the one, and a rebuilt package have it again.
            stamp += [about.st_mtime_ns, about.st_ctime_ns, about.st_size]
    return stamp


def is_settled(stamp: Stamp, now: int) -> bool:
    """Whether a change of the files after `now`, in ns, would show in their times."""
    return now - max(stamp, default=0) >= SETTLED * 1e9


def _load(path: Path | None) -> dict[str, Any]:
    if path is None:
        return {}
    try:
        with open(path, "rb", opener=_open) as file:
            if not _is_ours(os.fstat(file.fileno())):
                return {}
            checksum, _, text = file.read().partition(b"\n")
        if hashlib.sha256(text).hexdigest().encode() != checksum:
            return {}
        found = json.loads(text)
        return found if isinstance(found, dict) else {}
    except (OSError, ValueError, RecursionError):
        return {}


def _open(path: str, flags: int) -> int:
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))  # of a pipe, which would wait


def _is_ours(about: os.stat_result) -> bool:
    """Whether it is a file that nobody but this user, or the system's, could have written."""
    if not stat.S_ISREG(about.st_mode):
        return False
    if os.name != "posix":  # the permissions of others are not in the mode
        return True
    return about.st_uid == os.geteuid() and not about.st_mode & (stat.S_IWGRP | stat.S_IWOTH)


def _save(path: Path | None, entries: dict[str, Any]) -> None:
    if path is None:
        return
    text = json.dumps(entries, separators=(",", ":")).encode()
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    number, name = tempfile.mkstemp(dir=path.parent, suffix=".part")
    try:
        with open(number, "wb") as file:
            file.write(hashlib.sha256(text).hexdigest().encode() + b"\n" + text)
        os.replace(name, path)
    except BaseException:
        os.unlink(name)
        raise
    for other in path.parent.iterdir():
        with contextlib.suppress(OSError):  # removed by another process
            if time.time() - other.stat().st_mtime > _UNUSED:
                other.unlink()
