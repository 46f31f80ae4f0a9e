"""Taking and skipping rows."""

from __future__ import annotations

from typing import Any

import pytest

from ...errors import InvalidInput
from ...ports import DatasetStore
from ..refusal import refuses
from .fixtures import DatasetStoreFixtures
from .rows import read, reading


class Positions(DatasetStoreFixtures):
    """`take` and `skip`."""

    @pytest.mark.parametrize("buffer_size", [None, 7], ids="buffer_size={}".format)
    def test_skip_goes_on_exactly_where_reading_a_shuffle_stopped(
        self, dataset_store: DatasetStore, handle: Any, buffer_size: int | None
    ) -> None:
        """The first n rows of a shuffle and `skip(shuffled, n)` are the shuffle, at every n:
        a run that is resumed after n rows sees each of the rest once.

        Usually broken by the state of a shuffled stream, which forgets what is in the buffer (of
        200 rows, with a buffer of 20, stopped at 50: 12 lost, 2 twice), or by skipping before
        shuffling.
        """
        shuffled = dataset_store.shuffle(handle, 9, buffer_size)
        order = read(dataset_store, shuffled)
        count = len(order)
        for position in (0, 1, 6, 7, 8, count // 3, count // 2, count - 1, count):
            head = read(dataset_store, dataset_store.take(shuffled, position))
            rest = read(dataset_store, dataset_store.skip(shuffled, position))
            assert (position, head) == (position, order[:position])
            assert (position, rest) == (position, order[position:])

    def test_take_and_skip_past_the_end_clamp(
        self, dataset_store: DatasetStore, handle: Any, stored: list[str]
    ) -> None:
        """Taking more rows than there are takes all, skipping more leaves none, and doing so
        with none is fine.

        Usually broken by a backend's `select(range(count))`, which raises.
        """
        store = dataset_store
        for past in (len(stored), len(stored) + 1, 10 * len(stored), 2**31):
            assert read(store, store.take(handle, past)) == stored
            empty = store.skip(handle, past)
            assert read(store, empty) == []
            assert read(store, store.take(empty, 3)) == []
            assert read(store, store.skip(empty, 3)) == []
            assert read(store, store.shuffle(empty, 1)) == []
            few = store.take(store.skip(handle, len(stored) - 2), past)
            assert read(store, few) == stored[-2:]

    def test_take_and_skip_of_no_rows(
        self, dataset_store: DatasetStore, handle: Any, stored: list[str]
    ) -> None:
        """`take(handle, 0)` has no rows, and `skip(handle, 0)` all of them.

        Usually broken by `if count:`, or `rows[-count:]`.
        """
        assert read(dataset_store, dataset_store.take(handle, 0)) == []
        assert read(dataset_store, dataset_store.skip(handle, 0)) == stored

    @pytest.mark.parametrize("count", [-1, -5])
    def test_a_negative_number_of_rows_is_refused(
        self, dataset_store: DatasetStore, handle: Any, count: int
    ) -> None:
        """`take` and `skip` of a negative number are `InvalidInput`.

        Usually broken by a slice, which counts from the end.
        """
        for operation in (dataset_store.take, dataset_store.skip):
            refuses(InvalidInput, reading(dataset_store, operation), handle, count)
