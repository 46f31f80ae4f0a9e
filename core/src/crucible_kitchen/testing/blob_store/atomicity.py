"""Writes of blobs are all or nothing."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from ...errors import AdapterError, Unavailable
from ...ports import BlobStore
from ..conformance import needs, since
from ..refusal import refuses
from .fixtures import MIB, BlobStoreFixtures, holds


class Atomicity(BlobStoreFixtures):
    """A write is all or nothing, to every observer."""

    @pytest.mark.parametrize("pieces", [0, 1, 40], ids="after {} pieces".format)
    @pytest.mark.parametrize("old", [None, b"old content"], ids=["new", "replacing"])
    def test_a_write_that_fails_leaves_what_was_there(
        self, blob_store: BlobStore, folder: str, old: bytes | None, pieces: int
    ) -> None:
        """When the data's own iterator raises, the old blob stays, or there is still none; the
        iterator's error is the cause of the one that is raised.

        Usually broken by `with fs.open(path, "wb")`, which publishes what was written so far when
        its body raises (fsspec, on disk and on S3). A truncated checkpoint is found weeks later.
        """
        if old is not None:
            blob_store.write(f"{folder}/blob", old)

        def failing() -> Iterator[bytes]:
            for _ in range(pieces):
                yield b"x" * (MIB // 4)
            raise ValueError("the source of the data failed")

        failure = refuses(AdapterError, blob_store.write, f"{folder}/blob", failing())
        assert "the source of the data failed" in str(_root_cause(failure))
        holds(blob_store, f"{folder}/blob", old)
        if blob_store.supports("list"):
            listed = [] if old is None else [f"{folder}/blob"]
            assert blob_store.list(f"{folder}/") == listed

    def test_what_is_no_bytes_is_refused(self, blob_store: BlobStore, folder: str) -> None:
        """Text, or a piece of text behind pieces of bytes, is an error, and nothing is stored.

        Usually broken by an implicit encoding, or by finding out after a part was written.
        """
        blob_store.write(f"{folder}/blob", b"old")
        wrong: list[Any] = ["text", [b"bytes", "text"], [b"bytes", 3], 3, None]
        for data in wrong:
            refuses(AdapterError, blob_store.write, f"{folder}/blob", data)
            refuses(AdapterError, blob_store.write, f"{folder}/new", data)
            assert blob_store.read(f"{folder}/blob") == b"old", data
            assert not blob_store.exists(f"{folder}/new"), data

    def test_a_blob_that_is_being_written_is_not_seen(
        self, blob_store: BlobStore, folder: str
    ) -> None:
        """Until a write ends, every reader sees the old blob, or none; a listing shows neither the
        new one nor a temporary one.

        Usually broken by writing in place.
        """
        path = f"{folder}/blob"

        def watched(old: bytes | None) -> Iterator[bytes]:
            for _ in range(3):
                holds(blob_store, path, old)
                if blob_store.supports("list"):
                    assert blob_store.list(f"{folder}/") == ([] if old is None else [path])
                yield b"x" * 100_000

        blob_store.write(path, watched(None))
        assert blob_store.read(path) == b"x" * 300_000
        blob_store.write(path, b"old")
        blob_store.write(path, watched(b"old"))
        assert blob_store.read(path) == b"x" * 300_000

    @since("1.5")
    @needs("list")
    @pytest.mark.parametrize("mib", [1, 24], ids="{} MiB".format)
    def test_a_listing_never_has_a_temporary_name(
        self, blob_store: BlobStore, folder: str, mib: int
    ) -> None:
        """While a blob is being written, a small one or a large one, the whole store lists nothing
        that was not there, and afterwards only the blob; so it is when the write fails.

        Usually broken by a temporary file at the root, or by a buffer that goes to a file with a
        name, or to a second object, once it is full.
        """
        before = set(blob_store.list())

        def mine() -> set[str]:
            # Others may be writing as well, below folders of their own.
            new = {path.partition("/")[0] for path in {*blob_store.list()} - before}
            return {name for name in new if name == folder or not name.startswith("conformance-")}

        def watched(failing: bool) -> Iterator[bytes]:
            for number in range(mib):
                if number % 8 == 0 or number == mib - 1:
                    assert mine() == set()
                yield bytes(MIB)
            if failing:
                raise ValueError("the source of the data failed")

        error = refuses(AdapterError, blob_store.write, f"{folder}/large", watched(failing=True))
        assert "the source of the data failed" in str(_root_cause(error))
        assert mine() == set()
        blob_store.write(f"{folder}/large", watched(failing=False))
        assert mine() == {folder}
        assert blob_store.list(f"{folder}/") == [f"{folder}/large"]

    def test_readers_and_writers_at_once_see_whole_blobs(
        self, blob_store: BlobStore, folder: str
    ) -> None:
        """Two writers at once leave the content of one; a reader sees one content or another,
        whole, and never nothing once there was something. A stream of a blob that is replaced
        meanwhile may end in `Unavailable`, where the backend keeps no older version.

        Usually broken by a temporary file with a fixed name, or by delete and rename.
        """
        path = f"{folder}/blob"
        contents = [bytes([number]) * (100_000 + number) for number in range(6)]
        blob_store.write(path, contents[0])
        done = threading.Event()

        def write(content: bytes) -> None:
            for _ in range(8):
                blob_store.write(path, iter([content[:50_000], content[50_000:]]))

        def read() -> set[bytes]:
            seen = set()
            while not done.is_set():
                seen.add(blob_store.read(path))
                with contextlib.suppress(Unavailable):
                    seen.add(b"".join(blob_store.stream(path, chunk_size=30_000)))
            return seen

        with ThreadPoolExecutor(8) as pool:
            readers = [pool.submit(read) for _ in range(2)]
            writers = [pool.submit(write, content) for content in contents]
            try:
                for writer in writers:
                    writer.result()
            finally:
                done.set()
            seen = {content for reader in readers for content in reader.result()}
        assert seen <= set(contents)
        assert blob_store.read(path) in contents

    @since("1.5")
    @needs("delete")
    def test_writers_and_deleters_of_one_folder_do_not_disturb_each_other(
        self, blob_store: BlobStore, folder: str
    ) -> None:
        """A blob is written although, at the same moment, the last other one of its folder is
        deleted.

        Usually broken by a deletion that removes the folder it has emptied, between the writer's
        making it and using it.
        """

        def write_and_delete(number: int) -> None:
            path = f"{folder}/sub/deeper/{number}"
            for turn in range(12):
                blob_store.write(path, f"{number} {turn}".encode())
                assert blob_store.read(path) == f"{number} {turn}".encode()
                blob_store.delete(path)
                assert blob_store.exists(path) is False

        with ThreadPoolExecutor(8) as pool:
            list(pool.map(write_and_delete, range(8)))

    def test_many_threads_write_many_blobs(self, blob_store: BlobStore, folder: str) -> None:
        """Blobs of other paths are not disturbed, not even in folders created at the same moment.

        Usually broken by a client that is not safe under threads, or a race in making folders.
        """

        def write_and_read(number: int) -> None:
            path = f"{folder}/{number % 4}/{number}"
            blob_store.write(path, str(number).encode())
            assert blob_store.read(path) == str(number).encode()

        with ThreadPoolExecutor(8) as pool:
            list(pool.map(write_and_read, range(64)))
        for number in range(64):
            assert blob_store.read(f"{folder}/{number % 4}/{number}") == str(number).encode()


def _root_cause(error: BaseException) -> BaseException:
    while (cause := error.__cause__) is not None:
        error = cause
    return error
