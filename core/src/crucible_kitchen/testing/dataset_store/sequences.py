"""Any part of any shuffle, any sequence of operations."""

from __future__ import annotations

import functools
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from ...ports import DatasetStore
from .fixtures import DatasetStoreFixtures
from .machine import ListMachine
from .rows import read, texts


class Sequences(DatasetStoreFixtures):
    """Any operations, in any order."""

    def test_any_part_of_any_shuffle_is_the_same_part_of_its_rows(
        self, dataset_store: DatasetStore, handle: Any, stored: list[str]
    ) -> None:
        """For any seed, buffer, position and length, skipping and taking, in either order, gives
        the slice of the whole shuffle, in `to_list` and in a stream.

        Usually broken by what happens where a position meets the edge of a buffer, of a batch, or
        the end.
        """
        store, count = dataset_store, len(stored)

        @self.hypothesis_settings()
        @given(
            seed=st.integers(0, 2**31 - 1),
            buffer_size=st.none() | st.integers(1, count + 2),
            start=st.integers(0, count + 2),
            length=st.integers(0, count + 2),
            batch_size=st.integers(1, 5) | st.integers(1, count + 2),
        )
        def check(
            seed: int, buffer_size: int | None, start: int, length: int, batch_size: int
        ) -> None:
            shuffled = store.shuffle(handle, seed, buffer_size)
            order = read(store, shuffled)
            assert sorted(order) == sorted(stored)
            expected = order[start : start + length]
            part = store.take(store.skip(shuffled, start), length)
            assert read(store, part) == expected
            assert read(store, store.skip(store.take(shuffled, start + length), start)) == expected
            if store.supports("stream"):
                batches = store.stream(part, batch_size)
                assert [text for batch in batches for text in texts(batch)] == expected

        check()

    def test_any_sequence_of_operations_does_what_lists_do(
        self, dataset_store: DatasetStore, handle: Any, streaming: bool, stored: list[str]
    ) -> None:
        """Whatever is shuffled, cut, selected and read, in whatever order and from whichever
        earlier handle, each handle is at every moment what a list would be.

        Usually broken by what one operation leaves behind for another.
        """
        machine = functools.partial(ListMachine, dataset_store, handle, streaming, stored)
        self.run_machine(machine, steps=12)
