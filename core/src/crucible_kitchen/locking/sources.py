"""Where a distribution came from, as PEP 751 writes it, as far as that is known here.

An installer notes the origin of what it was given as a file, a folder or a URL (`direct_url.json`,
PEP 610), and nothing of what it found in an index by name.
"""

from __future__ import annotations

import hashlib
import json
import re
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

NOT_WRITTEN = "**********"
"""In a URL, in place of what may be a secret."""

_PUBLIC_USER = re.compile(r"git|\$\{\w+\}(:\$\{\w+\})?")
"""What PEP 610 lets stand before the host of a URL: it is no secret."""


def noted(one: Distribution) -> Source:
    """Return the origin that the installer of a distribution noted."""
    try:
        note = json.loads((one.folder / "direct_url.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    match note:
        case {"subdirectory": str(folder)}:
            within = {"subdirectory": folder}
        case _:
            within = {}
    match note:
        case {"url": str(url), "dir_info": {**about}} if url.startswith("file:"):
            editable = {"editable": True} if about.get("editable") is True else {}
            return {"directory": {"path": str(path_of(url)), **editable, **within}}
        case {"url": str(url), "vcs_info": {"vcs": str(kind), "commit_id": str(commit)}}:
            vcs = {"type": kind, "url": without_secrets(url), "commit-id": commit}
            return {"vcs": {**vcs, **within}}
        case {"url": str(url), "archive_info": {"hashes": {"sha256": str(digest)}}}:
            return _archive(url, digest, within)
        case {"url": str(url), "archive_info": {"hash": str(found)}} if found[:7] == "sha256=":
            return _archive(url, found[7:], within)  # of an older installer
        case {"url": str(url), "archive_info": {}} if url.startswith("file:"):
            try:  # uv notes no hash
                return _archive(url, sha256(path_of(url)), within)
            except OSError:
                return {}
    return {}


def _archive(url: str, digest: str, within: Mapping[str, str]) -> Source:
    name = unquote(urlsplit(url).path.rpartition("/")[2])
    local = url.startswith("file:")
    place = {"path": str(path_of(url))} if local else {"url": without_secrets(url)}
    if name.endswith(".whl"):
        return {"wheels": [{"name": name, **place, "hashes": {"sha256": digest}}]}
    return {"archive": {**place, "hashes": {"sha256": digest}, **within}}


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
                            "hashes": {"sha256": sha256(file)},
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


def without_secrets(url: str) -> str:
    """Return a URL without its fragment and what in it may be secret, for a file that is committed.

    The name and the password before the host go, but for `git`, variables of the environment and
    the name at a host of SSH. In place of each value of the query is `NOT_WRITTEN`.
    """
    parts = urlsplit(url)
    user, at, host = parts.netloc.rpartition("@")
    if not _PUBLIC_USER.fullmatch(user):
        name = user.partition(":")[0]
        is_public = name == "git" or parts.scheme.rpartition("+")[2] == "ssh"
        user, at = (name, at) if is_public else ("", "")
    query = "&".join(
        f"{each.partition('=')[0]}={NOT_WRITTEN}" if "=" in each else NOT_WRITTEN
        for each in (parts.query.split("&") if parts.query else ())
    )
    return urlunsplit(parts._replace(netloc=f"{user}{at}{host}", query=query, fragment=""))


def sha256(file: Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal digits."""
    with open(file, "rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()
