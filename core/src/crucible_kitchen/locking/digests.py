"""What a distribution's files are, in one digest, from the hashes in its `RECORD`.

An installer adds files of its own to a wheel's, and copies scripts to elsewhere. Without these, a
wheel and what was installed of it have the same digest, whichever installer did it. An editable
install has none: its files are elsewhere, and change.
"""

from __future__ import annotations

import csv
import hashlib
import os
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path

from ..adapters.contents import hash_of
from ..errors import ConfigurationError

OF_INSTALLERS = ("RECORD", "INSTALLER", "REQUESTED", "direct_url.json", "uv_cache.json")
"""Files of a `.dist-info` folder that are written when it is installed."""


def of_installed(folder: Path) -> str:
    """Return the digest of an installed distribution; "" if it has no `RECORD`.

    Args:
        folder: its `.dist-info` folder.
    """
    try:
        text = (folder / "RECORD").read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return ""
    return _digest(_lasting(text.splitlines()))


def altered(folder: Path, *, contents: bool) -> str:
    """Return the path of a file that is not as it was installed; "" if there is none.

    Args:
        folder: the `.dist-info` folder of the distribution.
        contents: whether files are read; else their sizes are compared, which is some hundred times
            faster.
    """
    try:
        with open(folder / "RECORD", encoding="utf-8", newline="") as file:
            rows = [row for row in csv.reader(file) if len(row) == 3]
    except (OSError, UnicodeDecodeError, csv.Error):
        return ""
    for path, digest, size in rows:
        if not digest.startswith("sha256=") or path.startswith(("..", "/")) or _is_added(path):
            continue
        file_ = folder.parent / path
        try:
            if contents and hash_of(file_) != digest:
                return path
            if size.isdecimal() and os.stat(file_).st_size != int(size):
                return path
        except OSError:
            return path
    return ""


def of_wheel(wheel: Path) -> str:
    """Return the digest that a wheel has once it is installed.

    Raises:
        ConfigurationError: the file is not a wheel.
    """
    try:
        with zipfile.ZipFile(wheel) as file:
            [record] = [n for n in file.namelist() if n.endswith(".dist-info/RECORD")]
            lines = file.read(record).decode().splitlines()
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise ConfigurationError(f"{wheel} is not a wheel that can be read: {error}") from None
    return _digest(_lasting(_moved(line) for line in lines))


def _digest(lines: Iterable[str]) -> str:
    text = "\n".join(sorted(lines))
    return hashlib.sha256(text.encode()).hexdigest() if text else ""


def _lasting(lines: Iterable[str]) -> Iterator[str]:
    """Yield the lines of files that are the same wherever the distribution is installed."""
    for line in lines:
        if ",sha256=" not in line or line.startswith(("../", "..\\", "/", '"../')):
            continue
        path = line.rpartition(",sha256=")[0]
        if not path.partition("/")[0].endswith(".data") and not _is_added(path):
            yield line


def _is_added(path: str) -> bool:
    """Say whether an installer adds a file, so that the wheel does not have it."""
    folder, _, name = path.rpartition("/")
    return name.endswith(".pyc") or (folder.endswith(".dist-info") and name in OF_INSTALLERS)


def _moved(line: str) -> str:
    """Return a line of a wheel's `RECORD` with the path that the file has once installed."""
    top, _, rest = line.partition("/")
    kind, _, path = rest.partition("/")
    return path if top.endswith(".data") and kind in ("purelib", "platlib") else line
