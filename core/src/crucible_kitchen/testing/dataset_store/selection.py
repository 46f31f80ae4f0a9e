"""Selecting rows by index."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from ...errors import InvalidInput
from ...ports import DatasetStore
from ..refusal import refuses
from .fixtures import DatasetStoreFixtures, select_rows
from .rows import read, reading


class Selection(DatasetStoreFixtures):
    """`select`."""

    def test_select_keeps_the_order_given_and_repeats(
        self, dataset_store: DatasetStore, handle: Any, streaming: bool, stored: list[str]
    ) -> None:
        """`select` returns a row for each index, in the order given, twice where an index is
        given twice; a range with any step, and no index at all, are fine.

        Usually broken by a set or a mask of indices, and by `if not selection`.
        """
        last = len(stored) - 1
        selections: list[range | Sequence[int]] = [
            [5, 3, 4],
            [7, 7, 0, 7],
            (last, 0),
            [],
            range(0),
            range(2, 9),
            range(0, len(stored), 3),
            range(last, -1, -1),
            list(range(len(stored))) * 2,
        ]
        for selection in selections:
            found = read(dataset_store, select_rows(dataset_store, handle, selection, streaming))
            assert (selection, found) == (selection, [stored[index] for index in selection])

    def test_select_counts_the_rows_of_its_handle(
        self, dataset_store: DatasetStore, handle: Any, streaming: bool
    ) -> None:
        """An index counts the rows of the handle that is given, in its order, not those of the
        data set that it was made from.

        Usually broken by looking the index up in the stored rows.
        """
        store = dataset_store
        for start in (store.shuffle(handle, 2), store.skip(store.shuffle(handle, 2), 6)):
            order = read(store, start)
            found = read(store, select_rows(store, start, [4, 0, 2], streaming))
            assert found == [order[4], order[0], order[2]]
            twice = store.select(store.select(start, [4, 0, 2]), [2, 0])
            assert read(store, twice) == [order[2], order[4]]

    def test_an_index_out_of_range_is_refused(
        self, dataset_store: DatasetStore, handle: Any, streaming: bool, stored: list[str]
    ) -> None:
        """An index that is negative, or not below the number of the handle's own rows, is
        `InvalidInput`: at the call, or when a handle that streams is read.

        Usually broken by Python's indices, which count from the end when negative, and by
        checking against the rows that are stored.
        """
        store, count = dataset_store, len(stored)
        few = store.take(handle, 5)
        wrong: list[tuple[Any, range | Sequence[int]]] = [
            (handle, [count]),
            (handle, [-1]),
            (handle, [0, 10 * count]),
            (handle, range(count - 2, count + 1)),
            (handle, range(2, -2, -1)),
            (few, [5]),
            (few, [0, -5]),
            (store.skip(handle, count), [0]),
        ]
        select_rows(store, few, [0], streaming)
        for start, selection in wrong:
            refuses(InvalidInput, reading(store, store.select), start, selection)

    @pytest.mark.parametrize("selection", [[1.5], ["1"], [[1]], [None]], ids=repr)
    def test_an_index_that_is_no_integer_is_refused(
        self, dataset_store: DatasetStore, handle: Any, streaming: bool, selection: Any
    ) -> None:
        """Anything but integers is `InvalidInput`.

        Usually broken by an array, which rounds what it is given, or takes a list of lists.
        """
        select_rows(dataset_store, handle, [0], streaming)
        refuses(InvalidInput, reading(dataset_store, dataset_store.select), handle, selection)
