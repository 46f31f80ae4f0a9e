"""Keep blobs in memory."""

from __future__ import annotations

import builtins
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, BinaryIO

from crucible_kitchen import InvalidInput, NotFound, check_positive, hookimpl, resource

from .conditions import Conditions, round_trip, synthetic  # noqa: F401

LATENCY = 0.001
"""Seconds of one request."""


class Options(Conditions):
    """Only the conditions."""


@resource
def _blobs(opts: Options) -> dict[str, bytes]:
    # Safe under threads without a lock: every access is a single operation of the dictionary.
    return {}


@hookimpl
def read(opts: Options, path: str) -> bytes:
    round_trip(opts, LATENCY)
    return _find(opts, path)


@hookimpl
def stream(opts: Options, path: str, chunk_size: int) -> Iterator[bytes]:
    check_positive("chunk_size", chunk_size)
    round_trip(opts, LATENCY)
    blob = memoryview(_find(opts, path))
    for start in range(0, len(blob), chunk_size):
        yield bytes(blob[start : start + chunk_size])


@hookimpl
def write(opts: Options, path: str, data: bytes | Iterable[bytes] | BinaryIO) -> None:
    name = _name(path)
    content = _content(data)  # read completely before anything is stored
    round_trip(opts, LATENCY)
    _blobs(opts)[name] = content


@hookimpl
def exists(opts: Options, path: str) -> bool:
    round_trip(opts, LATENCY)
    return _name(path) in _blobs(opts)


@hookimpl
def delete(opts: Options, path: str) -> None:
    round_trip(opts, LATENCY)
    _blobs(opts).pop(_name(path), None)


@hookimpl
def list(opts: Options, prefix: str) -> builtins.list[str]:
    round_trip(opts, LATENCY)
    return sorted(path for path in _blobs(opts).copy() if path.startswith(prefix))


@hookimpl
def clean(opts: Options, prefix: str, keep: Sequence[str], dry_run: bool) -> builtins.list[str]:
    return []  # an unfinished write leaves nothing


@hookimpl
def read_range(opts: Options, path: str, start: int, end: int | None) -> bytes:
    if start < 0 or (end is not None and end < 0):
        raise InvalidInput(f"a range must not be negative: {start} to {end}")
    round_trip(opts, LATENCY)
    return _find(opts, path)[start:end]


def _find(opts: Options, path: str) -> bytes:
    try:
        return _blobs(opts)[_name(path)]
    except KeyError:
        raise NotFound(f"no blob {path!r}") from None


def _name(path: str) -> str:
    """Return a path; refuse one that would leave the store, and second spellings."""
    if not {"", ".", ".."}.isdisjoint(path.split("/")):
        raise InvalidInput(f"{path!r} is not a path below the store; write 'folder/name'")
    return path


def _content(data: bytes | Iterable[bytes] | BinaryIO) -> bytes:
    if isinstance(data, bytes | bytearray | memoryview):
        return bytes(data)
    if hasattr(data, "read"):  # iterating it yields lines
        return b"".join(iter(lambda: data.read(1 << 20), b""))
    return b"".join(data)


if TYPE_CHECKING:
    from crucible_kitchen.hookspecs import BlobStoreOptionalSpec, BlobStoreSpec

    import kitchen_noop.blob_store as this_module

    _: BlobStoreSpec[Options] = this_module
    _optional: BlobStoreOptionalSpec[Options] = this_module
