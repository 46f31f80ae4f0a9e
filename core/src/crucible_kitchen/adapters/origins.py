"""Which installed distributions a module comes from, found out without importing it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from importlib.machinery import PathFinder

from .metadata import Package, packages


def distributions_of(module: str, folder: str) -> set[str]:
    """Return the names of the distributions whose files are run when a module is imported.

    They are found by their `RECORD`, and, where that does not name the files, as of an editable
    install, by the modules of their plugins. A module in `folder` comes first, and is of none that
    is installed elsewhere.

    Args:
        module: such as `acme.flows`.
        folder: the one that modules are looked for in before all others.
    """
    parts = module.split(".")
    own = PathFinder.find_spec(parts[0], [folder])
    local = own is not None and own.origin is not None
    wanted = [*_files(parts)]
    return {
        package.name
        for package in packages()
        if isinstance(package, Package)
        and not (local and os.path.realpath(package.place) != os.path.realpath(folder))
        and (_records(package, wanted) or _offers(package, parts))
    }


def _files(parts: list[str]) -> Iterator[str]:
    """Yield how the paths of the files begin that are run when a module is imported."""
    for n in range(1, len(parts) + 1):
        path = "/".join(parts[:n])
        yield from (f"{path}/__init__.", f"{path}.")
    yield f"{'/'.join(parts)}/"  # a namespace, of which anything may be imported


def _records(package: Package, wanted: list[str]) -> bool:
    if package.folder is None:
        return False
    try:
        # Not by `csv`: there may be hundreds, of 10,000 lines each.
        with open(f"{package.folder}/RECORD", encoding="utf-8", errors="replace") as file:
            text = f"\n{file.read()}"
    except OSError:
        return False
    return any(f"\n{path}" in text or f'\n"{path}' in text for path in wanted)


def _offers(package: Package, parts: list[str]) -> bool:
    """Whether a module of one of a package's plugins is on the way to a module, or below it, or,
    but for a namespace, in the same import package.
    """
    for _, _, value in package.points:
        other = value.partition(":")[0].strip().split(".")
        n = min(len(other), len(parts))
        if other[:n] == parts[:n] or (other[0] == parts[0] and not _is_namespace(parts[0])):
            return True
    return False


def _is_namespace(name: str) -> bool:
    found = PathFinder.find_spec(name)
    return found is not None and found.origin is None
