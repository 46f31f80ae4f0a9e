"""Which adapters and workflows are installed, from package metadata alone: nothing is imported.

Adapters register under the entry-point group `crucible.adapters` as `<port>.<name>`, workflows
under `crucible.workflows` as `<name>`.
"""

from __future__ import annotations

import functools
import os
import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, cast

import importlib_metadata as metadata
from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from ..errors import AdapterLoadError, AdapterNotFound, described
from ..messages.spelling import did_you_mean, listed, nearest
from ..ports import PORTS
from ..version import __version__
from .known_packages import packages_of

ADAPTERS = "crucible.adapters"
WORKFLOWS = "crucible.workflows"
CORE = "crucible-kitchen"


@dataclass(frozen=True, slots=True)
class Installed:
    """An entry point of an installed package: an adapter, or a workflow, whose port is ""."""

    port: str
    name: str
    package: str
    version: str
    entry_point: metadata.EntryPoint
    requires: tuple[str, ...]

    def __str__(self) -> str:
        dotted = f"{self.port}.{self.name}" if self.port else self.name
        return f"{dotted} ({self.package} {self.version})"

    def load(self) -> Any:
        """Import it.

        Raises:
            AdapterLoadError: it needs another version of the core, or its import fails.
        """
        self._check_core_version()
        try:
            return self.entry_point.load()
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # SystemExit, or one of the package's own
            raise AdapterLoadError(
                f"{self} cannot be imported from {self.entry_point.value!r}: {described(error)}"
            ) from error

    def _check_core_version(self) -> None:
        # A development build of the core, such as 1.2.dev3, stands for the release it becomes.
        running = Version(__version__).base_version
        for line in self.requires:
            try:
                requirement = Requirement(line)
            except InvalidRequirement:
                continue
            if (
                canonicalize_name(requirement.name) == CORE
                and (requirement.marker is None or requirement.marker.evaluate({"extra": ""}))
                and not requirement.specifier.contains(running, prereleases=True)
            ):
                raise AdapterLoadError(
                    f"{self} needs {CORE} {requirement.specifier}, this is {CORE} {__version__}: "
                    f"upgrade one of them, with `pip install --upgrade {CORE}` or "
                    f"`pip install --upgrade {self.package}`"
                )


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

    def find(self, port: str, use: str) -> Installed:
        """Return the entry that `use` names: `name`, or `package/name`.

        Raises:
            AdapterNotFound: nothing has this name, or two packages give it to different things.
                The message lists what is installed, the nearest spelling, and what to install or
                write.
        """
        package, slash, name = use.rpartition("/")
        kind = f"{port} adapter" if port else "workflow"
        here = [entry for entry in self.entries if entry.port == port]
        found = [
            entry
            for entry in here
            if entry.name == name
            and (not slash or canonicalize_name(entry.package) == canonicalize_name(package))
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
        names = sorted({entry.name for entry in here})
        lines = [f"no {kind} is named {use!r}"]
        known = packages_of(port)
        near = nearest(name, [*names, *known])
        if near != name:
            lines[0] += did_you_mean(name, [near])
        if near and near not in names:
            lines.append(f"to get it: pip install {known[near]}")
        if others := [e.port for e in self.entries if e.name == name]:
            lines.append(f"the adapter of that name serves {', '.join(dict.fromkeys(others))}")
        lines.append(f"installed: {listed(name, names) or 'none'}")
        if self.problems:
            lines.append(
                f"{len(self.problems)} package(s) were passed over; `crucible doctor` says why"
            )
        raise AdapterNotFound("; ".join(lines).replace("?;", "?"))


def catalog(group: str = ADAPTERS) -> Catalog:
    """Read the metadata of every installed package, one by one.

    `importlib.metadata.entry_points()` fails as a whole when one package's metadata is malformed;
    here such a package is a `Problem`, and the others are listed. It takes a fifth of a millisecond
    a package, so it is done once for all groups, and again when something was installed or removed.
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
    entries: dict[str, list[Installed]] = {ADAPTERS: [], WORKFLOWS: []}
    problems: dict[str, list[Problem]] = {ADAPTERS: [], WORKFLOWS: []}
    chosen: dict[str, _Package] = {}
    for distribution in cast("Iterator[metadata.Distribution]", metadata.distributions()):
        folder = _folder(distribution)
        if folder is not None and not _BEGINS_A_NAME.match(os.path.basename(folder)):
            continue  # "~umpy-2.0.dist-info", which an interrupted pip had set aside to delete
        try:
            package = _Package.of(distribution, folder)
        except Exception as error:
            for found in problems.values():
                found.append(_unreadable(distribution, error))
            continue
        key = canonicalize_name(package.name)
        if key not in chosen or _replaces(package, chosen[key]):
            chosen[key] = package
    for package in chosen.values():
        points = None
        try:
            points = package.distribution.entry_points
        except Exception as error:
            for found in problems.values():
                found.append(Problem(package.name, _cannot_be_read(error)))
        for group in entries:
            if points is None:
                continue
            try:
                entries[group].extend([*_entries(package, points, group, problems[group])])
            except Exception as error:
                problems[group].append(Problem(package.name, _cannot_be_read(error)))
    return {
        group: Catalog(
            tuple(sorted(found, key=lambda entry: (entry.port, entry.name, entry.package))),
            tuple(problems[group]),
        )
        for group, found in entries.items()
    }


@dataclass(frozen=True, slots=True)
class _Package:
    name: str
    distribution: metadata.Distribution
    head: str
    """The fields of its metadata. The library's parser reads all of it: ten times the time."""

    @classmethod
    def of(cls, distribution: metadata.Distribution, folder: str | None) -> _Package:
        try:
            with open(f"{folder}/METADATA", encoding="utf-8") as file:
                text = file.read()
        except OSError:  # not a folder, but an egg or a zip file
            text = distribution.read_text("METADATA") or ""
        head = text.partition("\n\n")[0]
        found = _NAME.search(head)
        name = found[1] if found else _required(distribution, "Name")
        return cls(name, distribution, head)

    @property
    def version(self) -> str:
        found = _VERSION.search(self.head)
        return found[1] if found else _required(self.distribution, "Version")

    @property
    def requires(self) -> tuple[str, ...]:
        if self.head:
            return tuple(_REQUIRES.findall(self.head))
        return tuple(self.distribution.requires or ())


_BEGINS_A_NAME = re.compile("[A-Za-z0-9]")
_NAME, _VERSION, _REQUIRES = (
    re.compile(rf"^{field}:[ \t]*(\S.*?)[ \t]*$", re.IGNORECASE | re.MULTILINE)
    for field in ("name", "version", "requires-dist")
)


def _folder(distribution: metadata.Distribution) -> str | None:
    """Return where the metadata is, `.../<name>-<version>.dist-info`; None if not on disk."""
    path = getattr(distribution, "_path", None)  # there is no public name; pip reads it as well
    return None if path is None else str(path).rstrip("/")


def _required(distribution: metadata.Distribution, field: str) -> str:
    """Return a field of the metadata that every package must have."""
    try:
        value = distribution.metadata[field]
    except (KeyError, FileNotFoundError, TypeError):  # the field or all of METADATA is missing
        value = None
    if not value:
        raise ValueError(f"there is no {field}")
    return value


def _unreadable(distribution: metadata.Distribution, error: Exception) -> Problem:
    folder = _folder(distribution) or str(distribution)
    name = os.path.basename(folder).partition("-")[0]
    return Problem(
        canonicalize_name(name),
        f"{_cannot_be_read(error)}. Install it again, or delete {folder}",
    )


def _cannot_be_read(error: Exception) -> str:
    return f"its metadata cannot be read: {described(error)}"


def _replaces(one: _Package, other: _Package) -> bool:
    """Say whether a package counts instead of `other`, of the same name and found first.

    The first on the path is the one that an import finds. In one folder an interrupted upgrade may
    have left the metadata of both versions, in any order.
    """
    if one.distribution.locate_file("") != other.distribution.locate_file(""):
        return False
    try:
        return Version(one.version) > Version(other.version)
    except ValueError:  # the version is missing, or not a version
        return False


def _entries(
    package: _Package, points: metadata.EntryPoints, group: str, problems: list[Problem]
) -> Iterator[Installed]:
    named: dict[str, dict[str, metadata.EntryPoint]] = {}
    for entry_point in points:
        if entry_point.group == group:
            named.setdefault(entry_point.name, {})[entry_point.value] = entry_point
    for entry_point, *others in (list(values.values()) for values in named.values()):
        if others:
            values = " and as ".join(repr(each.value) for each in (entry_point, *others))
            problems.append(
                Problem(package.name, f"its entry point {entry_point.name!r} is listed as {values}")
            )
            continue
        port, _, name = entry_point.name.partition(".")
        if group == WORKFLOWS:
            port, name = "", entry_point.name
        elif not name or port not in PORTS:
            near = nearest(port, PORTS)
            hint = f"; did you mean {near}.{name}?" if near and name else ""
            problems.append(
                Problem(
                    package.name,
                    f"its entry point {entry_point.name!r} is not <port>.<name>{hint} "
                    f"(ports: {', '.join(PORTS)})",
                )
            )
            continue
        yield Installed(port, name, package.name, package.version, entry_point, package.requires)
