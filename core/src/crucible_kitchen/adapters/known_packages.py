"""The adapters of this repository, which messages may suggest installing: `known_packages.toml`.

A message names no other package that is not installed: suggesting a name that is not registered
hands the user to the first person who registers it.
"""

from __future__ import annotations

import functools
import tomllib
from collections.abc import Iterable, Mapping
from importlib import resources


def packages_of(port: str) -> Mapping[str, str]:
    """Return the package of each known adapter of a port, in order of preference."""
    known = _known().get(port, {})
    return {**known.get("first", {}), **known.get("last", {})}


def every_package() -> Mapping[str, str]:
    """Return the package of all that is known, by `<port>.<name>`, `environment.<name>` and
    `observer.<name>`.
    """
    return {
        f"{kind}.{name}": package
        for kind in _known()
        for name, package in packages_of(kind).items()
    }


def by_preference(port: str, names: Iterable[str]) -> list[str]:
    """Sort names of adapters: known ones, those of other packages, stand-ins and wrappers."""
    known = _known().get(port, {})
    first, last = [*known.get("first", ())], [*known.get("last", ())]

    def rank(name: str) -> tuple[int, int, str]:
        if name in first:
            return (0, first.index(name), name)
        return (2, last.index(name), name) if name in last else (1, 0, name)

    return sorted(set(names), key=rank)


@functools.cache
def _known() -> Mapping[str, Mapping[str, Mapping[str, str]]]:
    file = resources.files(__package__) / "known_packages.toml"
    return tomllib.loads(file.read_text(encoding="utf-8"))
