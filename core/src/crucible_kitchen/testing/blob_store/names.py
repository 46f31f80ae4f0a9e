"""One name for each blob, and every name it may have."""

from __future__ import annotations

import pytest

from ...errors import InvalidInput
from ...ports import BlobStore
from ..conformance import since
from .fixtures import BlobStoreFixtures, holds, refuses_everywhere

LONGEST = 255
"""Bytes that a part of a path may have, as on any file system."""


class Names(BlobStoreFixtures):
    """Spellings, long names, names below names."""

    @since("1.5")
    @pytest.mark.parametrize("spelling", ["sub//blob", "sub/./blob", "./sub/blob", "sub/blob/"])
    def test_a_second_spelling_of_a_path_is_refused(
        self, blob_store: BlobStore, folder: str, spelling: str
    ) -> None:
        """No blob has two names: an empty part, a `.` and a `/` at the end are `InvalidInput`, in
        every callback.

        Usually broken by passing the path on: on disk `a//b` is `a/b`, in an object store it is
        another object, and a run that moves from one to the other does not find its blobs.
        """
        blob_store.write(f"{folder}/sub/blob", b"content")
        refuses_everywhere(blob_store, f"{folder}/{spelling}")
        assert blob_store.read(f"{folder}/sub/blob") == b"content"
        if blob_store.supports("list"):
            assert blob_store.list(f"{folder}/") == [f"{folder}/sub/blob"]

    @since("1.5")
    @pytest.mark.parametrize("inner_first", [False, True], ids=["below a blob", "above a blob"])
    def test_a_name_below_a_blob_is_stored_or_refused(
        self, blob_store: BlobStore, folder: str, inner_first: bool
    ) -> None:
        """Where `a` is a blob, `a/b` is not found; writing it makes a second blob, or is
        `InvalidInput` where the backend has folders, and then changes nothing. So it is with `a`
        where `a/b` is a blob.

        Usually broken by the file system's own error, or by making room.
        """
        first, second = f"{folder}/a", f"{folder}/a/b"
        if inner_first:
            first, second = second, first
        blob_store.write(first, b"first")
        holds(blob_store, first, b"first")
        holds(blob_store, second, None)
        if blob_store.supports("delete"):
            blob_store.delete(second)
        written = [first]
        try:
            blob_store.write(second, b"second")
        except InvalidInput:
            holds(blob_store, second, None)
        else:
            written.append(second)
            holds(blob_store, second, b"second")
        holds(blob_store, first, b"first")
        if blob_store.supports("list"):
            assert blob_store.list(f"{folder}/") == sorted(written)

    @since("1.5")
    def test_two_spellings_of_a_letter_are_two_names(
        self, blob_store: BlobStore, folder: str
    ) -> None:
        """Names are compared character by character: a letter with an accent, and the letter with
        the accent behind it, are two names; so are names that differ in a space at an end.

        Usually broken by normalising Unicode, as file systems of macOS do, and by `strip`: what
        was written cannot be found in the listing by its name.
        """
        names = ("\u00e9", "e\u0301", "\ufb01", "fi", "a", " a", "a ", "a\u200b", "A", "\uff21")
        for name in names:
            blob_store.write(f"{folder}/{name}", ascii(name).encode())
        for name in names:
            assert blob_store.read(f"{folder}/{name}") == ascii(name).encode(), ascii(name)
        if blob_store.supports("list"):
            assert blob_store.list(f"{folder}/") == sorted(f"{folder}/{name}" for name in names)

    @since("1.5")
    def test_a_name_may_be_as_long_as_a_file_system_allows(
        self, blob_store: BlobStore, folder: str
    ) -> None:
        """A part of a path may have 255 bytes in UTF-8.

        Usually broken by a temporary name that is longer than the name itself.
        """
        for name in ("x" * LONGEST, "é" * (LONGEST // 2), f"sub/{'y' * LONGEST}"):
            blob_store.write(f"{folder}/{name}", iter([b"long ", b"name"]))
            holds(blob_store, f"{folder}/{name}", b"long name")

    @since("1.5")
    @pytest.mark.parametrize("name", ["nul\0nul", "surrogate\ud800"], ids=ascii)
    def test_a_name_that_is_no_text_is_stored_or_refused(
        self, blob_store: BlobStore, folder: str, name: str
    ) -> None:
        """A path with a NUL, or with half of a surrogate pair, is `InvalidInput`, or a name like
        any other; in every callback the same.

        Usually broken by a `ValueError` of the operating system.
        """
        path = f"{folder}/{name}"
        try:
            blob_store.write(path, b"content")
        except InvalidInput:
            refuses_everywhere(blob_store, path)
        else:
            holds(blob_store, path, b"content")
