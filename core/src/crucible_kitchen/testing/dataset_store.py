"""What a dataset store promises."""

from __future__ import annotations

import contextlib
import inspect
import json
import re
import tracemalloc
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    initialize,
    multiple,
    rule,
    run_state_machine_as_test,
)

from ..errors import AdapterError, InvalidInput, NotFound, Unsupported
from ..ports import DatasetStore
from .conformance import Conformance, needs, since, synthetic, unless_synthetic

Reopen = Callable[[], contextlib.AbstractContextManager[DatasetStore]]

MISSING = "conformance-missing"

_LOOKALIKES = (
    ("01001", "01040"),
    ("1.10", "2.50"),
    ("1e3", "2E-7"),
    ("0.1234567890123456789012", "123456789012345678901234567890"),
    ("true", "false"),
    ("NA", "null"),
    ("None", "nan"),
    ("", " "),
    ("2024-01-05", "2023-12-31"),
    ("2024-01-05T10:00:00Z", "2024-01-05 10:00:00"),
    ("10:30", "23:59:59"),
    ("[1, 2]", '{"a": 1}'),
)
"""Pairs of texts that look like something else."""


class DatasetStoreConformance(Conformance):
    """Tests of a dataset store. Override the fixture `dataset_store`, and `reopen` if you can.

    By default it opens a JSON Lines file that the kit writes. A store that does not read such
    files overrides `dataset_id`; with `rows`, the kit need not believe the store's own `to_list`.
    Every test that can be is run on a handle that streams, too.
    """

    port = DatasetStore

    @pytest.fixture
    def dataset_store(self) -> Any:
        """The adapter, bound. Required: `bound("dataset_store", <name or module>, ...)`."""
        raise NotImplementedError(
            "give the fixture `dataset_store`, which yields the adapter to be tested; "
            "crucible_kitchen.testing.bound makes one"
        )

    @pytest.fixture
    def reopen(self) -> Reopen | None:
        """A function that binds the adapter once more, under equal options, as another process
        would. Optional.
        """
        return None

    @pytest.fixture
    def rows(self) -> Sequence[Mapping[str, Any]] | str | None:
        """The rows of `dataset_id`, in their stored order, or the path of a JSON Lines file of
        them. None, which is the default where `dataset_id` is overridden, is unknown: then the
        store's own `to_list` is what the rest is compared with.
        """
        if _is_overridden(self):
            return None
        return [_row(number) for number in range(120)]

    @pytest.fixture
    def dataset_id(self, rows: Any, tmp_path: Path) -> str:
        """The data set. By default the path of a JSON Lines file of `rows`. It must have 20 rows
        or more; some hundred are best, for it is read often.
        """
        assert rows is not None, "with `rows` unknown, give the fixture `dataset_id`"
        file = tmp_path / "conformance-rows.jsonl"
        lines = [json.dumps(row, ensure_ascii=False) for row in _given(rows)]
        file.write_bytes("".join(f"{line}\n" for line in lines).encode())
        return str(file)

    @pytest.fixture
    def split(self) -> str | None:
        """The split to open. None, the default, is for a data set that has only one."""
        return None

    @pytest.fixture
    def splits(self) -> Sequence[str] | str | None:
        """The names of all splits of `dataset_id`, or these with commas between. None, the
        default, is unknown: then those are taken that the error about a missing one lists.
        """
        return None

    @pytest.fixture
    def missing_dataset_id(self, tmp_path: Path) -> str:
        """A data set that does not exist."""
        return str(tmp_path / f"{MISSING}.jsonl")

    @pytest.fixture(params=[False, True], ids=["whole", "streaming"])
    def streaming(self, request: pytest.FixtureRequest) -> bool:
        """Whether the handle streams. Not to be overridden."""
        return bool(request.param)

    @pytest.fixture
    def handle(
        self, dataset_store: DatasetStore, dataset_id: str, split: str | None, streaming: bool
    ) -> Any:
        """The data set, opened. Not to be overridden."""
        return _open(dataset_store, dataset_id, split, streaming)

    @pytest.fixture
    def stored(
        self, dataset_store: DatasetStore, dataset_id: str, split: str | None, rows: Any
    ) -> list[str]:
        """The rows of the data set as text, in their stored order. Not to be overridden."""
        if rows is not None and not synthetic(dataset_store):
            found = _texts(_given(rows))
        else:
            found = _read(dataset_store, dataset_store.load_dataset(dataset_id, split))
        assert len(found) >= 20, "give a `dataset_id` of at least 20 rows"
        assert len(set(found)) > len(found) // 2, "give a `dataset_id` whose rows differ"
        return found

    # --- the rows ---

    @unless_synthetic
    def test_the_rows_are_those_that_are_stored(
        self, dataset_store: DatasetStore, handle: Any, rows: Any
    ) -> None:
        """`to_list` returns every row of the data set as a dictionary, in the stored order, with
        every value as it was: Unicode, line separators within a text, large integers, floats,
        lists of dictionaries, and text that looks like a number.

        Usually broken by `splitlines`, which also splits at U+2028, and by readers that guess
        types.
        """
        if rows is None:
            pytest.skip("the fixture `rows` is not given")
        found = dataset_store.to_list(handle)
        assert isinstance(found, list)
        assert all(isinstance(row, dict) for row in found)
        assert _texts(found) == _texts(_given(rows))

    @unless_synthetic
    def test_text_that_looks_like_a_date_stays_text(
        self, dataset_store: DatasetStore, streaming: bool, tmp_path: Path
    ) -> None:
        """A text is a text, whatever it may mean to a reader of tables.

        Usually broken by pyarrow's reader of JSON, which makes times of a column of dates: a
        prompt that is a date then is no text any more, and cannot be written as JSON.
        """
        if _is_overridden(self):
            pytest.skip("the fixture `dataset_id` is overridden; the rows have to be the kit's")
        days = [{"day": f"2024-02-{1 + number:02}"} for number in range(28)]
        file = tmp_path / "conformance-days.jsonl"
        file.write_text("".join(f"{json.dumps(row)}\n" for row in days))
        handle = _open(dataset_store, str(file), None, streaming)
        assert _read(dataset_store, handle) == _texts(days)

    @since("1.1")
    @unless_synthetic
    def test_text_stays_text(
        self, dataset_store: DatasetStore, streaming: bool, tmp_path: Path
    ) -> None:
        """A column of texts has the texts that were stored, also where every one of them looks
        like a number, a date, a time, a truth value or a missing one.

        Usually broken by readers of tables, which guess a type for a column: the zip code `01001`
        becomes 1001, the price `1.10` 1.1, and the answer `NA` nothing at all.
        """
        for number, (first, second) in enumerate(_LOOKALIKES):
            rows = [{"text": (first, second)[n % 2]} for n in range(20)]
            handle = self._written(dataset_store, streaming, tmp_path / f"{number}.jsonl", rows)
            assert _read(dataset_store, handle) == _texts(rows)

    @since("1.1")
    @unless_synthetic
    def test_integers_have_all_their_digits(
        self, dataset_store: DatasetStore, streaming: bool, tmp_path: Path
    ) -> None:
        """An integer is that integer, of 30 digits too, beside small ones and by itself.

        Usually broken by columns of 64 bits, and by floats, which keep 15 digits.
        """
        rows = [{"n": sign * (10**n + 1)} for n in range(31) for sign in (1, -1)]
        handle = self._written(dataset_store, streaming, tmp_path / "integers.jsonl", rows)
        assert _read(dataset_store, handle) == _texts(rows)

    @since("1.1")
    @unless_synthetic
    def test_a_value_is_what_it_is_wherever_it_lies(
        self, dataset_store: DatasetStore, streaming: bool, tmp_path: Path
    ) -> None:
        """A value that is of another type than those of thousands of rows before it, or a field
        that none of them has, is read as it was stored.

        Usually broken by a type that is taken from the first rows: the rest are changed to fit,
        left out, or refused.
        """
        rows: list[dict[str, Any]] = [{"answer": n} for n in range(6000)]
        late = ["006000", "2024-01-05", None, True, 1.5, ["a", 1], {"a": None}, "NA"]
        rows += [{"answer": value} for value in late] + [{"answer": "", "late": "x"}]
        handle = self._written(dataset_store, streaming, tmp_path / "late.jsonl", rows)
        assert _read(dataset_store, handle) == _texts(rows)

    @since("1.1")
    @unless_synthetic
    def test_a_row_and_what_is_in_it_have_the_fields_that_were_stored(
        self, dataset_store: DatasetStore, streaming: bool, tmp_path: Path
    ) -> None:
        """An object has the fields that were stored with it, at any depth, and no other; a null
        that was stored is None.

        Usually broken by columns of structs, in which each has the fields of all: the arguments
        of every tool call then have the names of every tool's, with null.
        """
        arguments: list[Any] = [{"x": 1}, {"city": None}, {}, {"to": [{"a": 1}, {"b": None}]}, None]
        rows: list[dict[str, Any]] = [
            {"messages": [{"role": "tool", "call": {"arguments": given}}]} for given in arguments
        ]
        rows += [{"messages": [], "extra": None}, {"other": "x"}]
        handle = self._written(dataset_store, streaming, tmp_path / "fields.jsonl", rows * 3)
        assert _read(dataset_store, handle) == _texts(rows * 3)

    def _written(
        self, store: DatasetStore, streaming: bool, file: Path, rows: Sequence[Mapping[str, Any]]
    ) -> Any:
        """Write rows as JSON Lines and open them."""
        if _is_overridden(self):
            pytest.skip("the fixture `dataset_id` is overridden; the rows have to be the kit's")
        file.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
        return _open(store, str(file), None, streaming)

    @unless_synthetic
    def test_missing_values_and_empty_texts_stay(
        self, dataset_store: DatasetStore, handle: Any, rows: Any
    ) -> None:
        """A value that is None is None, and its key is there; an empty text is an empty text, an
        empty list an empty list, and zero and False are no None.

        Usually broken by readers that drop nulls, or take "" for a missing value, or turn a
        column of integers with a gap into floats.
        """
        if rows is None:
            pytest.skip("the fixture `rows` is not given")
        found = dataset_store.to_list(handle)
        expected = _given(rows)
        assert [sorted(row) for row in found] == [sorted(row) for row in expected]
        falsy = 0
        for row, right in zip(found, expected, strict=True):
            for key, value in right.items():
                if not value:
                    falsy += 1
                    assert (row[key], type(row[key])) == (value, type(value)), (key, right)
        if not falsy:
            pytest.skip("no value of `rows` is None, empty or zero")

    def test_opening_again_gives_the_same_rows(
        self,
        dataset_store: DatasetStore,
        dataset_id: str,
        split: str | None,
        handle: Any,
        streaming: bool,
        stored: list[str],
    ) -> None:
        """A data set that nobody changes has the same rows in the same order whenever it is
        opened, and whether it streams.

        Usually broken by files that are read in the order of a folder's listing, or by threads.
        """
        assert _read(dataset_store, handle) == stored
        again = _open(dataset_store, dataset_id, split, streaming)
        assert _read(dataset_store, again) == stored
        assert _read(dataset_store, handle) == stored

    def test_rows_may_be_changed_by_whoever_gets_them(
        self, dataset_store: DatasetStore, handle: Any, stored: list[str]
    ) -> None:
        """What is done to the rows of one `to_list`, or batch, is not seen in any other, and the
        two rows of a repeated index are two.

        Usually broken by a cache of rows, or a copy that is shallow: a workflow that adds a
        field to its rows then finds it there after it has opened the data again.
        """
        derived = [handle]
        with contextlib.suppress(Unsupported):  # told by the tests of `select`
            derived.append(dataset_store.select(handle, [0, 0]))
        for one in derived:
            before = _read(dataset_store, one)
            rows = dataset_store.to_list(one)
            _spoil(rows[0])
            assert _texts(rows[1:]) == before[1:]
            for row in rows[1:]:
                _spoil(row)
            rows.clear()
            assert _read(dataset_store, one) == before
            if dataset_store.supports("stream"):
                for batch in dataset_store.stream(one, 10):
                    for row in batch:
                        _spoil(row)
                    batch.clear()
                assert _read(dataset_store, one) == before
        assert _read(dataset_store, handle) == stored

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
            before = _read(store, start)
            made: list[Any] = [
                store.take(start, 4),
                store.skip(start, 4),
                store.shuffle(start, seed=1),
                store.shuffle(start, seed=2, buffer_size=3),
            ]
            with contextlib.suppress(Unsupported):  # told by the tests of `select`
                made.append(store.select(start, [2, 1]))
            contents = [_read(store, one) for one in made]
            assert contents[:2] == [before[:4], before[4:]]
            assert _read(store, start) == before
            assert [_read(store, one) for one in made] == contents
        assert _read(store, handle) == stored
        assert _read(store, part) == stored[3:15]

    # --- shuffle ---

    @pytest.mark.parametrize("buffer_size", [None, 1, 7, 10_000], ids="buffer_size={}".format)
    def test_a_shuffle_loses_nothing_and_repeats_nothing(
        self, dataset_store: DatasetStore, handle: Any, stored: list[str], buffer_size: int | None
    ) -> None:
        """A shuffle has every row once, for each seed, and each size of the buffer, one row and
        more rows than there are too.

        Usually broken by a buffer that is not emptied at the end, or draws with repetition.
        """
        for seed in (0, 1, 2, 2**31 - 1):
            shuffled = dataset_store.shuffle(handle, seed, buffer_size)
            assert sorted(_read(dataset_store, shuffled)) == sorted(stored), seed

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
        that order too, also when the data set was opened anew, or other shuffles came between.

        Usually broken by a generator that is kept in the handle and goes on at the second read,
        or by the state of the global one.
        """
        shuffled = dataset_store.shuffle(handle, 3, buffer_size)
        order = _read(dataset_store, shuffled)
        assert _read(dataset_store, shuffled) == order
        _read(dataset_store, dataset_store.shuffle(handle, 4, buffer_size))
        again = _open(dataset_store, dataset_id, split, streaming)
        for start in (handle, again):
            assert _read(dataset_store, dataset_store.shuffle(start, 3, buffer_size)) == order
        assert _read(dataset_store, shuffled) == order

    @pytest.mark.parametrize("buffer_size", [None, 7], ids="buffer_size={}".format)
    def test_other_seeds_give_other_orders(
        self, dataset_store: DatasetStore, handle: Any, stored: list[str], buffer_size: int | None
    ) -> None:
        """Each seed gives an order of its own, 0 too, and none of them is the stored one.

        Usually broken by `seed or default`, and by a seed that does not reach the backend.
        """
        seeds = (0, 1, 2, 42, 2**31 - 1)
        orders = [
            _read(dataset_store, dataset_store.shuffle(handle, seed, buffer_size)) for seed in seeds
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
        both = _read(store, store.shuffle(first, 2, buffer_size))
        assert sorted(both) == sorted(stored)
        assert both not in (_read(store, first), _read(store, second))

    @pytest.mark.parametrize("buffer_size", [None, 7], ids="buffer_size={}".format)
    def test_the_order_depends_on_the_seed_and_the_rows_alone(
        self, dataset_store: DatasetStore, handle: Any, buffer_size: int | None
    ) -> None:
        """Handles that have the same rows in the same order are shuffled alike, however they
        were come by.

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
        with contextlib.suppress(Unsupported):  # told by the tests of `select`
            alike.append(store.select(handle, range(5, 20)))
            alike.append(store.select(store.take(handle, 20), list(range(5, 20))))
        orders = [_read(store, store.shuffle(one, 8, buffer_size)) for one in alike]
        assert orders == [orders[0]] * len(orders)
        assert sorted(orders[0]) == sorted(_read(store, alike[0]))

    def test_another_process_finds_the_same_order(
        self,
        dataset_store: DatasetStore,
        dataset_id: str,
        split: str | None,
        streaming: bool,
        handle: Any,
        reopen: Reopen | None,
    ) -> None:
        """Whoever opens the data set under the same options, and shuffles by the same seed, has
        the same order, and can go on where another stopped.

        Usually broken by `hash`, which is salted in each process, and by state that is only kept
        in the memory of the first.
        """
        if reopen is None:
            pytest.skip("the fixture `reopen` is not given")
        for buffer_size in (None, 7):
            order = _read(dataset_store, dataset_store.shuffle(handle, 6, buffer_size))
            with reopen() as other:
                theirs = other.shuffle(_open(other, dataset_id, split, streaming), 6, buffer_size)
                assert _read(other, other.skip(theirs, 11)) == order[11:]
                assert _read(other, theirs) == order

    @pytest.mark.parametrize("seed", [None, 1.5, "1"], ids=repr)
    def test_a_shuffle_without_a_seed_is_refused(
        self, dataset_store: DatasetStore, handle: Any, seed: Any
    ) -> None:
        """What is no integer is no seed, and `InvalidInput`: an order that nobody can ask for
        again makes a run that nobody can continue.

        Usually broken by a library that takes None for a seed of its own choice.
        """
        with pytest.raises(InvalidInput):
            _read(dataset_store, dataset_store.shuffle(handle, seed))

    @pytest.mark.parametrize("buffer_size", [0, -1])
    def test_a_buffer_of_no_rows_is_refused(
        self, dataset_store: DatasetStore, handle: Any, buffer_size: int
    ) -> None:
        """A `buffer_size` below one is `InvalidInput`, also where no buffer is used: a
        configuration must not be right for one store and wrong for another.

        Usually broken by `if buffer_size:`, which takes 0 for the default.
        """
        with pytest.raises(InvalidInput):
            _read(dataset_store, dataset_store.shuffle(handle, 1, buffer_size))

    # --- take and skip ---

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
        order = _read(dataset_store, shuffled)
        count = len(order)
        for position in (0, 1, 6, 7, 8, count // 3, count // 2, count - 1, count):
            head = _read(dataset_store, dataset_store.take(shuffled, position))
            rest = _read(dataset_store, dataset_store.skip(shuffled, position))
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
            assert _read(store, store.take(handle, past)) == stored
            empty = store.skip(handle, past)
            assert _read(store, empty) == []
            assert _read(store, store.take(empty, 3)) == []
            assert _read(store, store.skip(empty, 3)) == []
            assert _read(store, store.shuffle(empty, 1)) == []
            few = store.take(store.skip(handle, len(stored) - 2), past)
            assert _read(store, few) == stored[-2:]

    def test_take_and_skip_of_no_rows(
        self, dataset_store: DatasetStore, handle: Any, stored: list[str]
    ) -> None:
        """`take(handle, 0)` has no rows, and `skip(handle, 0)` all of them.

        Usually broken by `if count:`, or `rows[-count:]`.
        """
        assert _read(dataset_store, dataset_store.take(handle, 0)) == []
        assert _read(dataset_store, dataset_store.skip(handle, 0)) == stored

    @pytest.mark.parametrize("count", [-1, -5])
    def test_a_negative_number_of_rows_is_refused(
        self, dataset_store: DatasetStore, handle: Any, count: int
    ) -> None:
        """`take` and `skip` of a negative number are `InvalidInput`.

        Usually broken by a slice, which counts from the end.
        """
        for operation in (dataset_store.take, dataset_store.skip):
            with pytest.raises(InvalidInput):
                _read(dataset_store, operation(handle, count))

    # --- select ---

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
            found = _read(dataset_store, _select(dataset_store, handle, selection, streaming))
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
            order = _read(store, start)
            found = _read(store, _select(store, start, [4, 0, 2], streaming))
            assert found == [order[4], order[0], order[2]]
            twice = store.select(store.select(start, [4, 0, 2]), [2, 0])
            assert _read(store, twice) == [order[2], order[4]]

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
        _select(store, few, [0], streaming)
        for start, selection in wrong:
            with pytest.raises(InvalidInput):
                _read(store, store.select(start, selection))

    @pytest.mark.parametrize("selection", [[1.5], ["1"], [[1]], [None]], ids=repr)
    def test_an_index_that_is_no_integer_is_refused(
        self, dataset_store: DatasetStore, handle: Any, streaming: bool, selection: Any
    ) -> None:
        """Anything but integers is `InvalidInput`.

        Usually broken by an array, which rounds what it is given, or takes a list of lists.
        """
        _select(dataset_store, handle, [0], streaming)
        with pytest.raises(InvalidInput):
            _read(dataset_store, dataset_store.select(handle, selection))

    # --- data sets and splits ---

    @unless_synthetic
    def test_a_missing_data_set_is_not_found(
        self,
        dataset_store: DatasetStore,
        dataset_id: str,
        split: str | None,
        missing_dataset_id: str,
        streaming: bool,
    ) -> None:
        """Opening a data set that does not exist is `NotFound`, when it is opened or, where it
        streams, when it is first read.

        Usually broken by the backend's own exception, which callers cannot know.
        """
        _open(dataset_store, dataset_id, split, streaming)  # skips where nothing streams
        with pytest.raises(NotFound):
            _read(
                dataset_store, dataset_store.load_dataset(missing_dataset_id, streaming=streaming)
            )

    def test_a_missing_split_is_not_found_and_the_splits_are_listed(
        self,
        dataset_store: DatasetStore,
        dataset_id: str,
        handle: Any,
        streaming: bool,
        splits: Any,
    ) -> None:
        """A split that does not exist is `NotFound`, by `load_dataset` and by `get_split`, and
        the message lists those that do.

        Usually broken by the backend's `ValueError`, or by falling back to the first split.
        """
        names = _splits(dataset_store, dataset_id, splits)
        assert names, "no word of the error about a missing split is the name of a split"
        attempts: list[Callable[[], Any]] = [
            lambda: dataset_store.load_dataset(dataset_id, MISSING, streaming=streaming),
            lambda: dataset_store.get_split(handle, MISSING),
            lambda: dataset_store.get_split(dataset_store.shuffle(handle, 1), MISSING),
        ]
        for attempt in attempts:
            with pytest.raises(NotFound) as failure:
                attempt()
            for name in names:
                assert name in str(failure.value)

    def test_get_split_has_the_stored_order(
        self,
        dataset_store: DatasetStore,
        dataset_id: str,
        handle: Any,
        streaming: bool,
        splits: Any,
    ) -> None:
        """`get_split` returns all rows of a split in the stored order, whatever was done to the
        handle that it is asked of, and leaves that as it was.

        Usually broken by a handle that keeps its shuffle, its part or its selection when the
        rows under it are exchanged.
        """
        store = dataset_store
        shuffled = store.shuffle(handle, 3)
        order = _read(store, shuffled)
        starts = [handle, shuffled, store.take(shuffled, 2), store.skip(handle, 5)]
        for name in _splits(store, dataset_id, splits):
            expected = _read(store, _open(store, dataset_id, name, streaming))
            for start in starts:
                assert _read(store, store.get_split(start, name)) == expected, name
        assert _read(store, shuffled) == order

    def test_a_split_may_be_chosen_later(
        self, dataset_store: DatasetStore, dataset_id: str, streaming: bool, splits: Any
    ) -> None:
        """A data set may be opened without a split; `get_split` then has the same rows as opening
        that split, and what has only one needs none.

        Usually broken by a handle that has forgotten what it was opened from.
        """
        store = dataset_store
        names = _splits(store, dataset_id, splits)
        whole = _open(store, dataset_id, None, streaming)
        assert names
        for name in names:
            expected = _read(store, _open(store, dataset_id, name, streaming))
            assert _read(store, store.get_split(whole, name)) == expected, name
        if len(names) == 1:
            assert _read(store, whole) == expected

    def test_of_several_splits_one_must_be_chosen(
        self,
        dataset_store: DatasetStore,
        dataset_id: str,
        streaming: bool,
        splits: Any,
        tmp_path: Path,
    ) -> None:
        """What has several splits and none chosen has no rows: reading it, or a part of it, is an
        error.

        Usually broken by a silent choice of the first: evaluated on what it was trained on, every
        model is excellent.
        """
        if not _is_overridden(self):
            folder = tmp_path / "conformance-splits"
            folder.mkdir()
            for name in ("train", "test"):
                (folder / f"{name}.jsonl").write_text(f'{{"split": "{name}"}}\n' * 3)
            dataset_id, splits = str(folder), None
        if len(_splits(dataset_store, dataset_id, splits)) < 2:
            pytest.skip("no data set of several splits is known that the store can open")
        whole = _open(dataset_store, dataset_id, None, streaming)
        with pytest.raises(AdapterError):
            _read(dataset_store, whole)
        with pytest.raises(AdapterError):
            _read(dataset_store, dataset_store.shuffle(whole, 1))

    @unless_synthetic
    @pytest.mark.parametrize("argument", ["name", "revision"])
    def test_a_configuration_or_revision_that_does_not_exist_is_refused(
        self,
        dataset_store: DatasetStore,
        dataset_id: str,
        split: str | None,
        handle: Any,
        streaming: bool,
        argument: str,
    ) -> None:
        """A `name` or `revision` that the data set does not have is `NotFound`; a store that knows
        none says `Unsupported`.

        Usually broken by an argument that is ignored: the record of the run then names a revision
        that was never read.
        """
        asked: dict[str, Any] = {argument: MISSING}
        with pytest.raises((NotFound, Unsupported)):
            dataset_store.load_dataset(dataset_id, split, streaming=streaming, **asked)

    # --- stream ---

    @needs("stream")
    @unless_synthetic
    def test_a_stream_takes_bounded_memory(
        self, dataset_store: DatasetStore, tmp_path: Path
    ) -> None:
        """What was opened with `streaming=True` is streamed, shuffled too, in the memory of a part
        of it.

        Usually broken by reading it whole first.
        """
        if _is_overridden(self):
            pytest.skip("the fixture `dataset_id` is overridden; the rows have to be the kit's")
        count, size = 5000, 16 << 10
        file = tmp_path / "conformance-large.jsonl"
        with file.open("w") as lines:
            lines.writelines(f'{{"id": {n}, "text": "{"x" * size}"}}\n' for n in range(count))
        handle = _open(dataset_store, str(file), None, True)
        handle = dataset_store.skip(dataset_store.shuffle(handle, 1, buffer_size=50), 7)
        next(dataset_store.stream(handle, 1)).clear()  # what is imported and opened once
        tracemalloc.start()
        try:
            found = sum(len(batch) for batch in dataset_store.stream(handle, 50))
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert found == count - 7
        mib = 1 << 20
        message = f"{count * size // mib} MiB were streamed in {peak // mib} MiB of memory"
        assert peak < count * size // 2, message

    @needs("stream")
    def test_a_stream_is_the_rows_in_batches(
        self, dataset_store: DatasetStore, handle: Any, stored: list[str]
    ) -> None:
        """`stream` yields what `to_list` returns, in lists of exactly `batch_size` rows, the last
        one shorter and never empty, of whatever handle.

        Usually broken by dropping the last batch, or by batches that follow those of a file.
        """
        store, count = dataset_store, len(stored)
        shuffled = store.shuffle(handle, 4, buffer_size=7)
        handles = [handle, shuffled, store.skip(shuffled, 8), store.take(handle, 13)]
        for one in handles:
            expected = _read(store, one)
            for size in (1, 2, 7, 13, count - 1, count, count + 1, 10_000):
                batches = list(store.stream(one, size))
                sizes = [len(batch) for batch in batches]
                full, rest = divmod(len(expected), size)
                assert sizes == [size] * full + [rest] * bool(rest), size
                assert [text for batch in batches for text in _texts(batch)] == expected, size
        assert [len(batch) for batch in store.stream(handle)] == [count] or count > 1000

    @needs("stream")
    def test_a_stream_of_no_rows_has_no_batches(
        self, dataset_store: DatasetStore, handle: Any
    ) -> None:
        """A handle without rows streams nothing: not one empty batch.

        Usually broken by yielding the rest without looking at it.
        """
        assert list(dataset_store.stream(dataset_store.take(handle, 0), 5)) == []
        assert list(dataset_store.stream(dataset_store.skip(handle, 2**31), 5)) == []

    @needs("stream")
    @pytest.mark.parametrize("batch_size", [0, -1])
    def test_a_batch_of_no_rows_is_refused(
        self, dataset_store: DatasetStore, handle: Any, batch_size: int
    ) -> None:
        """A `batch_size` below one is `InvalidInput`, at the call or at the first batch.

        Usually broken by a loop that never ends, or ends at once.
        """
        with pytest.raises(InvalidInput):
            next(iter(dataset_store.stream(handle, batch_size)))

    @needs("stream")
    def test_a_stream_may_be_left_early(
        self, dataset_store: DatasetStore, handle: Any, stored: list[str]
    ) -> None:
        """Whoever has enough leaves, again and again, and the next one starts at the first row;
        streams of one handle at the same time do not take each other's rows.

        Usually broken by an iterator in the handle, or a file that each stream leaves open.
        """
        for _ in range(100):
            with dataset_store.stream(handle, 3) as batches:
                assert _texts(next(batches)) == stored[:3]
        with dataset_store.stream(handle, 3) as one, dataset_store.stream(handle, 3) as other:
            for start in range(0, 18, 3):
                assert _texts(next(one)) == stored[start : start + 3]
                assert _texts(next(other)) == stored[start : start + 3]
        assert _read(dataset_store, handle) == stored

    # --- threads ---

    def test_many_threads_read_one_handle(
        self, dataset_store: DatasetStore, handle: Any, stored: list[str]
    ) -> None:
        """Threads that read one handle, and make others of it, each find what one alone finds.

        Usually broken by a reader with one position for all.
        """
        store = dataset_store
        shuffled = store.shuffle(handle, 7, buffer_size=11)
        order = _read(store, shuffled)

        def read(number: int) -> None:
            assert _read(store, handle) == stored
            assert _read(store, store.skip(shuffled, number)) == order[number:]
            assert _read(store, store.shuffle(handle, 7, buffer_size=11)) == order
            if store.supports("stream"):
                batches = store.stream(shuffled, number + 1)
                assert [text for batch in batches for text in _texts(batch)] == order

        with ThreadPoolExecutor(8) as pool:
            list(pool.map(read, range(24)))

    # --- any of it ---

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
            batch_size=st.integers(1, count + 2),
        )
        def check(
            seed: int, buffer_size: int | None, start: int, length: int, batch_size: int
        ) -> None:
            shuffled = store.shuffle(handle, seed, buffer_size)
            order = _read(store, shuffled)
            assert sorted(order) == sorted(stored)
            expected = order[start : start + length]
            part = store.take(store.skip(shuffled, start), length)
            assert _read(store, part) == expected
            assert _read(store, store.skip(store.take(shuffled, start + length), start)) == expected
            if store.supports("stream"):
                batches = store.stream(part, batch_size)
                assert [text for batch in batches for text in _texts(batch)] == expected

        check()

    def test_any_sequence_of_operations_does_what_lists_do(
        self, dataset_store: DatasetStore, handle: Any, streaming: bool, stored: list[str]
    ) -> None:
        """Whatever is shuffled, cut, selected and read, in whatever order and of whichever
        earlier handle, each handle is at every moment what a list would be.

        Usually broken by what one operation leaves behind for another.
        """
        store = dataset_store
        suite = self

        class Machine(RuleBasedStateMachine):
            handles: Bundle[tuple[Any, list[str]]] = Bundle("handles")

            def __init__(self) -> None:
                super().__init__()
                self.known: list[tuple[Any, list[str]]] = []

            def keep(self, made: Any, rows: list[str]) -> tuple[Any, list[str]]:
                self.known.append((made, rows))
                return made, rows

            @initialize(target=handles, count=st.integers(10, 20))
            def start(self, count: int) -> tuple[Any, list[str]]:
                return self.keep(store.take(handle, count), stored[:count])

            @rule(target=handles, old=handles, count=st.integers(0, 22))
            def take(self, old: tuple[Any, list[str]], count: int) -> tuple[Any, list[str]]:
                return self.keep(store.take(old[0], count), old[1][:count])

            @rule(target=handles, old=handles, count=st.integers(0, 22))
            def skip(self, old: tuple[Any, list[str]], count: int) -> tuple[Any, list[str]]:
                return self.keep(store.skip(old[0], count), old[1][count:])

            @rule(target=handles, old=handles, picks=st.lists(st.integers(0, 19), max_size=8))
            def select(self, old: tuple[Any, list[str]], picks: list[int]) -> Any:
                made, rows = old
                indices = [pick % len(rows) for pick in picks] if rows else []
                try:
                    chosen = store.select(made, indices)
                except Unsupported:
                    assert streaming
                    return multiple()
                return self.keep(chosen, [rows[index] for index in indices])

            @rule(
                target=handles,
                old=handles,
                seed=st.integers(0, 3),
                buffer_size=st.none() | st.integers(1, 25),
            )
            def shuffle(
                self, old: tuple[Any, list[str]], seed: int, buffer_size: int | None
            ) -> tuple[Any, list[str]]:
                shuffled = store.shuffle(old[0], seed, buffer_size)
                order = _read(store, shuffled)
                assert sorted(order) == sorted(old[1])
                assert _read(store, store.shuffle(old[0], seed, buffer_size)) == order
                return self.keep(shuffled, order)

            @rule(old=handles)
            def to_list(self, old: tuple[Any, list[str]]) -> None:
                assert _read(store, old[0]) == old[1]

            @rule(old=handles, size=st.integers(1, 22), batches=st.none() | st.integers(0, 2))
            def stream(self, old: tuple[Any, list[str]], size: int, batches: int | None) -> None:
                made, rows = old
                if store.supports("stream"):
                    whole = [rows[place : place + size] for place in range(0, len(rows), size)]
                    with store.stream(made, size) as found:
                        for expected in whole[:batches]:
                            assert _texts(next(found)) == expected
                        if batches is None:
                            assert list(found) == []

            def teardown(self) -> None:
                for made, rows in self.known:
                    assert _read(store, made) == rows

        run_state_machine_as_test(
            Machine, settings=suite.hypothesis_settings(stateful_step_count=12)
        )


