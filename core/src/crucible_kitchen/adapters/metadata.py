"""What the metadata of installed packages says about plugins.

Which packages there are is read from the folders on `sys.path` each time; what the files of a
package say is remembered, until one of them changes (`remembered`).
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeAlias, cast

import importlib_metadata as metadata

from .remembered import Memory

GROUP = "crucible."
"""What the names of the entry-point groups of plugins begin with."""

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
    """

    name: str
    version: str | None
    requires: tuple[str, ...]
    points: tuple[Point, ...]
    place: str
    failure: Exception | None = None


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
    with Memory() as memory:
        for distribution in cast("Iterator[metadata.Distribution]", metadata.distributions()):
            folder = _folder(distribution)
            if folder is not None and not _BEGINS_A_NAME.match(os.path.basename(folder)):
                continue  # "~umpy-2.0.dist-info", which an interrupted pip had set aside to delete
            if folder is not None and (known := memory.recall(folder)) is not None:
                yield Package(*known, os.path.dirname(folder))
                continue
            try:
                package = _read(distribution, folder)
            except Exception as error:
                there = folder or str(distribution)
                yield Unreadable(os.path.basename(there).partition("-")[0], there, error)
                continue
            if folder is not None and package.failure is None and package.version is not None:
                memory.keep(
                    folder, (package.name, package.version, package.requires, package.points)
                )
            yield package


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
        return Package(name, version, (), (), place, error)
    requires: tuple[str, ...] = ()
    if points:
        requires = tuple(_REQUIRES.findall(head) if head else distribution.requires or ())
    return Package(name, version, requires, points, place)


def _field(distribution: metadata.Distribution, field: str) -> str | None:
    """Return a field of the metadata, read by the library; None if it is missing, or all is."""
    try:
        return distribution.metadata[field] or None
    except (KeyError, FileNotFoundError, TypeError):
        return None
