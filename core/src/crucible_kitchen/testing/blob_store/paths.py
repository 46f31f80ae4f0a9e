"""Paths without a blob, and paths that are refused."""

from __future__ import annotations

import pytest

from ...errors import AdapterError, NotFound
from ...ports import BlobStore
from ..refusal import refuses
from .fixtures import BlobStoreFixtures, refuses_everywhere


class Paths(BlobStoreFixtures):
    """What does not exist, and what may not be."""

    def test_what_is_missing_is_not_found(self, blob_store: BlobStore, folder: str) -> None:
        """`read` and `stream` of a blob that does not exist raise `NotFound`; `exists` is False.

        Usually broken by the backend's own exception, which callers cannot know.
        """
        blob_store.write(f"{folder}/there", b"content")
        for path in (f"{folder}/missing", f"{folder}/missing/deeper", f"{folder}/ther"):
            assert blob_store.exists(path) is False
            refuses(NotFound, blob_store.read, path)
            refuses(NotFound, blob_store.stream, path)

    def test_a_folder_is_no_blob(self, blob_store: BlobStore, folder: str) -> None:
        """`exists` is False for the folder of a blob, and reading it is an error.

        Usually broken by asking the file system whether "something" is there.
        """
        blob_store.write(f"{folder}/sub/blob", b"content")
        for path in (folder, f"{folder}/sub"):
            assert blob_store.exists(path) is False
            refuses(AdapterError, blob_store.read, path)
            refuses(AdapterError, blob_store.stream, path)

    @pytest.mark.parametrize(
        "path",
        ["../outside", "sub/../../outside", "/absolute", "..", "", ".", "sub/../../../etc/passwd"],
        ids=repr,
    )
    def test_a_path_that_leaves_the_store_is_refused(
        self, blob_store: BlobStore, path: str
    ) -> None:
        """A path with `..`, an absolute path, and one that names nothing are `InvalidInput`, in
        every callback.

        Usually broken by joining paths and trusting the result: a run id from the network then
        reads and writes any file.
        """
        refuses_everywhere(blob_store, path)