def _row(number: int) -> dict[str, Any]:
    """Make a row. Every row has the same keys, and under each one type, or None."""
    texts = [
        "plain",
        "",
        "naïve-Übung-数据-🙂",
        " spaces ",
        'tab\t"quote" \\n',
        "a\u2028b\x85c\r\nd",
    ]
    return {
        "id": number,
        "text": f"{texts[number % 6]}{number}" if texts[number % 6] else "",
        "maybe": None if number % 3 == 1 else ("", "text")[number % 2],
        "count": None if number % 5 == 3 else (2**53 + 1) * (number % 4),
        "score": None if number % 7 == 2 else number / 10,
        "flag": number % 2 == 0,
        "digits": f"{number:03}",
        "messages": [
            {"role": role, "content": f"{role} {number}"} for role in ("user", "assistant")
        ][: 2 - number % 3],
    }


def _is_overridden(suite: DatasetStoreConformance) -> bool:
    """Say whether the data set is another than the kit's own."""
    mine = inspect.getattr_static(type(suite), "dataset_id")
    return mine is not inspect.getattr_static(DatasetStoreConformance, "dataset_id")


def _given(rows: Any) -> list[Mapping[str, Any]]:
    """Return the value of the fixture `rows` as rows."""
    if isinstance(rows, str):
        lines = Path(rows).read_text(encoding="utf-8").split("\n")
        return [json.loads(line) for line in lines if line.strip()]
    return list(rows)


