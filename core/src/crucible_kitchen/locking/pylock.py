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
from pathlib import Path
from typing import Any

import tomli_w
from packaging.pylock import Package, Pylock, PylockValidationError, is_valid_pylock_path
from packaging.version import Version

from ..errors import ConfigurationError
from ..files import open_named
from .lock import Lock, Locked, texts
from .sources import Source

NAME = "pylock.toml"
CREATOR = "crucible-kitchen"
LARGEST = 1 << 24
"""Bytes of a `pylock.toml`; anything larger is something else."""
_SOURCES = ("vcs", "directory", "archive", "sdist", "wheels")


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
            }
        },
    }
    return tomli_w.dumps(document)


def read(file: Path) -> Lock:
    """Read a lock, of `crucible lock` or of another tool.

    Raises:
        ConfigurationError: it cannot be read, or is not one; the message says where.
    """
    document = _parsed(file)
    entries = document.get("packages")
    try:
        # The library wants a source of each; those without are checked by us.
        known: list[Any] = []
        lone: list[Any] = []
        for entry in entries if isinstance(entries, list) else ():
            is_known = isinstance(entry, dict) and any(kind in entry for kind in _SOURCES)
            (known if is_known else lone).append(entry)
        checked = Pylock.from_dict({**document, "packages": known} if lone else document)
        packages = dict(_packages(checked, lone, file.parent))
    except PylockValidationError as error:
        raise ConfigurationError(f"{file} is not a lock: {error}") from None
    about = _table_of(checked.tool)
    try:
        python, plugins, cards = _own(about) if about else ("", {}, {})
    except (TypeError, KeyError, AttributeError, ValueError):
        raise ConfigurationError(f"{file} is not a lock: [tool.crucible] is damaged") from None
    return Lock(python, dict(sorted(packages.items())), plugins, cards)


def _own(about: Mapping[str, Any]) -> tuple[str, Mapping[str, str], Mapping[str, str]]:
    return str(about["python"]), texts(about["plugins"]), texts(about["cards"])


def _packages(checked: Pylock, lone: list[Any], folder: Path) -> Iterator[tuple[str, Locked]]:
    for package in checked.packages:
        source = _absolute(_source_of(package), folder)
        about = _table_of(package.tool)
        version = str(package.version or about.get("version", ""))
        yield package.name, Locked(version, _digest(about), source)
    for entry in lone:
        match entry:
            case {"name": str(name), "version": str(version)}:
                yield name, Locked(version, _digest(_table_of(entry.get("tool"))))
            case _:
                raise PylockValidationError(f"a package has no name or version: {entry}")


def _table_of(tool: Any) -> Mapping[str, Any]:
    """Return our table of a table `tool`; empty if it has none."""
    match tool:
        case {"crucible": {**about}}:
            return {str(key): value for key, value in about.items()}
    return {}


def _digest(about: Mapping[str, Any]) -> str:
    return str(about.get("files", "")).removeprefix("sha256:")


def _source_of(package: Package) -> Source:
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
