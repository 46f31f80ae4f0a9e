"""What a distribution's files are, in one digest, from the hashes in its `RECORD`.

An installer adds files of its own to a wheel's, and copies scripts to elsewhere. Without these, a
wheel and what was installed of it have the same digest, whichever installer did it. An editable
install has none: its files are elsewhere, and change.
"""

from __future__ import annotations

import base64
import csv
import hashlib
import os
import re
import zipfile
from collections.abc import Iterable, Iterator
from importlib.machinery import all_suffixes
from pathlib import Path, PurePosixPath

from ..errors import ConfigurationError
from ..files import open_named

_HASH = re.compile(",(?:sha256|sha384|sha512)=")
"""What precedes the digest in a line of `RECORD`: hashes that the format of wheels allows."""

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
    for path, digest, size in _rows(folder):
        if not _HASH.match(f",{digest}") or path.startswith(("..", "/")) or _is_added(path):
            continue
        file = folder.parent / path
        try:
            if contents and _hash_of(file, digest.partition("=")[0]) != digest:
                return path
            if size.isdecimal() and os.stat(file).st_size != int(size):
                return path
        except OSError:
            return path
    return ""


def added(folder: Path) -> str:
    """Return the path of a module in the import packages that was not installed; "" if none is.

    Args:
        folder: the `.dist-info` folder of the distribution.
    """
    paths = {path for path, _, _ in _rows(folder) if not path.startswith(("..", "/"))}
    packages = {os.path.dirname(p) for p in paths if os.path.basename(p).startswith("__init__.")}
    folders = {str(each) for path in paths for each in PurePosixPath(path).parents}
    for inside in sorted(folders):
        if packages.isdisjoint([inside, *map(str, PurePosixPath(inside).parents)]):
            continue  # a namespace, in which others have modules as well
        for entry in sorted(_entries(folder.parent / inside), key=lambda entry: entry.name):
            path = f"{inside}/{entry.name}"
            if path not in paths and path not in folders and _is_importable(entry):
                return path
    return ""


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as found:
            return list(found)
    except OSError:
        return []


def _is_importable(entry: os.DirEntry[str]) -> bool:
    if entry.is_dir():
        return any(each.name.startswith("__init__.") for each in _entries(Path(entry.path)))
    return entry.name.endswith(tuple(all_suffixes()))


def _rows(folder: Path) -> list[list[str]]:
    """Return the path, hash and size of each file in the `RECORD`; none if it cannot be read."""
    try:
        with open(folder / "RECORD", encoding="utf-8", newline="") as file:
            return [row for row in csv.reader(file) if len(row) == 3]
    except (OSError, UnicodeDecodeError, csv.Error):
        return []


def _hash_of(file: Path, algorithm: str) -> str:
    found = hashlib.new(algorithm)
    with open_named(file) as opened:
        while piece := opened.read(1 << 20):
            found.update(piece)
    return f"{algorithm}={base64.urlsafe_b64encode(found.digest()).rstrip(b'=').decode()}"


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
        hashes = list(_HASH.finditer(line))
        if not hashes or line.startswith(("../", "..\\", "/", '"../')):
            continue
        path = line[: hashes[-1].start()]
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
