"""Where a distribution came from, as PEP 751 writes it, as far as that is known here.

An installer notes the origin of what it was given as a file, a folder or a URL (`direct_url.json`,
PEP 610), and nothing of what it found in an index by name.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeAlias
from urllib.parse import unquote, urlsplit, urlunsplit
from urllib.request import url2pathname

from packaging.utils import InvalidWheelFilename, parse_wheel_filename

from ..errors import ConfigurationError
from .digests import of_wheel
from .environment import Distribution

Source: TypeAlias = Mapping[str, Any]
"""One of the keys `wheels`, `sdist`, `archive`, `directory` and `vcs` of a package in a
`pylock.toml`; empty if nothing is known."""


def noted(one: Distribution) -> Source:
    """Return the origin that the installer of a distribution noted."""
    try:
        note = json.loads((one.folder / "direct_url.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    match note:
        case {"url": str(url), "dir_info": {**about}} if url.startswith("file:"):
            editable = {"editable": True} if about.get("editable") is True else {}
            return {"directory": {"path": str(path_of(url)), **editable}}
        case {"url": str(url), "vcs_info": {"vcs": str(kind), "commit_id": str(commit)}}:
            return {"vcs": {"type": kind, "url": without_user(url), "commit-id": commit}}
        case {"url": str(url), "archive_info": {"hashes": {"sha256": str(digest)}}}:
            return _archive(without_user(url), digest)
        case {"url": str(url), "archive_info": {"hash": str(found)}} if found[:7] == "sha256=":
            return _archive(without_user(url), found[7:])  # of an older installer
        case {"url": str(url), "archive_info": {}} if url.startswith("file:"):
            try:  # uv notes no hash
                return _archive(url, _sha256(path_of(url)))
            except OSError:
                return {}
    return {}


def _archive(url: str, digest: str) -> Source:
    name = unquote(urlsplit(url).path.rpartition("/")[2])
    place = {"path": str(path_of(url))} if url.startswith("file:") else {"url": url}
    if name.endswith(".whl"):
        return {"wheels": [{"name": name, **place, "hashes": {"sha256": digest}}]}
    return {"archive": {**place, "hashes": {"sha256": digest}}}


def in_folders(folders: Iterable[Path], wanted: Mapping[str, tuple[str, str]]) -> dict[str, Source]:
    """Return wheels in folders that are what is installed.

    Args:
        folders: where wheels lie.
        wanted: version and digest of each distribution by name.

    Raises:
        ConfigurationError: a folder cannot be read, or a wheel has the version of what is
            installed and other files.
    """
    found: dict[str, Source] = {}
    others: dict[str, Path] = {}
    for folder in folders:
        try:
            files = sorted(folder.iterdir())
        except OSError as error:
            raise ConfigurationError(f"--find-links {folder}: {error.strerror}") from None
        for file in files:
            try:
                name, version, _, _ = parse_wheel_filename(file.name)
            except InvalidWheelFilename:
                continue
            if name not in wanted or name in found or str(version) != wanted[name][0]:
                continue
            if wanted[name][1] and of_wheel(file) != wanted[name][1]:
                others.setdefault(name, file)  # perhaps for another platform
            else:
                found[name] = {
                    "wheels": [
                        {
                            "name": file.name,
                            "path": str(file.resolve()),
                            "hashes": {"sha256": _sha256(file)},
                        }
                    ]
                }
    wrong = [
        f"{file} has the version of {name} that is installed, and other files: install it, or "
        "remove it from the folder"
        for name, file in others.items()
        if name not in found
    ]
    if wrong:
        raise ConfigurationError(*wrong)
    return found


def path_of(url: str) -> Path:
    """Return the path of a `file:` URL."""
    return Path(url2pathname(urlsplit(url).path))


def without_user(url: str) -> str:
    """Return a URL without the name and password in it."""
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))


def _sha256(file: Path) -> str:
    with open(file, "rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()
