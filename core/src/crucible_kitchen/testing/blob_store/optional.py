"""The optional callbacks of a blob store."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

from ...errors import InvalidInput, NotFound
from ...ports import BlobStore
from ..conformance import needs, since
from ..refusal import refuses
from .fixtures import MIB, BlobStoreFixtures, holds


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
        refuses(NotFound, blob_store.read, f"{folder}/blob")
        blob_store.delete(f"{folder}/blob")
        blob_store.delete(f"{folder}/never/there")
        assert blob_store.read(f"{folder}/blob2") == b"neighbour"

    @since("1.5")
    @needs("delete")
    def test_deleting_a_folder_deletes_nothing(self, blob_store: BlobStore, folder: str) -> None:
        """Where no blob has the path, nothing is deleted, even if it is the folder of blobs or
        the beginning of a name; deleting it is fine, like deleting what does not exist.

        Usually broken by `rm -r`: one run id too short, and the checkpoints of every run are gone.
        """
        kept = [f"{folder}/run/1/a", f"{folder}/run/1/b", f"{folder}/run/10"]
        for path in kept:
            blob_store.write(path, path.encode())
        for path in (folder, f"{folder}/run", f"{folder}/run/1"):
            blob_store.delete(path)
            assert blob_store.exists(path) is False
            for other in kept:
                assert blob_store.read(other) == other.encode(), path

    @since("1.5")
    @needs("delete")
    def test_what_was_looked_at_and_deleted_is_gone(
        self, blob_store: BlobStore, folder: str
    ) -> None:
        """A blob that was read, listed and found to exist is gone after `delete`, in each of them,
        and there again after the next `write`.

        Usually broken by a cache of what exists, which only writes refresh.
        """
        path = f"{folder}/sub/blob"
        for content in (b"first", b"again"):
            blob_store.write(path, content)
            holds(blob_store, path, content)
            if blob_store.supports("list"):
                assert blob_store.list(f"{folder}/") == [path]
            blob_store.delete(path)
            holds(blob_store, path, None)
            if blob_store.supports("list"):
                assert blob_store.list(f"{folder}/") == []

    @since("1.5")
    @needs("list")
    def test_a_listing_is_in_the_order_of_the_whole_paths(
        self, blob_store: BlobStore, folder: str
    ) -> None:
        """`list` is sorted as Python sorts texts: `a.b` is before `a/b`, capitals are before small
        letters, and `10` is before `9`.

        Usually broken by sorting folder by folder, by a locale, or by the bytes of UTF-16.
        """
        names = ["a", "a.b/c", "ab/c", "a b", "B", "b", "_", "é", "z", "9", "10"]
        names += ["d/e", "d.e", "d-e/f", "\uffee", "🙂"]
        paths = [f"{folder}/{name}" for name in names]
        for path in paths:
            blob_store.write(path, b"")
        assert blob_store.list(f"{folder}/") == sorted(paths)

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
            refuses(InvalidInput, blob_store.read_range, f"{folder}/blob", start, end)
        refuses(NotFound, blob_store.read_range, f"{folder}/missing", 0, 1)
