"""Which adapters and workflows are installed, from package metadata alone: nothing is imported.

Adapters register under the entry-point group `crucible.adapters` as `<port>.<name>`, workflows
under `crucible.workflows` as `<name>`.
"""

from __future__ import annotations

import difflib
import functools
import os
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, cast

import importlib_metadata as metadata
from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from .errors import AdapterLoadError, AdapterNotFound
from .version import __version__

ADAPTERS = "crucible.adapters"
WORKFLOWS = "crucible.workflows"
CORE = "crucible-kitchen"

KNOWN_ADAPTERS: Mapping[str, tuple[str, ...]] = {
    "training_client": ("noop", "torch", "ray", "tinker"),
    "dataset_store": ("noop", "hf-datasets"),
    "blob_store": ("noop", "fsspec"),
    "hub_client": ("noop", "hf-hub"),
    "metrics_store": ("noop", "jsonl", "sql", "mlflow"),
    "completer": ("noop", "torch", "tinker", "openai"),
}
"""Adapters of this project, to say what to install: each is `crucible-adapter-<name>`."""

COMPOSING = "crucible-adapter-compose"
KNOWN_WRAPPERS: Mapping[str, tuple[str, ...]] = {
    "training_client": ("faulty", "limit", "retry"),
    "dataset_store": ("fallback", "faulty", "limit", "retry"),
    "blob_store": ("fallback", "faulty", "limit", "retry", "tee"),
    "hub_client": ("fallback", "faulty", "limit", "retry"),
    "metrics_store": ("faulty", "limit", "retry", "tee"),
    "completer": ("fallback", "faulty", "limit", "retry"),
}
"""Adapters of this project that wrap others, all of the package `COMPOSING`."""


def by_preference(port: str, names: Iterable[str]) -> list[str]:
    """Order names of adapters: those of this project, others, the noop, and what wraps others."""
    known, wrappers = KNOWN_ADAPTERS[port], KNOWN_WRAPPERS[port]

    def rank(name: str) -> tuple[bool, bool, bool, int, str]:
        place = known.index(name) if name in known else 0
        return (name in wrappers, name == "noop", name not in known, place, name)

    return sorted(set(names), key=rank)


@dataclass(frozen=True, slots=True)
class Installed:
    """An entry point of an installed package: an adapter, or a workflow (whose port is "")."""

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
        except (Exception, SystemExit) as error:
            raise AdapterLoadError(
                f"{self} cannot be imported from {self.entry_point.value!r}: "
                f"{type(error).__name__}: {error}"
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
    """Something that is wrong with an installed package, so that it was passed over."""

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
            AdapterNotFound: nothing has this name, or two packages do. The message lists what
                there is, the nearest spelling, and what to install or to write.
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
        if len(found) == 1:
            return found[0]
        if found:
            choices = " or ".join(f'use = "{entry.package}/{name}"' for entry in found)
            raise AdapterNotFound(
                f"two packages provide the {kind} {name!r}: "
                f"{' and '.join(f'{e.package} {e.version}' for e in found)}; write {choices}"
            )
        names = sorted({entry.name for entry in here})
        lines = [f"no {kind} is named {use!r}"]
        wrappers = KNOWN_WRAPPERS.get(port, ())
        known = [*names, *KNOWN_ADAPTERS.get(port, ()), *wrappers]
        if near := difflib.get_close_matches(name, known, 1):
            if near[0] != name:
                lines.append(f"did you mean {near[0]!r}?")
            if near[0] not in names:
                wanted = COMPOSING if near[0] in wrappers else f"crucible-adapter-{near[0]}"
                lines.append(f"to get it: pip install {wanted}")
        if others := [e.port for e in self.entries if e.name == name]:
            lines.append(f"the adapter of that name serves {', '.join(dict.fromkeys(others))}")
        lines.append(f"installed: {', '.join(names) or 'none'}")
        raise AdapterNotFound("; ".join(lines).replace("?;", "?"))


def catalog(group: str = ADAPTERS) -> Catalog:
    """Read the metadata of every installed package, one by one.

    `importlib.metadata.entry_points()` fails as a whole when one package's metadata is malformed;
    here such a package is a `Problem`, and the others are listed. It takes 50 ms where 200 packages
    are installed, so it is done once, and again when something was installed or removed.
    """
    return _read(group, tuple((place, _changed(place)) for place in sys.path))


def _changed(place: str) -> int:
    """Return when a folder's entries last changed, in ns; 0 for what is no folder."""
    try:
        return os.stat(place or os.curdir).st_mtime_ns
    except OSError:
        return 0


@functools.lru_cache(maxsize=4)
def _read(group: str, path: tuple[tuple[str, int], ...]) -> Catalog:
    entries: list[Installed] = []
    problems: list[Problem] = []
    seen: set[str] = set()
    for distribution in cast("Iterator[metadata.Distribution]", metadata.distributions()):
        name = _name(distribution)
        if name is None or canonicalize_name(name) in seen:
            continue  # the first on the path is the one that an import finds
        seen.add(canonicalize_name(name))
        try:
            entries.extend(_entries(distribution, name, group, problems))
        except Exception as error:
            problems.append(
                Problem(name, f"its metadata cannot be read: {type(error).__name__}: {error}")
            )
    entries.sort(key=lambda entry: (entry.port, entry.name, entry.package))
    return Catalog(tuple(entries), tuple(problems))


_NAME = re.compile(r"^name:[ \t]*(\S+)", re.IGNORECASE | re.MULTILINE)


def _name(distribution: metadata.Distribution) -> str | None:
    try:
        # `distribution.metadata` parses all of it, its README too: ten times the time.
        head = (distribution.read_text("METADATA") or "").partition("\n\n")[0]
        found = _NAME.search(head)
        return found[1] if found else distribution.metadata["Name"] or None
    except Exception:
        # Left by a broken uninstall. Without a name there is nothing to tell the user about.
        return None


def _entries(
    distribution: metadata.Distribution, package: str, group: str, problems: list[Problem]
) -> Iterator[Installed]:
    for entry_point in distribution.entry_points:
        if entry_point.group != group:
            continue
        port, _, name = entry_point.name.partition(".")
        if group == WORKFLOWS:
            port, name = "", entry_point.name
        elif not name or port not in KNOWN_ADAPTERS:
            near = difflib.get_close_matches(port, KNOWN_ADAPTERS, 1)
            hint = f"; did you mean {near[0]}.{name}?" if near and name else ""
            problems.append(
                Problem(
                    package,
                    f"its entry point {entry_point.name!r} is not <port>.<name>{hint} "
                    f"(ports: {', '.join(KNOWN_ADAPTERS)})",
                )
            )
            continue
        yield Installed(
            port,
            name,
            package,
            distribution.version,
            entry_point,
            tuple(distribution.requires or ()),
        )
