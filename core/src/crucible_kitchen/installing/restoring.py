"""What a lock asks an environment to change, and the requirements that change it."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from packaging.tags import Tag, compatible_tags, cpython_tags, sys_tags
from packaging.utils import parse_wheel_filename

from ..adapters.discovery import CORE, GROUPS, canonical, catalog
from ..errors import ConfigurationError
from ..locking.lock import ALTERED, Lock, Locked
from ..locking.sources import NOT_WRITTEN

ALGORITHMS = ("sha512", "sha384", "sha256")
"""Hashes that pip and uv check, the strongest first."""

Change = tuple[str, str, str]
"""A distribution, and its version before and after; "" where there is none."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to change.

    Args:
        changes: what is installed in place of what.
        hashed: requirements with hashes.
        plain: requirements of what has none.
        altered: whether installed files were changed since.
        surplus: installed distributions of plugins that are not in the lock.
    """

    changes: Sequence[Change]
    hashed: Sequence[str]
    plain: Sequence[str]
    altered: bool
    surplus: Sequence[str]

    @property
    def needs_no_index(self) -> bool:
        """Whether all that is installed are wheels on this machine: nothing is built of them."""
        files = [line.partition(" --hash=")[0] for line in self.lines]
        return all(" @ file:" in file and file.endswith(".whl") for file in files)

    @property
    def lines(self) -> Sequence[str]:
        return [*self.hashed, *self.plain]


def plan(lock: Lock, now: Lock, *, by_name: bool = False, here: bool = True) -> Plan:
    """Return what a lock asks to change.

    Args:
        lock: the lock.
        now: what is installed of it.
        by_name: whether files are looked for by name in the places that the installer is given,
            and not where the lock says they are.
        here: whether the environment is that of this process, of which the plugins are known.

    Raises:
        ConfigurationError: the lock is for another Python, or files are not where it says.
    """
    minor = lock.python.split(".")[:2]
    if lock.python and minor != now.python.split(".")[:2]:
        raise ConfigurationError(
            f"the lock is for Python {'.'.join(minor)}, and this is Python {now.python}"
        )
    changes: list[Change] = []
    hashed: list[str] = []
    plain: list[str] = []
    mistakes: list[str] = []
    tags = _tags(now.python)
    for name, wanted in lock.packages.items():
        there = now.packages.get(name)
        if there is not None and _is_the_same(wanted, there):
            continue
        changes.append((name, *_shown(wanted, there)))
        try:
            line = _requirement(name, wanted, by_name, tags)
        except ConfigurationError as error:
            mistakes.append(str(error))
        else:
            (hashed if " --hash=" in line else plain).append(line)
    if mistakes:
        raise ConfigurationError(*mistakes)
    altered = any(one.digest == ALTERED for one in now.packages.values())
    return Plan(changes, hashed, plain, altered, list(_surplus(lock)) if here else [])


def _shown(wanted: Locked, there: Locked | None) -> tuple[str, str]:
    """Return what is there and what is locked in a few words, which differ."""
    if there is None:
        return "", wanted.version or "as locked"
    if there.editable != wanted.editable:
        after = "editable" if wanted.editable else "not editable"
        return there.version, f"{wanted.version}, {after}"
    if wanted.version not in ("", there.version):
        return there.version, wanted.version
    return f"{there.version}, other files", wanted.version or "as locked"


def _is_the_same(wanted: Locked, there: Locked) -> bool:
    return (
        there.digest != ALTERED
        and wanted.version in ("", there.version)
        and wanted.editable == there.editable
        and wanted.digest in ("", there.digest)
    )


def _surplus(lock: Lock) -> Iterator[str]:
    """Yield the installed distributions of plugins that a lock does not have."""
    there = {canonical(entry.package) for group in GROUPS for entry in catalog(group).entries}
    yield from sorted(there - {CORE, *lock.packages})


def _requirement(name: str, wanted: Locked, by_name: bool, tags: Mapping[Tag, int]) -> str:
    """Return the line of a requirements file.

    Raises:
        ConfigurationError: its file is not where the lock says, none is for this platform, its
            hash cannot be checked, or its address is not one.
    """
    match wanted.source:
        case {"directory": {"path": str(folder), **about}}:
            path = _there(name, Path(folder) / str(about.get("subdirectory", "")))
            return f"-e {path.as_uri()}" if wanted.editable else f"{name} @ {path.as_uri()}"
        case {"vcs": {"type": str(kind), "commit-id": str(commit)} as place}:
            return f"{name} @ {_address(name, place, f'{kind}+', f'@{commit}')}"
    if not wanted.source or (by_name and wanted.version):
        hashes = "".join(f" --hash={each}" for each in _hashes(name, wanted.files))
        return f"{name}=={wanted.version}{hashes}"
    file = _file_for_here(name, wanted.source, tags)
    [digest] = _hashes(name, [file])
    return f"{name} @ {_address(name, file)} --hash={digest}"


def _address(name: str, place: Mapping[str, Any], before: str = "", after: str = "") -> str:
    """Return the URL of a place in a lock, with a fragment if it is a folder inside of that."""
    url = place["url"] if "url" in place else _there(name, Path(place["path"])).as_uri()
    if NOT_WRITTEN in url:
        raise ConfigurationError(
            f"{name}: {url} was locked without what may be a secret; "
            "`crucible sync --find-links FOLDER` looks elsewhere"
        )
    found = f"{before}{url.partition('#')[0]}{after}"
    if folder := place.get("subdirectory"):
        found += f"#subdirectory={folder}"
    # It becomes a line of a file in which options may follow.
    if re.search(r"[\s\0]", found) or "&" in str(folder):
        raise ConfigurationError(f"{name}: the lock has {found!r}, which is not an address")
    return found


def _hashes(name: str, files: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the strongest hash of each file, as an installer is given it."""
    found = []
    for file in files:
        best = next((kind for kind in ALGORITHMS if kind in file["hashes"]), None)
        digest = "" if best is None else file["hashes"][best].lower()
        if not re.fullmatch("[0-9a-f]+", digest):
            raise ConfigurationError(
                f"{name}: {_name_of(file)} has no hash in the lock that can be checked; these can: "
                f"{', '.join(ALGORITHMS)}"
            )
        found.append(f"{best}:{digest}")
    return found


