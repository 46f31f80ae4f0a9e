"""Shuffles are permutations that a seed decides."""

from __future__ import annotations

import contextlib
import itertools
from typing import Any

import pytest

from ...errors import InvalidInput, Unsupported
from ...ports import DatasetStore
from ..conformance import Reopen, since
from ..refusal import refuses
from .fixtures import DatasetStoreFixtures, open_dataset
from .rows import read, reading


class Shuffling(DatasetStoreFixtures):
    """`shuffle`."""

    @pytest.mark.parametrize("buffer_size", [None, 1, 7, 10_000], ids="buffer_size={}".format)
    def test_a_shuffle_loses_nothing_and_repeats_nothing(
        self, dataset_store: DatasetStore, handle: Any, stored: list[str], buffer_size: int | None
    ) -> None:
        """A shuffle has every row once, for each seed and each size of the buffer, from one row to
        more rows than there are.

        Usually broken by a buffer that is not emptied at the end, or draws with repetition.
        """
        for seed in (0, 1, 2, 2**31 - 1):
            shuffled = dataset_store.shuffle(handle, seed, buffer_size)
            assert sorted(read(dataset_store, shuffled)) == sorted(stored), seed

    @pytest.mark.parametrize("buffer_size", [None, 7], ids="buffer_size={}".format)
    def test_the_same_seed_gives_the_same_order(
        self,
        dataset_store: DatasetStore,
        dataset_id: str,
        split: str | None,
        streaming: bool,
        handle: Any,
        buffer_size: int | None,
    ) -> None:
        """A shuffled handle has one order whenever it is read, and another of the same seed has
        that order as well, even if the data set was opened again, or other shuffles came between.

        Usually broken by a generator that is kept in the handle and goes on at the second read,
        or by the state of the global one.
        """
        shuffled = dataset_store.shuffle(handle, 3, buffer_size)
        order = read(dataset_store, shuffled)
        assert read(dataset_store, shuffled) == order
        read(dataset_store, dataset_store.shuffle(handle, 4, buffer_size))
        again = open_dataset(dataset_store, dataset_id, split, streaming)
        for start in (handle, again):
            assert read(dataset_store, dataset_store.shuffle(start, 3, buffer_size)) == order
        assert read(dataset_store, shuffled) == order

    @pytest.mark.parametrize("buffer_size", [None, 7], ids="buffer_size={}".format)
    def test_other_seeds_give_other_orders(
        self, dataset_store: DatasetStore, handle: Any, stored: list[str], buffer_size: int | None
    ) -> None:
        """Each seed, 0 included, gives a different order, and none of them is the stored one.

        Usually broken by `seed or default`, and by a seed that does not reach the backend.
        """
        seeds = (0, 1, 2, 42, 2**31 - 1)
        orders = [
            read(dataset_store, dataset_store.shuffle(handle, seed, buffer_size)) for seed in seeds
        ]
        assert all(order != stored for order in orders)
        assert len(set(map(tuple, orders))) == len(seeds)

    @pytest.mark.parametrize("buffer_size", [None, 7], ids="buffer_size={}".format)
    def test_a_shuffle_of_a_shuffle_takes_the_rows_as_they_come(
        self, dataset_store: DatasetStore, handle: Any, stored: list[str], buffer_size: int | None
    ) -> None:
        """A shuffled handle can be shuffled like any other: the second order is made of the first.

        Usually broken by a backend that keeps one seed, the last: a fixed sample of a shuffle is
        then another one in every epoch.
        """
        store = dataset_store
        first, second = store.shuffle(handle, 1, buffer_size), store.shuffle(handle, 2, buffer_size)
        both = read(store, store.shuffle(first, 2, buffer_size))
        assert sorted(both) == sorted(stored)
        assert both not in (read(store, first), read(store, second))

    @pytest.mark.parametrize("buffer_size", [None, 7], ids="buffer_size={}".format)
    def test_the_order_depends_on_the_seed_and_the_rows_alone(
        self, dataset_store: DatasetStore, handle: Any, buffer_size: int | None
    ) -> None:
        """Handles that have the same rows in the same order are shuffled alike, however they
        were made.

        Usually broken by a cache that is keyed by the operations, or a seed that is mixed with
        the number of the handle, or by shuffling the whole and cutting afterwards.
        """
        store = dataset_store
        alike = [
            store.take(store.skip(handle, 5), 15),
            store.skip(store.take(handle, 20), 5),
            store.skip(store.skip(store.take(handle, 20), 2), 3),
            store.take(store.take(store.skip(handle, 5), 15), 100),
        ]
        with contextlib.suppress(Unsupported):  # reported by the tests of `select`
            alike.append(store.select(handle, range(5, 20)))
            alike.append(store.select(store.take(handle, 20), list(range(5, 20))))
        orders = [read(store, store.shuffle(one, 8, buffer_size)) for one in alike]
        assert orders == [orders[0]] * len(orders)
        assert sorted(orders[0]) == sorted(read(store, alike[0]))

    def test_another_process_finds_the_same_order(
        self,
        dataset_store: DatasetStore,
        dataset_id: str,
        split: str | None,
        streaming: bool,
        handle: Any,
        reopen: Reopen[DatasetStore] | None,
    ) -> None:
        """A process that opens the data set under the same options, and shuffles by the same seed,
        has the same order, and can go on where another stopped.

        Usually broken by `hash`, which is salted in each process, and by state that is only kept
        in the memory of the first.
        """
        another = self.given(reopen, "reopen")
        for buffer_size in (None, 7):
            order = read(dataset_store, dataset_store.shuffle(handle, 6, buffer_size))
            with another() as other:
                again = open_dataset(other, dataset_id, split, streaming)
                theirs = other.shuffle(again, 6, buffer_size)
                assert read(other, other.skip(theirs, 11)) == order[11:]
                assert read(other, theirs) == order

    @since("1.5")
    def test_a_shuffle_mixes_all_rows(
        self, dataset_store: DatasetStore, handle: Any, streaming: bool, stored: list[str]
    ) -> None:
        """Where every row can be looked up, a shuffle takes rows from anywhere to anywhere, and
        `buffer_size` changes nothing: the order depends on the seed and the rows alone.

        Usually broken by shuffling within blocks, or by beginning at another row: data that are
        sorted, by their length or their source, stay so.
        """
        if streaming:
            pytest.skip("what streams is mixed within its buffer")
        place = {text: number for number, text in enumerate(stored)}
        if len(place) < len(stored):
            pytest.skip("some rows are equal: their places are not known")
        count, moved, neighbours = len(stored), 0.0, 0
        for seed in range(5):
            order = read(dataset_store, dataset_store.shuffle(handle, seed))
            for buffer_size in (1, 7):
                again = read(dataset_store, dataset_store.shuffle(handle, seed, buffer_size))
                assert again == order, buffer_size
            places = [place[text] for text in order]
            moved += sum(abs(old - new) for new, old in enumerate(places)) / count / 5
            neighbours += sum(b - a == 1 for a, b in itertools.pairwise(places))
        assert moved > count / 6, f"a row moves by {moved:.1f} of {count} places"
        assert neighbours < count, "most rows still follow the row that they followed before"

    @pytest.mark.parametrize("seed", [None, 1.5, "1"], ids=repr)
    def test_a_shuffle_without_a_seed_is_refused(
        self, dataset_store: DatasetStore, handle: Any, seed: Any
    ) -> None:
        """Only an integer is a seed, anything else is `InvalidInput`: an order that cannot be
        repeated makes a run that cannot be continued.

        Usually broken by a library that draws a seed for None.
        """
        refuses(InvalidInput, reading(dataset_store, dataset_store.shuffle), handle, seed)

    @pytest.mark.parametrize("buffer_size", [0, -1])
    def test_a_buffer_of_no_rows_is_refused(
        self, dataset_store: DatasetStore, handle: Any, buffer_size: int
    ) -> None:
        """A `buffer_size` below one is `InvalidInput`, even where no buffer is used: a
        configuration must not be right for one store and wrong for another.

        Usually broken by `if buffer_size:`, which takes 0 for the default.
        """
        refuses(InvalidInput, reading(dataset_store, dataset_store.shuffle), handle, 1, buffer_size)
