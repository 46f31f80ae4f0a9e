"""What the metadata of installed packages says about plugins.

Which packages there are is read from the folders on `sys.path` each time; what the files of a
package say is remembered, until one of them changes (`remembered`).
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, TypeAlias, cast

import importlib_metadata as metadata

from .remembered import Memory, Stamp, is_settled, stamp_of

GROUP = "crucible."
"""What the names of the entry-point groups of plugins begin with."""

FEWEST = 32
"""Packages in a folder that are worth remembering: fewer are read as quickly."""

Point: TypeAlias = tuple[str, str, str]
"""The group, name and value of an entry point."""

_BEGINS_A_NAME = re.compile("[A-Za-z0-9]")
_NAME, _VERSION, _REQUIRES = (
    re.compile(rf"^{field}:[ \t]*(\S.*?)[ \t]*$", re.IGNORECASE | re.MULTILINE)
    for field in ("name", "version", "requires-dist")
)


@dataclass(frozen=True, slots=True)
class Package:
    """An installed package.

    Args:
        name: its name.
        version: its version; None if the metadata has none.
        requires: the packages that it requires, as it writes them; of a package without plugins
            none.
        points: its plugins.
        place: the folder on `sys.path` where it is installed.
        failure: why its entry points cannot be read; None if they can.
        folder: where its metadata is, `.../<name>-<version>.dist-info`; None if not on disk.
    """

    name: str
    version: str | None
    requires: tuple[str, ...]
    points: tuple[Point, ...]
    place: str
    failure: Exception | None = None
    folder: str | None = None


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A package whose metadata cannot be read at all.

    Args:
        name: its name, as its folder says.
        folder: where its metadata is.
        failure: why it cannot be read.
    """

    name: str
    folder: str
    failure: Exception


def packages() -> Iterator[Package | Unreadable]:
    """Yield every installed package, in the order in which an import would look for it."""
    with Memory("installed", fewest=FEWEST) as memory:
        for distribution in cast("Iterator[metadata.Distribution]", metadata.distributions()):
            folder = _folder(distribution)
            if folder is None:
                yield _package(distribution, None)
                continue
            if not _BEGINS_A_NAME.match(os.path.basename(folder)):
                continue  # "~umpy-2.0.dist-info", which an interrupted pip had set aside to delete
            stamp = _stamp(folder)
            entry = memory.recall(folder)
            if (known := _known(entry, stamp, folder)) is not None:
                memory.keep(folder, entry)
                yield known
                continue
            package = _package(distribution, folder)
            yield package
            if isinstance(package, Unreadable) or package.failure or package.version is None:
                continue
            if stamp and stamp == _stamp(folder) and is_settled(stamp, time.time_ns()):
                facts = (package.name, package.version, package.requires, package.points)
                memory.keep(folder, [stamp, *facts])


def _stamp(folder: str) -> Stamp | None:
    """Return the stamp of what is read; None where there is no METADATA."""
    stamp = stamp_of([f"{folder}/METADATA", f"{folder}/entry_points.txt"])
    return stamp if stamp and stamp[0] else None


def _known(entry: Any, stamp: Stamp | None, folder: str) -> Package | None:
    """Return a package as it is remembered; None if it has changed since."""
    match entry:
        case [known, str(name), str(version), [*requires], [*points]] if known == stamp:
            if _are_texts(requires) and all(
                isinstance(point, list) and len(point) == 3 and _are_texts(point)
                for point in points
            ):
                plugins = tuple((group, name, value) for group, name, value in points)
                place = os.path.dirname(folder)
                return Package(name, version, tuple(requires), plugins, place, folder=folder)
    return None


def _are_texts(values: list[object]) -> bool:
    return all(isinstance(value, str) for value in values)


def _package(distribution: metadata.Distribution, folder: str | None) -> Package | Unreadable:
    try:
        return _read(distribution, folder)
    except Exception as error:
        there = folder or str(distribution)
        return Unreadable(os.path.basename(there).partition("-")[0], there, error)


def _folder(distribution: metadata.Distribution) -> str | None:
    """Return where the metadata is, `.../<name>-<version>.dist-info`; None if not on disk."""
    path = getattr(distribution, "_path", None)  # there is no public name; pip reads it as well
    return None if path is None else str(path).rstrip("/")


def _read(distribution: metadata.Distribution, folder: str | None) -> Package:
    place = os.path.dirname(folder) if folder else str(distribution.locate_file(""))
    # The library's parser reads all of METADATA, its description included: ten times the time.
    try:
        with open(f"{folder}/METADATA", encoding="utf-8") as file:
            text = file.read()
    except OSError:  # not a folder, but an egg or a zip file
        text = distribution.read_text("METADATA") or ""
    head = text.partition("\n\n")[0]
    name = found[1] if (found := _NAME.search(head)) else _field(distribution, "Name")
    if not name:
        raise ValueError("there is no Name")
    version = found[1] if (found := _VERSION.search(head)) else _field(distribution, "Version")
    try:
        points = tuple(
            (point.group, point.name, point.value)
            for point in distribution.entry_points
            if point.group.startswith(GROUP)
        )
    except Exception as error:
        return Package(name, version, (), (), place, error, folder)
    requires: tuple[str, ...] = ()
    if points:
        requires = tuple(_REQUIRES.findall(head) if head else distribution.requires or ())
    return Package(name, version, requires, points, place, folder=folder)


def _field(distribution: metadata.Distribution, field: str) -> str | None:
    """Return a field of the metadata, read by the library; None if it is missing, or all is."""
    try:
        return distribution.metadata[field] or None
    except (KeyError, FileNotFoundError, TypeError):
        return None
