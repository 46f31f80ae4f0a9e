"""Which plugins are installed, from package metadata alone: nothing is imported.

Adapters register under the entry-point group `crucible.adapters` as `<port>.<name>`; workflows,
environments and observers under groups of their own as `<name>`.
"""

from __future__ import annotations

import functools
import os
import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import importlib_metadata as metadata

from ..errors import AdapterForbidden, AdapterLoadError, AdapterNotFound, described
from ..messages.counts import counted
from ..messages.spelling import did_you_mean, listed, nearest
from . import policy
from .fitting import CORE as CORE
from .fitting import unfit
from .metadata import Package, Unreadable, packages

ADAPTERS = "crucible.adapters"
WORKFLOWS = "crucible.workflows"
ENVIRONMENTS = "crucible.environments"
OBSERVERS = "crucible.observers"
GROUPS = (ADAPTERS, WORKFLOWS, ENVIRONMENTS, OBSERVERS)
KINDS = {WORKFLOWS: "workflow", ENVIRONMENTS: "environment", OBSERVERS: "observer"}
"""What messages call an entry of a group that has no ports."""
PORT_NAMES = (
    "training_client",
    "dataset_store",
    "blob_store",
    "hub_client",
    "metrics_store",
    "completer",
)
"""The names of `ports.PORTS`, whose import takes longer than a list of what is installed."""


def canonical(package: str) -> str:
    """Return a package's name as indexes compare it (PEP 503)."""
    return re.sub(r"[-_.]+", "-", package).lower()


@dataclass(frozen=True, slots=True)
class Installed:
    """An entry point of an installed package: an adapter, or a plugin whose port is ""."""

    port: str
    name: str
    package: str
    version: str
    entry_point: metadata.EntryPoint
    requires: tuple[str, ...]
    folder: str | None = None
    """Where its package's metadata is; None if not on disk."""

    def __str__(self) -> str:
        dotted = f"{self.port}.{self.name}" if self.port else self.name
        return f"{dotted} ({self.package} {self.version})"

    def load(self) -> Any:
        """Import it, if it may be.

        Raises:
            AdapterForbidden: the table `[plugins]` forbids it.
            AdapterLoadError: it needs another version of the core, or its import fails.
        """
        if why := policy.refusal(self.package, self.port, self.name):
            raise AdapterForbidden(f"{self} may not be loaded: {why}")
        if why := unfit(self.package, self.version, self.requires):
            raise AdapterLoadError(f"{self} {why}")
        try:
            return self.entry_point.load()
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # SystemExit, or one of the package's own
            raise AdapterLoadError(
                f"{self} cannot be imported from {self.entry_point.value!r}: {described(error)}"
            ) from error


@dataclass(frozen=True, slots=True)
class Problem:
    """What is wrong with an installed package that was passed over."""

    package: str
    message: str


@dataclass(frozen=True, slots=True)
class Catalog:
    """Everything of one entry-point group that is installed."""

    entries: tuple[Installed, ...]
    problems: tuple[Problem, ...]
    group: str = ADAPTERS

    def find(self, port: str, use: str) -> Installed:
        """Return the entry that `use` names: `name`, or `package/name`.

        Raises:
            AdapterNotFound: nothing has this name, or two packages give it to different things.
                The message lists what is installed, the nearest spelling, and what to install or
                write.
        """
        package, slash, name = use.rpartition("/")
        kind = f"{port} adapter" if port else KINDS[self.group]
        here = [entry for entry in self.entries if entry.port == port]
        found = [
            entry
            for entry in here
            if entry.name == name and (not slash or canonical(entry.package) == canonical(package))
        ]
        if len({entry.entry_point.value for entry in found}) == 1:
            return found[0]  # both names of a renamed package import the same module
        if found:
            many = "two" if len(found) == 2 else f"{len(found):,}"
            packages = listed(package, (f"{e.package} {e.version}" for e in found), " and ")
            choices = listed(package, (f'use = "{e.package}/{name}"' for e in found), " or ")
            raise AdapterNotFound(
                f"{many} packages provide the {kind} {name!r}: {packages}; write {choices}"
            )
        from .known_packages import packages_of

        names = sorted({entry.name for entry in here})
        lines = [f"no {kind} is named {use!r}"]
        known = packages_of(port or kind)
        near = nearest(name, [*names, *known])
        if near != name:
            lines[0] += did_you_mean(name, [near])
        if near and near not in names:
            lines.append(f"to get it: pip install {known[near]}")
        if others := [e.port for e in self.entries if e.name == name]:
            lines.append(f"the adapter of that name serves {', '.join(dict.fromkeys(others))}")
        lines.append(f"installed: {listed(name, names) or 'none'}")
        if self.problems:
            passed_over = counted(len(self.problems), "package")
            lines.append(f"passed over {passed_over}; `crucible doctor` says why")
        raise AdapterNotFound("; ".join(lines).replace("?;", "?"))


