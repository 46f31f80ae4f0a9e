"""The files of an import package and their hashes, written as in a wheel's `RECORD`."""

from __future__ import annotations

import base64
import hashlib
import importlib.util
import os
from collections.abc import Iterator, Mapping
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


def files_of(module: str) -> Mapping[str, str]:
    """Return the hash of each file of the import package that a module is in, by its path.

    Paths are relative to the folder that the package is in, with `/`. Bytecode and hidden files are
    left out. The package that counts is the first on the way to the module that is not a namespace
    package. No code of it runs.

    Args:
        module: such as `crucible_adapter_acme.blob_store`.

    Raises:
        OSError: a file cannot be read.
    """
    parts = module.split(".")
    for n in range(1, len(parts) + 1):
        try:
            spec = importlib.util.find_spec(".".join(parts[:n]))
        except (ImportError, ValueError):
            return {}
        if spec is None or (spec.origin is None and not spec.submodule_search_locations):
            return {}
        if spec.origin is not None and spec.submodule_search_locations:
            folder = os.path.dirname(spec.origin)
            place = os.path.normpath(os.path.join(folder, *[os.pardir] * n))
            return {path: hash_of(f"{place}/{path}") for path in _below(place, "/".join(parts[:n]))}
        if spec.origin is not None:
            path = "/".join([*parts[: n - 1], os.path.basename(spec.origin)])
            return {path: hash_of(spec.origin)} if os.path.isfile(spec.origin) else {}
    return {}


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
    folders = folders_of(files)
    for folder in folders:
        for name in os.listdir(f"{place}/{folder}"):
            path = f"{folder}/{name}"
            if not is_left_out(name) and path not in files and path not in folders:
                return f"{path} is new"
    return None
