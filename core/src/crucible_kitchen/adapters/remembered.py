"""What the metadata of installed packages said when it was last read, on disk.

A file for each folder on `sys.path` with many packages, in the folder `installed` of the cache. A
package is recalled if the times and sizes of its files are those that it was read with, so one that
was installed, changed or removed is never seen as it was before. Whatever is wrong with the file,
the metadata can be read again, and a folder that cannot be written to is left as it is. A file that
someone else could have written is not read: it says which code runs. A file appears whole or not at
all, so any number of processes may use the folder.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import stat
import tempfile
import time
from pathlib import Path
from typing import Any, TypeAlias

from ..files import cache_folder

FEWEST = 32
"""Packages in a folder that are worth a file: fewer are read as quickly as it."""

SETTLED = 2.0
"""Seconds after which a change shows in a file's times: those of some file systems are coarse."""

_UNUSED = 90 * 24 * 3600.0  # seconds after which a file is removed, to be made again if needed

Facts: TypeAlias = tuple[str, str, tuple[str, ...], tuple[tuple[str, str, str], ...]]
"""Name, version, requirements and entry points."""
_Stamp: TypeAlias = list[int]


class Memory:
    """The facts of packages, by the folders of their metadata. On leaving the block it is saved."""

    def __init__(self) -> None:
        self._recalled: dict[str, dict[str, Any]] = {}
        self._seen: dict[str, dict[str, Any]] = {}
        self._learned: set[str] = set()

    def recall(self, folder: str) -> Facts | None:
        """Return what is known of a package, if it has not changed."""
        place, name = os.path.split(folder)
        if place not in self._recalled:
            self._recalled[place] = _load(place)
        entry: Any = self._recalled[place].get(name)
        if not _is_entry(entry) or entry[0] != _stamp(folder):
            return None
        self._seen.setdefault(place, {})[name] = entry
        _, package, version, requires, points = entry
        return package, version, tuple(requires), tuple((g, n, v) for g, n, v in points)

    def keep(self, folder: str, facts: Facts) -> None:
        """Remember what was read of a package just now."""
        stamp = _stamp(folder)
        if stamp is None or time.time_ns() - max(stamp) < SETTLED * 1e9:
            return
        place, name = os.path.split(folder)
        self._seen.setdefault(place, {})[name] = [stamp, *facts]
        self._learned.add(place)

    def __enter__(self) -> Memory:
        return self

    def __exit__(self, kind: object, *failure: object) -> None:
        for place in self._learned:
            if kind is None and len(self._seen[place]) >= FEWEST:
                with contextlib.suppress(OSError, RuntimeError):
                    _save(place, self._seen[place])


def _stamp(folder: str) -> _Stamp | None:
    """Return times in ns and sizes of the files that are read; None if one of them is missing."""
    stamp = []
    try:
        for file in ("METADATA", "entry_points.txt"):
            about = os.stat(f"{folder}/{file}")
            # Both times: an installer may set the one, and a rebuilt package have it again.
            stamp += [about.st_mtime_ns, about.st_ctime_ns, about.st_size]
    except FileNotFoundError:
        pass  # most packages have no entry points
    except OSError:
        return None
    return stamp or None


def _file(place: str) -> Path:
    digest = hashlib.sha256(os.path.abspath(place).encode("utf-8", "surrogateescape"))
    return cache_folder() / "installed" / f"1-{digest.hexdigest()[:24]}.json"


def _load(place: str) -> dict[str, Any]:
    try:
        with open(_file(place), "rb", opener=_open) as file:
            if not _is_ours(os.fstat(file.fileno())):
                return {}
            checksum, _, text = file.read().partition(b"\n")
        if hashlib.sha256(text).hexdigest().encode() != checksum:
            return {}
        found = json.loads(text)
        return found if isinstance(found, dict) else {}
    except (OSError, ValueError, RuntimeError):  # the last where there is no home
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


def _is_entry(entry: object) -> bool:
    """Whether it is a stamp and facts."""
    match entry:
        case [[*_], str(), str(), [*requires], [*points]]:
            return _are_texts(requires) and all(
                isinstance(point, list) and len(point) == 3 and _are_texts(point)
                for point in points
            )
    return False


def _are_texts(values: list[object]) -> bool:
    return all(isinstance(value, str) for value in values)


def _save(place: str, entries: dict[str, Any]) -> None:
    text = json.dumps(entries, separators=(",", ":")).encode()
    path = _file(place)
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
