"""Threads that share a handle."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

from ...ports import DatasetStore
from .fixtures import DatasetStoreFixtures
from .rows import read, texts


class Threads(DatasetStoreFixtures):
    """Many readers."""

    def test_many_threads_read_one_handle(
        self, dataset_store: DatasetStore, handle: Any, stored: list[str]
    ) -> None:
        """Threads that read one handle, and make others of it, each find what one alone finds.

        Usually broken by a reader with one position for all.
        """
        store = dataset_store
        shuffled = store.shuffle(handle, 7, buffer_size=11)
        order = read(store, shuffled)

        def look(number: int) -> None:
            assert read(store, handle) == stored
            assert read(store, store.skip(shuffled, number)) == order[number:]
            assert read(store, store.shuffle(handle, 7, buffer_size=11)) == order
            if store.supports("stream"):
                batches = store.stream(shuffled, number + 1)
                assert [text for batch in batches for text in texts(batch)] == order

        with ThreadPoolExecutor(8) as pool:
            list(pool.map(look, range(24)))
