"""What a write takes its data from."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, BinaryIO, cast

from ...ports import BlobStore
from ..conformance import since
from .fixtures import MIB, BlobStoreFixtures

PATIENCE = 60.0
"""Seconds that a copy within the store may take."""


MOST = 1 << 16
"""Bytes that a pipe returns at a time, at most."""


class _Pipe(io.RawIOBase):
    """A file that cannot seek, and returns fewer bytes than it is asked for."""

    def __init__(self, content: bytes) -> None:
        self._file = io.BytesIO(content)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        return self._file.readinto(memoryview(buffer)[:MOST])


class Sources(BlobStoreFixtures):
    """Files, iterators, and the store itself."""

    @since("1.5")
    def test_a_file_is_read_from_where_it_is_and_stays_open(
        self, blob_store: BlobStore, folder: str, tmp_path: Path
    ) -> None:
        """An open file is stored from its position to its end, and is the caller's: it is not
        rewound, and not closed.

        Usually broken by `with data:`, or `data.seek(0)` in case it had been read.
        """
        content = b"a header\n" + bytes(range(256)) * 10_000
        (tmp_path / "source").write_bytes(content)
        with (tmp_path / "source").open("rb") as file:
            header = file.readline()
            blob_store.write(f"{folder}/rest", file)
            assert not file.closed, "the file of the caller was closed"
            assert blob_store.read(f"{folder}/rest") == content[len(header) :]
            blob_store.write(f"{folder}/nothing", file)
            assert blob_store.read(f"{folder}/nothing") == b""

    @since("1.5")
    def test_a_file_need_not_seek_nor_return_all_at_once(
        self, blob_store: BlobStore, folder: str
    ) -> None:
        """A pipe, a socket or a response of a server is written whole, though it cannot seek, and
        returns fewer bytes than it is asked for before its end.

        Usually broken by one `read`, and by asking a file for its size.
        """
        content = bytes(range(251)) * 20_000
        blob_store.write(f"{folder}/blob", cast(BinaryIO, _Pipe(content)))
        assert blob_store.read(f"{folder}/blob") == content

    @since("1.5")
    def test_the_source_may_be_the_store_itself(self, blob_store: BlobStore, folder: str) -> None:
        """The data may come from the same store while it is written: a blob is copied, joined of
        others, or rewritten from its own old content, without reading it whole.

        Usually broken by a lock that is held while the source is read, or by a blob that is
        truncated before its old content was read.
        """
        content = bytes(range(256)) * 2000
        for name in ("a", "b"):
            blob_store.write(f"{folder}/{name}", content)

        def changed(path: str) -> Iterator[bytes]:
            for piece in blob_store.stream(path, chunk_size=MIB // 8):
                assert blob_store.read(f"{folder}/b") == content
                yield piece.upper()

        def copy() -> None:
            blob_store.write(f"{folder}/copy", blob_store.stream(f"{folder}/a", 1000))
            blob_store.write(f"{folder}/a", changed(f"{folder}/a"))

        _within(PATIENCE, copy)
        assert blob_store.read(f"{folder}/copy") == content
        assert blob_store.read(f"{folder}/a") == content.upper()


def _within(seconds: float, call: Callable[[], None]) -> None:
    """Call something that may wait for ever for itself."""
    pool = ThreadPoolExecutor(1)
    try:
        pool.submit(call).result(seconds)
    finally:
        pool.shutdown(wait=False)
