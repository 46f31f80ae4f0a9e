"""What a lock asks an environment to change, and the requirements that change it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from packaging.tags import sys_tags
from packaging.utils import parse_wheel_filename

from ..adapters.discovery import CORE, GROUPS, catalog
from ..errors import ConfigurationError
from ..locking.lock import ALTERED, Lock, Locked

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
    def is_local(self) -> bool:
        """Whether all that is installed lies on this machine."""
        return all(" @ file:" in line or line.startswith("-e ") for line in self.lines)

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
    for name, wanted in lock.packages.items():
        there = now.packages.get(name)
        if there is not None and _is_the_same(wanted, there):
            continue
        changes.append((name, *_shown(wanted, there)))
        try:
            line = _requirement(name, wanted, by_name)
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
        return "", wanted.version
    if there.editable != wanted.editable:
        after = "editable" if wanted.editable else "not editable"
        return there.version, f"{wanted.version}, {after}"
    if there.version != wanted.version:
        return there.version, wanted.version
    return f"{there.version}, other files", wanted.version


def _is_the_same(wanted: Locked, there: Locked) -> bool:
    return (
        there.digest != ALTERED
        and wanted.version == there.version
        and wanted.editable == there.editable
        and wanted.digest in ("", there.digest)
    )


def _surplus(lock: Lock) -> Iterator[str]:
    """Yield the installed distributions of plugins that a lock does not have."""
    there = {entry.package for group in GROUPS for entry in catalog(group).entries}
    yield from sorted(there - {CORE, *lock.packages})


def _requirement(name: str, wanted: Locked, by_name: bool) -> str:
    """Return the line of a requirements file.

    Raises:
        ConfigurationError: its file is not where the lock says, or none is for this platform.
    """
    match wanted.source:
        case {"directory": {"path": str(folder)}}:
            path = _there(name, Path(folder))
            return f"-e {path}" if wanted.editable else f"{name} @ {path.as_uri()}"
        case {"vcs": {"type": str(kind), "url": str(url), "commit-id": str(commit)}}:
            return f"{name} @ {kind}+{url}@{commit}"
    hashes = "".join(f" --hash=sha256:{digest}" for digest in wanted.hashes)
    if by_name or not wanted.source:
        return f"{name}=={wanted.version}{hashes}"
    file = _file_for_here(name, wanted.source)
    url = file["url"] if "url" in file else _there(name, Path(file["path"])).as_uri()
    return f"{name} @ {url} --hash=sha256:{file['hashes']['sha256']}"


def _there(name: str, path: Path) -> Path:
    if not path.exists():
        raise ConfigurationError(
            f"{name}: {path} is not there; `crucible sync --find-links FOLDER` looks elsewhere"
        )
    return path


def _file_for_here(name: str, source: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the wheel that suits this platform best, else what a wheel is built from."""
    rank = {tag: number for number, tag in enumerate(sys_tags())}
    best = len(rank), None
    for wheel in source.get("wheels", ()):
        file = wheel.get("name") or Path(wheel.get("path") or wheel["url"]).name
        tags = parse_wheel_filename(file)[3]
        best = min(best, (min(rank.get(tag, len(rank)) for tag in tags), wheel), key=lambda b: b[0])
    chosen = best[1] or source.get("sdist") or source.get("archive")
    if chosen is None:
        raise ConfigurationError(f"{name}: no wheel in the lock is for this platform")
    return dict(chosen)
