"""Any sequence of calls, any content."""

from __future__ import annotations

import functools

from hypothesis import given
from hypothesis import strategies as st

from ...ports import BlobStore
from .fixtures import BlobStoreFixtures
from .machine import DictionaryMachine


class Sequences(BlobStoreFixtures):
    """Any calls, in any order."""

    def test_any_sequence_of_calls_does_what_a_dictionary_does(
        self, blob_store: BlobStore, folder: str
    ) -> None:
        """Whatever is written, replaced, deleted and listed, in whatever order, the store is at
        every moment what a dictionary of paths would be.

        Usually broken by what one operation leaves behind for another.
        """
        self.run_machine(functools.partial(DictionaryMachine, blob_store, folder), steps=12)

    def test_any_content_under_any_name_comes_back(
        self, blob_store: BlobStore, folder: str
    ) -> None:
        """Any bytes, under any name of printable Unicode, are read as they were written.

        Usually broken by normalising Unicode, or folding the case, of names.
        """

        @self.hypothesis_settings()
        @given(
            name=st.text(st.characters(exclude_categories=("C", "Z")), min_size=1, max_size=20),
            content=st.binary(max_size=2000),
        )
        def check(name: str, content: bytes) -> None:
            path = f"{folder}/_{name.replace('/', '_')}"  # `.` and `..` are not names
            blob_store.write(path, content)
            assert blob_store.read(path) == content
            assert blob_store.exists(path)

        check()
