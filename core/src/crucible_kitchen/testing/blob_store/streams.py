"""Streams of blobs."""

from __future__ import annotations

import pytest

from ...errors import InvalidInput
from ...ports import BlobStore
from ..refusal import refuses
from .fixtures import MIB, BlobStoreFixtures


class Streams(BlobStoreFixtures):
    """Reading in pieces."""

    @pytest.mark.parametrize("chunk_size", [1000, MIB, 10 * MIB])
    def test_a_stream_is_the_blob_in_pieces(
        self, blob_store: BlobStore, folder: str, chunk_size: int
    ) -> None:
        """The pieces add up to the blob; none is empty, none is longer than `chunk_size`.

        Usually broken by passing on the chunks of the transport, of whatever size they are.
        """
        content = bytes(range(251)) * 5000
        blob_store.write(f"{folder}/blob", content)
        pieces = list(blob_store.stream(f"{folder}/blob", chunk_size=chunk_size))
        assert b"".join(pieces) == content
        assert max(map(len, pieces)) <= chunk_size
        assert min(map(len, pieces)) > 0

    def test_a_chunk_size_that_is_none_is_refused(self, blob_store: BlobStore, folder: str) -> None:
        """A `chunk_size` below 1 is `InvalidInput`.

        Usually broken by `read(-1)`, which is the whole file at once.
        """
        blob_store.write(f"{folder}/blob", b"content")
        for size in (0, -1):
            refuses(InvalidInput, blob_store.stream, f"{folder}/blob", chunk_size=size)

    def test_a_stream_may_be_left_early(self, blob_store: BlobStore, folder: str) -> None:
        """Closing a stream before its end frees what it holds, so it may be done often.

        Usually broken by connections that are never returned.
        """
        blob_store.write(f"{folder}/blob", b"x" * (2 * MIB))
        for _ in range(40):
            with blob_store.stream(f"{folder}/blob", chunk_size=1000) as stream:
                assert next(iter(stream)) == b"x" * 1000
        assert len(blob_store.read(f"{folder}/blob")) == 2 * MIB
