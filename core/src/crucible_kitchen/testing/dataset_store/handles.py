"""A handle has one content, whatever is done with it."""

from __future__ import annotations

import contextlib
from typing import Any

from ...errors import Unsupported
from ...ports import DatasetStore
from .fixtures import DatasetStoreFixtures, open_dataset
from .rows import read, spoil, texts


class Handles(DatasetStoreFixtures):
    """Handles and rows are values."""

    def test_opening_again_gives_the_same_rows(
        self,
        dataset_store: DatasetStore,
        dataset_id: str,
        split: str | None,
        handle: Any,
        streaming: bool,
        stored: list[str],
    ) -> None:
        """An unchanged data set has the same rows in the same order whenever it is
        opened, and whether it streams.

        Usually broken by files that are read in the order of a folder's listing, or by threads.
        """
        assert read(dataset_store, handle) == stored
        again = open_dataset(dataset_store, dataset_id, split, streaming)
        assert read(dataset_store, again) == stored
        assert read(dataset_store, handle) == stored

    def test_rows_may_be_changed_by_whoever_gets_them(
        self, dataset_store: DatasetStore, handle: Any, stored: list[str]
    ) -> None:
        """What is done to the rows of one `to_list`, or batch, is not seen in any other, and the
        two rows of a repeated index are two.

        Usually broken by a cache of rows, or a copy that is shallow: a workflow that adds a
        field to its rows then finds it there after it has opened the data again.
        """
        derived = [handle]
        with contextlib.suppress(Unsupported):  # reported by the tests of `select`
            derived.append(dataset_store.select(handle, [0, 0]))
        for one in derived:
            before = read(dataset_store, one)
            rows = dataset_store.to_list(one)
            spoil(rows[0])
            assert texts(rows[1:]) == before[1:]
            for row in rows[1:]:
                spoil(row)
            rows.clear()
            assert read(dataset_store, one) == before
            if dataset_store.supports("stream"):
                for batch in dataset_store.stream(one, 10):
                    for row in batch:
                        spoil(row)
                    batch.clear()
                assert read(dataset_store, one) == before
        assert read(dataset_store, handle) == stored

    def test_operations_leave_the_handle_as_it_was(
        self, dataset_store: DatasetStore, handle: Any, stored: list[str]
    ) -> None:
        """Every operation returns a new handle; the old one has the rows that it had, in its
        order, and may be used further, also while the new one is.

        Usually broken by a backend whose operations change in place, or by an iterator that the
        old and the new handle share.
        """
        store = dataset_store
        shuffled = store.shuffle(handle, seed=5)
        part = store.take(store.skip(handle, 3), 12)
        for start in (handle, shuffled, part):
            before = read(store, start)
            made: list[Any] = [
                store.take(start, 4),
                store.skip(start, 4),
                store.shuffle(start, seed=1),
                store.shuffle(start, seed=2, buffer_size=3),
            ]
            with contextlib.suppress(Unsupported):  # reported by the tests of `select`
                made.append(store.select(start, [2, 1]))
            contents = [read(store, one) for one in made]
            assert contents[:2] == [before[:4], before[4:]]
            assert read(store, start) == before
            assert [read(store, one) for one in made] == contents
        assert read(store, handle) == stored
        assert read(store, part) == stored[3:15]
