"""Where an index, or whatever else an installer is set up to use, has what is installed."""

from __future__ import annotations

import json
import subprocess
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from packaging.utils import canonicalize_name

from ..errors import ConfigurationError
from ..locking.lock import Lock
from ..locking.sources import Source, path_of, sha256, without_secrets
from .installer import Installer


def find(installer: Installer, lock: Lock, names: Iterable[str]) -> dict[str, Source]:
    """Ask an installer which files it would install of distributions; nothing is installed.

    Args:
        installer: pip 22.2 or later, or uv.
        lock: has the version of each.
        names: the distributions.

    Raises:
        ConfigurationError: the installer fails; the message has what it said.
    """
    wanted = [f"{name}=={lock.packages[name].version}" for name in names]
    if not wanted:
        return {}
    if installer.name == "uv":
        asked = ["compile", "--quiet", "--no-deps", "--no-header", "--format", "pylock.toml", "-"]
        return _of_uv(_answer(installer.line(*asked), "\n".join(wanted)))
    asked = ["--dry-run", "--ignore-installed", "--no-deps", "--quiet", "--report", "-"]
    return _of_pip(_answer(installer.line("install", *asked, *wanted), ""))


def _answer(line: list[str], given: str) -> str:
    try:
        done = subprocess.run(line, input=given, capture_output=True, text=True)
    except OSError as error:
        raise ConfigurationError(f"{line[0]} cannot be run: {error.strerror}") from None
    if done.returncode:
        said = "\n".join(done.stderr.strip().splitlines()[-6:])
        raise ConfigurationError(f"the index was asked, and did not have everything:\n{said}")
    return done.stdout


def _of_pip(answer: str) -> dict[str, Source]:
    found: dict[str, Source] = {}
    for each in json.loads(answer)["install"]:
        about = each["download_info"]
        name = canonicalize_name(each["metadata"]["name"])
        hashes = about.get("archive_info", {}).get("hashes", {})
        if (source := _file(about["url"], hashes.get("sha256"))) is not None:
            found[name] = source
    return found


def _of_uv(answer: str) -> dict[str, Source]:
    found: dict[str, Source] = {}
    for package in tomllib.loads(answer).get("packages", []):
        source: dict[str, Any] = {}
        if wheels := package.get("wheels"):
            source["wheels"] = [
                {**_named(w.get("url") or w["path"]), "hashes": dict(w["hashes"])} for w in wheels
            ]
        if sdist := package.get("sdist"):
            source["sdist"] = {
                **_named(sdist.get("url") or sdist["path"]),
                "hashes": dict(sdist["hashes"]),
            }
        found[canonicalize_name(package["name"])] = source
    return found


def _file(url: str, digest: str | None) -> Source | None:
    """Return the source of one file; None if its hash is not known."""
    place = _named(url)
    if digest is None and "path" in place:
        digest = sha256(Path(place["path"]))
    if digest is None:
        return None
    one = {**place, "hashes": {"sha256": digest}}
    return {"wheels": [one]} if place["name"].endswith(".whl") else {"sdist": one}


def _named(url: str) -> Mapping[str, str]:
    if url.startswith("file:"):
        path = path_of(url)
        return {"name": path.name, "path": str(path)}
    if "://" not in url:
        return {"name": Path(url).name, "path": str(Path(url).resolve())}
    name = unquote(urlsplit(url).path.rpartition("/")[2])
    return {"name": name, "url": without_secrets(url)}
