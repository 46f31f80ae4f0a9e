"""Blobs come back as they were written."""

from __future__ import annotations

import gzip
import io
import zlib
from collections.abc import Callable
from typing import Any

from ...ports import BlobStore
from ..conformance import Reopen, since, unless_synthetic
from .fixtures import BlobStoreFixtures, holds


class Contents(BlobStoreFixtures):
    """What goes in comes out."""

    def test_what_was_written_is_read(self, blob_store: BlobStore, folder: str) -> None:
        """`read` returns the bytes that `write` was given, all 256 of them, in order.

        Usually broken by a text mode, which changes line ends and refuses what is not UTF-8.
        """
        content = bytes(range(256)) * 5 + b"\r\n\n\r\0"
        blob_store.write(f"{folder}/blob", content)
        assert blob_store.read(f"{folder}/blob") == content

    def test_what_was_written_is_stored(
        self,
        blob_store: BlobStore,
        folder: str,
        stored: Callable[[str], bytes | None] | None,
    ) -> None:
        """When `write` returns, the backend has the blob under its path, and nothing else.

        Usually broken by a write that is still in a buffer, or under a temporary name.
        """
        look_up = self.given(stored, "stored")
        blob_store.write(f"{folder}/blob", b"content")
        assert look_up(f"{folder}/blob") == b"content"

    @unless_synthetic
    def test_another_process_reads_it(
        self,
        blob_store: BlobStore,
        folder: str,
        reopen: Reopen[BlobStore] | None,
    ) -> None:
        """A blob is there at once for any process that opens the store under the same options.

        Usually broken by a cache of listings, which shows an earlier state.
        """
        with self.given(reopen, "reopen")() as other:
            assert not other.exists(f"{folder}/blob")
            blob_store.write(f"{folder}/blob", b"first")
            assert other.exists(f"{folder}/blob")
            assert other.read(f"{folder}/blob") == b"first"
            blob_store.write(f"{folder}/blob", b"second")
            assert other.read(f"{folder}/blob") == b"second"

    def test_an_empty_blob_is_a_blob(self, blob_store: BlobStore, folder: str) -> None:
        """A blob of no bytes exists, and reads, streams and lists as one.

        Usually broken by `if content:`, and by object stores that take an empty object for a
        folder.
        """
        blob_store.write(f"{folder}/empty", b"")
        assert blob_store.exists(f"{folder}/empty")
        assert blob_store.read(f"{folder}/empty") == b""
        assert b"".join(blob_store.stream(f"{folder}/empty")) == b""

    def test_any_name_works(self, blob_store: BlobStore, folder: str) -> None:
        """Spaces, dots, Unicode and everything that means something to a URL, a shell or a glob
        are letters of a name like any other; two names are two blobs.

        Usually broken by a name that goes into a URL, a pattern or a query unquoted.
        """
        for name in self.names:
            blob_store.write(f"{folder}/{name}", name.encode())
        for name in self.names:
            assert blob_store.exists(f"{folder}/{name}"), name
            assert blob_store.read(f"{folder}/{name}") == name.encode(), name

    def test_names_that_differ_in_case_are_two_blobs(
        self, blob_store: BlobStore, folder: str
    ) -> None:
        """`Name` and `name` are two blobs.

        Usually broken by a file system that folds the case, as those of macOS and Windows do.
        """
        blob_store.write(f"{folder}/name", b"small")
        assert not blob_store.exists(f"{folder}/Name")
        blob_store.write(f"{folder}/Name", b"capital")
        assert blob_store.read(f"{folder}/name") == b"small"

    def test_a_write_replaces(self, blob_store: BlobStore, folder: str) -> None:
        """Writing again replaces the whole content, even by a shorter one.

        Usually broken by opening a file without truncating it.
        """
        blob_store.write(f"{folder}/blob", b"long content")
        blob_store.write(f"{folder}/blob", b"short")
        assert blob_store.read(f"{folder}/blob") == b"short"

    @since("1.5")
    def test_no_content_and_no_suffix_means_anything(
        self, blob_store: BlobStore, folder: str
    ) -> None:
        """What looks compressed, encoded, or like text of some kind is stored and read as it is,
        under a name that says so, or says another thing.

        Usually broken by a client that unpacks what is served as gzip, or guesses a type from the
        suffix: `read`, `stream` and `read_range` then return different bytes.
        """
        contents = {
            "gzip": gzip.compress(b"text " * 100, mtime=0),
            "deflated": zlib.compress(b"text " * 100),
            "marked": b"\xef\xbb\xbftext",
            "quoted": b"%20%2F+&amp;=3D\\n",
            "json": b'{"a": 1}\n',
            "base64": b"dGV4dA==",
        }
        for kind, content in contents.items():
            for suffix in ("", ".gz", ".zst", ".json", ".txt"):
                path = f"{folder}/{kind}{suffix}"
                blob_store.write(path, content)
                holds(blob_store, path, content)
                if blob_store.supports("read_range"):
                    assert blob_store.read_range(path, 0, 3) == content[:3]

    @since("1.5")
    def test_a_write_of_the_same_size_replaces(self, blob_store: BlobStore, folder: str) -> None:
        """Writing other bytes of the same number replaces the old ones, at once, however often.

        Usually broken by saving the transfer of what looks the same, by its size and its time:
        the state of a run that counts its steps is then that of the first.
        """
        for number in range(10, 30):
            content = f"step {number}".encode()
            blob_store.write(f"{folder}/state", content if number % 2 else iter([content]))
            assert blob_store.read(f"{folder}/state") == content
            assert b"".join(blob_store.stream(f"{folder}/state", 3)) == content

    def test_any_source_of_bytes_can_be_written(self, blob_store: BlobStore, folder: str) -> None:
        """`data` may be bytes, an iterable of bytes (empty pieces too), or an open binary file.

        Usually broken by a file that is iterated by lines, or an iterator that is read twice
        because a first attempt failed.
        """
        content = b"a\nb\r\n" * 70_000
        pieces = [content[:1], b"", content[1:300_000], content[300_000:]]
        sources: dict[str, Any] = {
            "bytes": content,
            "list": pieces,
            "generator": (piece for piece in pieces),
            "file": io.BytesIO(content),
            "nothing": iter(()),
        }
        for kind, data in sources.items():
            blob_store.write(f"{folder}/{kind}", data)
        for kind in sources:
            expected = b"" if kind == "nothing" else content
            assert blob_store.read(f"{folder}/{kind}") == expected, kind
