"""Keep blobs on local disk, in S3, or on any other file system that fsspec reaches."""

from __future__ import annotations

import builtins
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from crucible_kitchen import (
    AdapterOptions,
    InvalidInput,
    check_positive,
    expand_home,
    hookimpl,
    resource,
)
from pydantic import AfterValidator, Field, Secret

from .data import Data

if TYPE_CHECKING:
    from .local import LocalFolder
    from .remote import RemoteFolder


def _expanded(url: str) -> str:
    return str(expand_home(url)) if url.startswith("~") else url


class Options(AdapterOptions):
    url: Annotated[str, Field(min_length=1, examples=["runs"]), AfterValidator(_expanded)]
    """The root of every blob: a folder such as `runs`, or `s3://bucket/prefix`, `memory://runs`."""
    storage_options: Secret[dict[str, Any]] = Secret({})
    """Arguments of the file system, such as `key` and `secret` of S3. Never shown."""


@resource
def _folder(opts: Options) -> LocalFolder | RemoteFolder:
    import fsspec
    from fsspec.implementations.local import LocalFileSystem
    from fsspec.implementations.memory import MemoryFileSystem

    from .local import LocalFolder
    from .remote import MemoryFolder, RemoteFolder

    # Listings must not be cached, and connections must not be shared with other kitchens nor,
    # after a fork, with other processes.
    no_caches = {"use_listings_cache": False, "skip_instance_cache": True}
    try:
        fs, root = fsspec.url_to_fs(
            opts.url, **{**opts.storage_options.get_secret_value(), **no_caches}
        )
    except (ImportError, ValueError) as error:  # an unknown protocol, or its package is missing
        get = "; pip install 'crucible-adapter-fsspec[s3]'" if opts.url.startswith("s3") else ""
        raise InvalidInput(f"cannot open {opts.url!r}: {error}{get}") from error
    if isinstance(fs, LocalFileSystem):
        return LocalFolder(Path(root))
    if "s3" in fs.protocol:
        from .s3 import S3Folder

        return S3Folder(fs, root)
    return (MemoryFolder if isinstance(fs, MemoryFileSystem) else RemoteFolder)(fs, root)


@hookimpl
def read(opts: Options, path: str) -> bytes:
    return _folder(opts).read(path)


@hookimpl
def stream(opts: Options, path: str, chunk_size: int) -> Iterator[bytes]:
    check_positive("chunk_size", chunk_size)
    return _folder(opts).stream(path, chunk_size)


@hookimpl
def write(opts: Options, path: str, data: Data) -> None:
    _folder(opts).write(path, data)


@hookimpl
def exists(opts: Options, path: str) -> bool:
    return _folder(opts).exists(path)


@hookimpl
def delete(opts: Options, path: str) -> None:
    _folder(opts).delete(path)


@hookimpl
def list(opts: Options, prefix: str) -> builtins.list[str]:
    return _folder(opts).list(prefix)


@hookimpl
def read_range(opts: Options, path: str, start: int, end: int | None) -> bytes:
    if start < 0 or (end is not None and end < 0):
        raise InvalidInput(f"a range must not be negative: {start} to {end}")
    return _folder(opts).read(path, start, end)


@hookimpl
def clean(opts: Options, prefix: str, keep: Sequence[str], dry_run: bool) -> builtins.list[str]:
    return _folder(opts).clean(prefix, dry_run)  # nothing complete is ever removed


@hookimpl
def ping(opts: Options) -> None:
    _folder(opts).ping()


@hookimpl
def close(opts: Options) -> None:
    _folder.pop(opts)


if TYPE_CHECKING:
    from crucible_kitchen.hookspecs import BlobStoreOptionalSpec, BlobStoreSpec

    import crucible_adapter_fsspec.blob_store as this_module

    _: BlobStoreSpec[Options] = this_module
    _optional: BlobStoreOptionalSpec[Options] = this_module