def _open(store: DatasetStore, dataset_id: str, split: str | None, streaming: bool) -> Any:
    try:
        return store.load_dataset(dataset_id, split, streaming=streaming)
    except Unsupported as error:
        if not streaming:
            raise
        pytest.skip(f"opens no data set that streams: {error.reason}")


def _select(
    store: DatasetStore, handle: Any, selection: range | Sequence[int], streaming: bool
) -> Any:
    try:
        return store.select(handle, selection)
    except Unsupported as error:
        if not streaming:
            raise
        pytest.skip(f"selects nothing of a handle that streams: {error.reason}")


def _read(store: DatasetStore, handle: Any) -> list[str]:
    return _texts(store.to_list(handle))


def _texts(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return rows as text, which tells 1 from 1.0, and in which NaN is equal to itself."""
    return [json.dumps(row, sort_keys=True, ensure_ascii=False, default=repr) for row in rows]


def _spoil(value: Any) -> None:
    """Change a row, and whatever can be changed within it."""
    if isinstance(value, dict):
        for inner in value.values():
            _spoil(inner)
        value.update(dict.fromkeys(value, "spoiled"), spoiled=True)
    elif isinstance(value, list):
        for inner in value:
            _spoil(inner)
        value.append("spoiled")


def _splits(store: DatasetStore, dataset_id: str, splits: Any) -> list[str]:
    """Return the names of the splits: those given, or those that the error about a missing one
    lists.
    """
    if splits is not None:
        return [name.strip() for name in splits.split(",")] if isinstance(splits, str) else splits
    with pytest.raises(NotFound) as failure:
        store.load_dataset(dataset_id, MISSING)

    def there(name: str) -> Iterator[str]:
        with contextlib.suppress(AdapterError):
            store.load_dataset(dataset_id, name)
            yield name

    words = dict.fromkeys(re.findall(r"[\w.-]*\w", failure.value.reason))
    return [name for word in words if word != MISSING for name in there(word)]
