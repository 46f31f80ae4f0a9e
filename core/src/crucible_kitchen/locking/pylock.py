"""A lock as a `pylock.toml` (PEP 751), which pip, uv and others can install.

What the format has no place for is in `[tool.crucible]`: the version of Python, the plugins, the
report cards, and in `[packages.tool.crucible]` the digest of a distribution's files. The format
wants to know of each distribution where it comes from. Where that is not known here, the entry
has a name and a version alone: we can install it, and other tools say what they miss.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeAlias

import tomli_w
from packaging.markers import UndefinedComparison, UndefinedEnvironmentName, default_environment
from packaging.pylock import (
    Package,
    PackageDirectory,
    Pylock,
    PylockSelectError,
    PylockValidationError,
    is_valid_pylock_path,
)
from packaging.version import Version

from ..errors import ConfigurationError
from ..files import open_named
from .lock import Lock, Locked, extras_of, texts
from .sources import Source

NAME = "pylock.toml"
CREATOR = "crucible-kitchen"
LARGEST = 1 << 24
"""Bytes of a `pylock.toml`; anything larger is something else."""
_SOURCES = ("vcs", "directory", "archive", "sdist", "wheels")
_Own: TypeAlias = tuple[str, Mapping[str, str], Mapping[str, str], Mapping[str, tuple[str, ...]]]
_UNKNOWN = "\0"
"""The path of a distribution of which it is not known where it comes from: no folder has it."""


def write(lock: Lock, file: Path) -> None:
    """Write a lock, all or nothing. A file that this did not write is never replaced.

    Raises:
        ConfigurationError: the file cannot be written, is another tool's, or its name is not one
            that the format allows.
    """
    if not is_valid_pylock_path(file):
        raise ConfigurationError(
            f"{file}: the file of a lock is called pylock.toml, or pylock.<name>.toml"
        )
    if file.exists() and _parsed(file).get("created-by") != CREATOR:
        raise ConfigurationError(
            f"{file} was not written by `crucible lock`: write to another one, such as "
            "-o pylock.crucible.toml"
        )
    part = file.with_name(f".{file.name}.part")
    try:
        part.write_text(_text(lock, file.parent), encoding="utf-8")
        os.replace(part, file)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise ConfigurationError(f"{file} cannot be written: {error.strerror}") from None


def _text(lock: Lock, folder: Path) -> str:
    minor = ".".join(lock.python.split(".")[:2])
    packages = []
    for name, one in lock.packages.items():
        package: dict[str, Any] = {"name": name, "version": one.version}
        if one.editable:  # what its version is, its source says
            del package["version"]
        package |= _relative(one.source, folder)
        about = {"version": one.version} if one.editable else {}
        if one.digest:
            about["files"] = f"sha256:{one.digest}"
        if about:
            package["tool"] = {"crucible": about}
        packages.append(package)
    document = {
        "lock-version": "1.0",
        "created-by": CREATOR,
        "requires-python": f"=={minor}.*",
        "packages": packages,
        "tool": {
            "crucible": {
                "python": lock.python,
                "plugins": dict(lock.plugins),
                "cards": dict(lock.cards),
                "extras": {name: list(extras) for name, extras in lock.extras.items()},
            }
        },
    }
    return tomli_w.dumps(document)


def read(file: Path, python: str = "") -> Lock:
    """Read a lock, of `crucible lock` or of another tool, as far as it is for this platform.

    Of a lock of another tool, what is locked for an extra does not count, and of groups the default
    ones do.

    Args:
        file: the lock's.
        python: the version of Python that it is read for, such as `3.11.7`; that of this process
            if "".

    Raises:
        ConfigurationError: it cannot be read, is not one, or is not for this platform or Python;
            the message says where.
    """
    document = _parsed(file)
    entries = document.get("packages")
    try:
        if isinstance(entries, list):
            document = {**document, "packages": [_with_a_source(entry) for entry in entries]}
        checked = Pylock.from_dict(document)
        about = _table_of(checked.tool)
        packages = dict(_packages(_selected(checked, python, bool(about)), file.parent))
    except PylockValidationError as error:
        raise ConfigurationError(f"{file} is not a lock: {error}") from None
    except (PylockSelectError, UndefinedComparison, UndefinedEnvironmentName) as error:
        raise ConfigurationError(f"{file} is not for this environment: {error}") from None
    try:
        own = _own(about) if about else ("", {}, {}, {})
    except (TypeError, KeyError, AttributeError, ValueError):
        raise ConfigurationError(f"{file} is not a lock: [tool.crucible] is damaged") from None
    locked_python, plugins, cards, extras = own
    return Lock(locked_python, dict(sorted(packages.items())), plugins, cards, extras)


def _with_a_source(entry: Any) -> Any:
    """Return an entry that the library checks: it wants to know of each where it comes from."""
    match entry:
        case {"name": str(), "version": str()} if not any(kind in entry for kind in _SOURCES):
            return {**entry, "directory": {"path": _UNKNOWN}}
        case {"name": str()} if any(kind in entry for kind in _SOURCES):
            return entry
    raise PylockValidationError(f"a package has no name or version: {entry}")


def _selected(checked: Pylock, python: str, own: bool) -> Iterator[Package]:
    """Yield what a lock has for this platform.

    Args:
        checked: the lock.
        python: the version of Python; "" for that of this process.
        own: whether we wrote it: then its version of Python is compared later, with all the rest.

    Raises:
        PylockSelectError: it is not for this platform or Python, or has two of one name.
    """
    environment = default_environment()
    if python:
        minor = ".".join(python.split(".")[:2])
        environment |= {"python_version": minor, "python_full_version": python}
    # The library also looks for a file that suits; that is done where something is installed.
    anywhere = PackageDirectory(path=_UNKNOWN)
    nothing: dict[str, Any] = dict.fromkeys(_SOURCES)
    bare = [replace(each, **{**nothing, "directory": anywhere}) for each in checked.packages]
    places = {id(each): place for place, each in enumerate(bare)}
    requires = None if own else checked.requires_python
    asked = replace(checked, packages=bare, requires_python=requires)
    for package, _ in asked.select(environment=environment):
        yield checked.packages[places[id(package)]]


def _own(about: Mapping[str, Any]) -> _Own:
    extras = extras_of(about.get("extras", {}))
    return str(about["python"]), texts(about["plugins"]), texts(about["cards"]), extras


def _packages(selected: Iterator[Package], folder: Path) -> Iterator[tuple[str, Locked]]:
    for package in selected:
        source = _absolute(_source_of(package), folder)
        about = _table_of(package.tool)
        version = str(package.version or about.get("version", ""))
        yield package.name, Locked(version, _digest(about), source)


def _table_of(tool: Any) -> Mapping[str, Any]:
    """Return our table of a table `tool`; empty if it has none."""
    match tool:
        case {"crucible": {**about}}:
            return {str(key): value for key, value in about.items()}
    return {}


def _digest(about: Mapping[str, Any]) -> str:
    return str(about.get("files", "")).removeprefix("sha256:")


def _source_of(package: Package) -> Source:
    if package.directory is not None and package.directory.path == _UNKNOWN:
        return {}
    whole = Pylock(lock_version=Version("1.0"), created_by=CREATOR, packages=[package])
    plain = whole.to_dict()["packages"][0]
    return {kind: plain[kind] for kind in _SOURCES if plain.get(kind)}


def _relative(source: Source, folder: Path) -> Source:
    """Return a source with its paths relative to the lock's folder, as the format wants them."""
    return _with_paths(source, lambda path: Path(os.path.relpath(path, folder)).as_posix())


def _absolute(source: Source, folder: Path) -> Source:
    return _with_paths(source, lambda path: str((folder / path).resolve()))


def _with_paths(source: Source, change: Any) -> Source:
    def changed(value: Mapping[str, Any]) -> dict[str, Any]:
        return {**value, "path": change(value["path"])} if "path" in value else dict(value)

    return {
        kind: [changed(each) for each in value] if kind == "wheels" else changed(value)
        for kind, value in source.items()
    }


def _parsed(file: Path) -> dict[str, Any]:
    try:
        with open_named(file) as opened:
            data = opened.read(LARGEST + 1)
        if len(data) > LARGEST:
            raise ConfigurationError(f"{file} has more than {LARGEST:,} bytes, so it is no lock")
        return tomllib.loads(data.decode())
    except FileNotFoundError:
        raise ConfigurationError(f"there is no {file}; `crucible lock` writes one") from None
    except OSError as error:
        raise ConfigurationError(f"{file} cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise ConfigurationError(f"{file} is not valid TOML: {error}") from None