def catalog(group: str = ADAPTERS) -> Catalog:
    """Read the metadata of every installed package, one by one.

    `importlib.metadata.entry_points()` fails as a whole when one package's metadata is malformed;
    here such a package is a `Problem`, and the others are listed. It is done once for all groups,
    and again when something was installed or removed.
    """
    return _read(tuple((place, _changed(place)) for place in sys.path))[group]


def _changed(place: str) -> int:
    """Return when a folder's entries last changed, in ns; 0 if it is not a folder."""
    try:
        return os.stat(place or os.curdir).st_mtime_ns
    except OSError:
        return 0


@functools.lru_cache(maxsize=2)
def _read(path: tuple[tuple[str, int], ...]) -> Mapping[str, Catalog]:
    entries: dict[str, list[Installed]] = {group: [] for group in GROUPS}
    problems: dict[str, list[Problem]] = {group: [] for group in GROUPS}
    chosen: dict[str, Package] = {}
    for package in packages():
        if isinstance(package, Unreadable):
            found = Problem(
                canonical(package.name),
                f"{_cannot_be_read(package.failure)}. Install it again, or delete {package.folder}",
            )
            for each in problems.values():
                each.append(found)
            continue
        key = canonical(package.name)
        if key not in chosen or _replaces(package, chosen[key]):
            chosen[key] = package
    for package in chosen.values():
        for group in GROUPS:
            try:
                if package.failure is not None:
                    raise package.failure
                entries[group].extend([*_entries(package, group, problems[group])])
            except Exception as error:
                problems[group].append(Problem(package.name, _cannot_be_read(error)))
    return {
        group: Catalog(
            tuple(sorted(found, key=lambda entry: (entry.port, entry.name, entry.package))),
            tuple(problems[group]),
            group,
        )
        for group, found in entries.items()
    }


def _cannot_be_read(error: Exception) -> str:
    return f"its metadata cannot be read: {described(error)}"


def _replaces(one: Package, other: Package) -> bool:
    """Say whether a package counts instead of `other`, of the same name and found first.

    The first on the path is the one that an import finds. In one folder an interrupted upgrade may
    have left the metadata of both versions, in any order.
    """
    if one.place != other.place or one.version is None or other.version is None:
        return False
    from packaging.version import Version

    try:
        return Version(one.version) > Version(other.version)
    except ValueError:  # not a version
        return False


def _entries(package: Package, group: str, problems: list[Problem]) -> Iterator[Installed]:
    named: dict[str, dict[str, metadata.EntryPoint]] = {}
    for of, name, value in package.points:
        if of == group:
            named.setdefault(name, {})[value] = metadata.EntryPoint(name, value, group)
    if named and package.version is None:
        raise ValueError("there is no Version")
    for entry_point, *others in (list(values.values()) for values in named.values()):
        if others:
            values = " and as ".join(repr(each.value) for each in (entry_point, *others))
            problems.append(
                Problem(package.name, f"its entry point {entry_point.name!r} is listed as {values}")
            )
            continue
        port, _, name = entry_point.name.partition(".")
        if group != ADAPTERS:
            port, name = "", entry_point.name
        elif not name or port not in PORT_NAMES:
            near = nearest(port, PORT_NAMES)
            hint = f"; did you mean {near}.{name}?" if near and name else ""
            problems.append(
                Problem(
                    package.name,
                    f"its entry point {entry_point.name!r} is not <port>.<name>{hint} "
                    f"(ports: {', '.join(PORT_NAMES)})",
                )
            )
            continue
        yield Installed(
            port,
            name,
            package.name,
            str(package.version),
            entry_point,
            package.requires,
            package.folder,
        )
