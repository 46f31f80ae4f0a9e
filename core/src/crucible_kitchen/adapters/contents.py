"""The files of a distribution and their hashes, written as in a wheel's `RECORD`."""

from __future__ import annotations

import base64
import csv
import hashlib
import importlib.util
import os
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path

from ..files import open_named


def hash_of(path: str | Path) -> str:
    """Return the hash of a file, such as `sha256=47DEQpj8HBSa-_TImW-5JCeuQeRkm5NMpJWZG3hSuFU`.

    Raises:
        OSError: it cannot be read, or is not a regular file.
    """
    with open_named(Path(path)) as file:
        found = hashlib.sha256()
        while piece := file.read(1 << 20):
            found.update(piece)
    return _written(found.digest())


def hash_of_bytes(data: bytes) -> str:
    """Return the hash of a file's content."""
    return _written(hashlib.sha256(data).digest())


def _written(digest: bytes) -> str:
    return "sha256=" + base64.urlsafe_b64encode(digest).rstrip(b"=").decode()


def files_of(module: str, about: str | None = None) -> Mapping[str, str]:
    """Return the hash of each file of the distribution that a module is in, by its path.

    Paths are relative to the folder that packages are in, with `/`. Bytecode and hidden files are
    left out. Where no `RECORD` names the files, as of an editable install, they are those of the
    import package: the first on the way to the module that is not a namespace package. No code of
    it runs.

    Args:
        module: such as `crucible_adapter_acme.blob_store`.
        about: the folder of the distribution's metadata.

    Raises:
        OSError: a file cannot be read.
    """
    place, found = _imported(module)
    if about is not None and os.path.realpath(os.path.dirname(about)) == os.path.realpath(place):
        recorded = recorded_files(about)
        if not found.isdisjoint(recorded):
            found = {*recorded}
            for root in _roots(recorded):
                found.update(_below(place, root))
    return {path: hash_of(f"{place}/{path}") for path in sorted(found)}


def _imported(module: str) -> tuple[str, set[str]]:
    """Return the folder that an import package is in, and the paths of its files in there."""
    parts = module.split(".")
    for n in range(1, len(parts) + 1):
        try:
            spec = importlib.util.find_spec(".".join(parts[:n]))
        except (ImportError, ValueError):
            break
        if spec is None or (spec.origin is None and not spec.submodule_search_locations):
            break
        if spec.origin is None:  # a namespace package, which other distributions share
            continue
        up = n if spec.submodule_search_locations else n - 1
        place = os.path.normpath(os.path.join(os.path.dirname(spec.origin), *[os.pardir] * up))
        if spec.submodule_search_locations:
            return place, {*_below(place, "/".join(parts[:n]))}
        path = "/".join([*parts[: n - 1], os.path.basename(spec.origin)])
        return place, {path} if os.path.isfile(spec.origin) else set()
    return "", set()


def recorded_files(about: str) -> Collection[str]:
    """Return the paths of a distribution's files as its `RECORD` has them; none without one.

    Its metadata, its scripts and what else is outside the folder of packages do not count.

    Args:
        about: the folder of its metadata.
    """
    try:
        with open(f"{about}/RECORD", encoding="utf-8", newline="") as file:
            paths = [row[0] for row in csv.reader(file) if row]
    except (OSError, ValueError, csv.Error):
        return ()
    return [path for path in paths if _is_content(path)]


def _is_content(path: str) -> bool:
    parts = path.split("/")
    return not (
        parts[0] == ""
        or os.path.isabs(path)
        or parts[0].endswith(".dist-info")
        or any(part == os.pardir or is_left_out(part) for part in parts)
    )


def _roots(paths: Iterable[str]) -> set[str]:
    """Return the topmost folders that are import packages, and no namespaces, by their files."""
    inits = {
        path.rpartition("/")[0] for path in paths if path.rpartition("/")[2].startswith("__init__.")
    } - {""}
    return {each for each in inits if not any(each.startswith(f"{other}/") for other in inits)}


def _below(place: str, folder: str) -> Iterator[str]:
    """Yield the paths of a folder's files, sorted, relative to `place`."""
    for name in sorted(os.listdir(f"{place}/{folder}")):
        path = f"{folder}/{name}"
        if is_left_out(name):
            continue
        if os.path.isdir(f"{place}/{path}"):
            yield from _below(place, path)
        else:
            yield path


def is_left_out(name: str) -> bool:
    """Whether a file or folder of this name is no part of a package: bytecode, or hidden."""
    return name == "__pycache__" or name.startswith(".")


def folders_of(files: Mapping[str, str]) -> set[str]:
    """Return the folders that files are in, and those in which these are; not the topmost."""
    found: set[str] = set()
    for path in files:
        while path := path.rpartition("/")[0]:
            found.add(path)
    return found


def difference(place: str, files: Mapping[str, str]) -> str | None:
    """Return how files in a folder differ from those that were hashed; None if they do not.

    Args:
        place: the folder that the paths are relative to.
        files: their hashes, by their paths.
    """
    for path, expected in files.items():
        try:
            if hash_of(f"{place}/{path}") != expected:
                return f"{path} differs"
        except OSError:
            return f"{path} is missing"
    folders, roots = folders_of(files), _roots(files)
    # Other distributions may have files of their own in the folders of a namespace.
    owned = (each for each in folders if any(f"{each}/".startswith(f"{root}/") for root in roots))
    for folder in sorted(owned):
        for name in os.listdir(f"{place}/{folder}"):
            path = f"{folder}/{name}"
            if not is_left_out(name) and path not in files and path not in folders:
                return f"{path} is new"
    return None
