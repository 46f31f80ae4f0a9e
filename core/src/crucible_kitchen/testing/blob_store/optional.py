"""The optional callbacks of a blob store."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from ...errors import InvalidInput, NotFound
from ...ports import BlobStore
from ..conformance import needs, since
from .fixtures import MIB, BlobStoreFixtures


class OptionalCallbacks(BlobStoreFixtures):
    """Deleting, listing, cleaning and ranges."""

    @needs("delete")
    def test_what_is_deleted_is_gone(self, blob_store: BlobStore, folder: str) -> None:
        """After `delete` the blob is gone; its neighbours stay; deleting a missing blob is fine.

        Usually broken by a backend that calls a repeated deletion an error, so that a deletion
        whose answer was lost cannot be repeated.
        """
        blob_store.write(f"{folder}/blob", b"content")
        blob_store.write(f"{folder}/blob2", b"neighbour")
        blob_store.delete(f"{folder}/blob")
        assert not blob_store.exists(f"{folder}/blob")
        with pytest.raises(NotFound):
            blob_store.read(f"{folder}/blob")
        blob_store.delete(f"{folder}/blob")
        blob_store.delete(f"{folder}/never/there")
        assert blob_store.read(f"{folder}/blob2") == b"neighbour"

    @needs("list")
    def test_a_listing_has_every_blob_below_a_prefix(
        self, blob_store: BlobStore, folder: str
    ) -> None:
        """`list` returns, sorted, the paths that start with the prefix, however deep; the prefix
        need not end where a folder does; folders are not listed.

        Usually broken by a listing that stops at one level, or takes a prefix for a pattern.
        """
        paths = sorted(f"{folder}/{name}" for name in (*self.names, "sub/other", "sub2/x"))
        for path in paths:
            blob_store.write(path, b"content")
        assert blob_store.list(f"{folder}/") == paths
        for prefix in ("sub", "sub/", "sub/folder/na", "with sp", "[br", "missing"):
            expected = [path for path in paths if path.startswith(f"{folder}/{prefix}")]
            assert blob_store.list(f"{folder}/{prefix}") == expected, prefix
        assert set(paths) <= set(blob_store.list())

    @needs("list")
    def test_a_listing_has_more_than_one_page(self, blob_store: BlobStore, folder: str) -> None:
        """All of many blobs are listed.

        Usually broken by a backend that answers in pages of 1,000, and an adapter that takes the
        first for all.
        """
        paths = sorted(f"{folder}/{number}" for number in range(self.more_than_a_page))
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda path: blob_store.write(path, b""), paths))
        assert blob_store.list(f"{folder}/") == paths

    @since("1.2")
    @needs("clean")
    def test_cleaning_leaves_every_blob(self, blob_store: BlobStore, folder: str) -> None:
        """`clean` removes no blob, whatever its name and the prefix.

        Usually broken by a blob that is named as the store's own temporary files are.
        """
        names = (*self.names, "a.tmp", ".a.partial", "a~", ".crucible-a.tmp")
        for name in names:
            blob_store.write(f"{folder}/{name}", b"content")
        for prefix in ("", f"{folder}/"):
            would = blob_store.clean(prefix, dry_run=True)
            assert all(isinstance(name, str) for name in would)
            blob_store.clean(prefix)
            for name in names:
                assert blob_store.read(f"{folder}/{name}") == b"content", name

    @since("1.2")
    @needs("clean")
    def test_cleaning_spares_what_is_being_written(
        self, blob_store: BlobStore, folder: str
    ) -> None:
        """Without a prefix, `clean` removes nothing that is being written at the moment.

        Usually broken by taking every temporary file for a dead process's.
        """

        def pieces() -> Iterator[bytes]:
            yield b"x" * MIB
            blob_store.clean()
            yield b"y"

        blob_store.write(f"{folder}/blob", pieces())
        assert blob_store.read(f"{folder}/blob") == b"x" * MIB + b"y"

    @needs("read_range")
    def test_a_range_is_what_a_slice_is(self, blob_store: BlobStore, folder: str) -> None:
        """`read_range(path, start, end)` is `read(path)[start:end]`, clamped like it.

        Usually broken by HTTP ranges, whose end is inclusive, and which are errors when empty or
        past the end.
        """
        content = bytes(range(256))
        blob_store.write(f"{folder}/blob", content)
        bounds = [0, 1, 100, 255, 256, 257, 10_000]
        for start in bounds:
            for end in [None, *bounds]:
                found = blob_store.read_range(f"{folder}/blob", start, end)
                assert found == content[start:end], (start, end)

    @needs("read_range")
    def test_a_range_that_is_none_is_refused(self, blob_store: BlobStore, folder: str) -> None:
        """A negative bound is `InvalidInput`, a missing blob `NotFound`.

        Usually broken by a bound that means "from the end" to the backend.
        """
        blob_store.write(f"{folder}/blob", b"content")
        for start, end in ((-1, None), (0, -1), (-3, -1)):
            with pytest.raises(InvalidInput):
                blob_store.read_range(f"{folder}/blob", start, end)
        with pytest.raises(NotFound):
            blob_store.read_range(f"{folder}/missing", 0, 1)