def _name_of(file: Mapping[str, Any]) -> str:
    return str(file.get("name") or Path(file.get("path") or urlsplit(file["url"]).path).name)


def _there(name: str, path: Path) -> Path:
    if not path.exists():
        raise ConfigurationError(
            f"{name}: {path} is not there; `crucible sync --find-links FOLDER` looks elsewhere"
        )
    return path


def _file_for_here(
    name: str, source: Mapping[str, Any], tags: Mapping[Tag, int]
) -> Mapping[str, Any]:
    """Return the wheel that suits this platform best, else what a wheel is built from."""
    best = len(tags), None
    for wheel in source.get("wheels", ()):
        its = parse_wheel_filename(unquote(_name_of(wheel)))[3]
        best = min(best, (min(tags.get(tag, len(tags)) for tag in its), wheel), key=lambda b: b[0])
    chosen = best[1] or source.get("sdist") or source.get("archive")
    if chosen is None:
        raise ConfigurationError(f"{name}: no wheel in the lock is for this platform")
    return dict(chosen)


def _tags(python: str) -> Mapping[Tag, int]:
    """Return the tags of wheels that a version of Python takes here, with the best one first."""
    major, minor = map(int, python.split(".")[:2])
    if (major, minor) == sys.version_info[:2]:
        tags = sys_tags()
    else:
        others = compatible_tags((major, minor), f"cp{major}{minor}")
        tags = chain(cpython_tags((major, minor)), others)
    return {tag: number for number, tag in enumerate(tags)}
