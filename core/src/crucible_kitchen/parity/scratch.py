"""Stores of a run that is to leave nothing behind: what it writes is in memory alone."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, BinaryIO

from ..errors import NotFound
from ..hookspecs import hookimpl
from ..options.adapter_options import AdapterOptions
from ..ports import BlobStore
from ..types import MetricEntry


class BlobOptions(AdapterOptions):
    below: BlobStore | None = None
    """Where blobs are read from that were not written here, such as records of earlier runs."""


class ScratchBlobs:
    """Blobs in memory, in front of a store that is only read."""

    Options = BlobOptions

    def __init__(self) -> None:
        self._blobs: dict[str, bytes] = {}

    @hookimpl
    def read(self, opts: BlobOptions, path: str) -> bytes:
        if path in self._blobs:
            return self._blobs[path]
        if opts.below is None:
            raise NotFound(f"no blob {path!r}")
        return opts.below.read(path)

    @hookimpl
    def stream(self, opts: BlobOptions, path: str, chunk_size: int) -> Iterator[bytes]:
        content = self.read(opts, path)
        return (content[at : at + chunk_size] for at in range(0, len(content), chunk_size))

    @hookimpl
    def write(self, opts: BlobOptions, path: str, data: bytes | Iterable[bytes] | BinaryIO) -> None:
        if not isinstance(data, bytes):
            data = data.read() if hasattr(data, "read") else b"".join(data)
        self._blobs[path] = data

    @hookimpl
    def exists(self, opts: BlobOptions, path: str) -> bool:
        return path in self._blobs or (opts.below is not None and opts.below.exists(path))

    @hookimpl
    def delete(self, opts: BlobOptions, path: str) -> None:
        self._blobs.pop(path, None)

    @hookimpl
    def list(self, opts: BlobOptions, prefix: str) -> list[str]:
        below = opts.below
        listed = below.list(prefix) if below is not None and below.supports("list") else ()
        return sorted({*listed, *(path for path in self._blobs if path.startswith(prefix))})


class ScratchMetrics:
    """Rows of metrics that are forgotten."""

    @hookimpl
    def record(
        self,
        run_id: str,
        metric: str,
        value: float,
        step: int | None,
        metadata: Mapping[str, Any] | None,
    ) -> None:
        pass

    @hookimpl
    def flush(self, run_id: str) -> None:
        pass

    @hookimpl
    def read(self, run_id: str) -> list[MetricEntry]:
        return []
