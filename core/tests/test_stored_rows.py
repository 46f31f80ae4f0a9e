"""Rows stay in the dataset store, and are known by their digests."""

from __future__ import annotations

import copy
import datetime
from decimal import Decimal
from typing import Any

import numpy as np
import pytest
from crucible_kitchen import AdapterError, InvalidInput, Kitchen, hookimpl
from crucible_kitchen.workflows.rows.loading import Loader, Source, hold_out, open_stream
from crucible_kitchen.workflows.rows.stored import AT_ONCE, StoredRows, digest
from hypothesis import given
from hypothesis import strategies as st
from rows_in_memory import Row, RowsInMemory, StreamedRows


def numbers(count: int) -> list[Row]:
    return [{"n": n} for n in range(count)]


def opened(store: RowsInMemory, split: str | None = "train") -> StoredRows:
    return Loader(Kitchen({"dataset_store": store})).rows(Source("x", split))


def of(rows: StoredRows) -> list[int]:
    return [row["n"] for _, row in rows]


@pytest.mark.parametrize(
    ("split", "expected"),
    [
        ("train", range(10)),
        ("train[:3]", range(3)),
        ("train[-2:]", range(8, 10)),
        ("train[:90%]", range(9)),
        ("train[90%:]", range(9, 10)),
        ("train[-25%:]", range(8, 10)),
        ("train[25%:75%]", range(2, 8)),
        ("train[5:5]", range(0)),
    ],
)
def test_a_part_of_a_split_is_written_as_datasets_writes_it(split: str, expected: range) -> None:
    rows = opened(RowsInMemory({"train": numbers(10)}), split)
    assert of(rows) == list(expected)
    assert [name for name, _ in rows] == [f"row {number}" for number in expected]


def test_parts_are_joined_and_rows_named_by_their_split() -> None:
    store = RowsInMemory({"train": numbers(2), "test": numbers(2)})
    rows = opened(store, "train[:1]+test[1:]+train")
    assert [name for name, _ in rows] == [
        "row 0 of train",
        "row 1 of test",
        "row 0 of train",
        "row 1 of train",
    ]
    assert [row["n"] for _, row in rows.read([3, 1, 0, 3])] == [1, 1, 0, 1]


@pytest.mark.parametrize(
    ("split", "message"),
    [
        ("train[:11]", "'train\\[:11\\]' goes beyond the 10 rows"),
        ("train[:120%]", "more than 100 %"),
        ("train[1]", "not of the form"),
        ("train[:1.5%]", "not of the form"),
        ("train[", "not of the form"),
    ],
)
def test_a_part_that_does_not_exist_is_refused(split: str, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        opened(RowsInMemory({"train": numbers(10)}), split)


@pytest.mark.parametrize("kind", [RowsInMemory, StreamedRows])
def test_rows_are_counted_in_one_pass_and_read_when_they_are_asked_for(
    kind: type[RowsInMemory],
) -> None:
    count = 2 * AT_ONCE + 1
    store = kind({"train": numbers(count)})
    with Kitchen({"dataset_store": store}) as kitchen:
        loader = Loader(kitchen)
        rows = loader.rows(Source("x", "train"))
        assert len(rows) == len(loader.rows(Source("x", "train[:100]+train[100:]"))) == count
        assert store.read == count
        assert [row["n"] for _, row in rows.read([5, 2000, 5])] == [5, 2000, 5]
        assert store.read == count + 3
        assert of(rows) == list(range(count))


@given(st.lists(st.integers(0, 9), max_size=12))
def test_rows_have_the_same_digest_however_they_are_chosen(chosen: list[int]) -> None:
    rows = opened(RowsInMemory({"train": numbers(10)}))
    twice = opened(RowsInMemory({"train": numbers(10), "b": []}), "train[:4]+train[4:]")
    few = opened(RowsInMemory({"train": [{"n": n} for n in chosen]}))
    assert rows.select(chosen).sha256() == twice.select(chosen).sha256() == few.sha256()
    assert rows.shared(few) == len(chosen)
    assert few.shared(rows) == len(set(chosen))


@pytest.mark.parametrize(
    "changed",
    [
        {"b": 1, "a": "x"},
        {"a": "x", "b": 1.0},
        {"a": "x", "b": True},
        {"a": "x", "b": 1, "c": None},
        {"a": "x"},
        {"a": ["x"], "b": 1},
        {"a": "x", "b": Decimal(1)},
        {"a": "x", "b": datetime.date(2026, 1, 2)},
        {"a": "x", "b": datetime.date(2026, 1, 3)},
        {"a": b"x", "b": 1},
        {"a": "x\ud83d", "b": 1},
        {"a": np.float32(2), "b": Decimal(1)},
    ],
)
def test_another_row_has_another_digest(changed: Row) -> None:
    others = [{"a": "x", "b": 1}, {"a": "x", "b": Decimal("1.0")}]
    assert digest(changed) == digest(dict(changed))
    assert digest(changed) not in map(digest, others)


def test_equal_rows_have_the_same_digest_under_every_python() -> None:
    shared = ["twice"] * 2
    row = {"text": "twice", "list": shared, "again": shared, "n": 2**70, "x": 0.1, "none": None}
    apart = {"text": "".join("twice"), "list": ["tw" + "ice", "twice"], "again": list(shared)}
    assert digest(row) == digest({**apart, "n": 2**70, "x": 0.1, "none": None})
    assert digest(row).hex() == "9d549800d45a1dbdad027beefe8cc83a"


def test_a_store_that_hands_out_other_rows_than_were_selected_is_at_fault() -> None:
    class Forgetful(StreamedRows):
        @hookimpl
        def to_list(self, handle: list[Row]) -> list[Row]:
            return handle[1:]

    rows = opened(Forgetful({"train": numbers(3)}))
    with pytest.raises(AdapterError, match="2 rows were selected, and 1 came") as caught:
        rows.read([0, 1])
    assert caught.value.callback == "to_list"


# --- streams ---


@pytest.mark.parametrize(
    ("split", "expected"),
    [(None, range(5)), ("train", range(5)), ("train[:2]", range(2)), ("train[2:4]", range(2, 4))],
)
def test_a_part_of_a_stream_is_known_by_its_place(split: str | None, expected: range) -> None:
    store = RowsInMemory({"train": numbers(5)})
    with Kitchen({"dataset_store": store}) as kitchen:
        handle, start = open_stream(kitchen, Source("x", split))
        assert [row["n"] for row in kitchen.dataset_store.to_list(handle)] == list(expected)
    assert start == expected.start
    assert store.streamed


@pytest.mark.parametrize("split", ["train[:90%]", "train[-2:]", "train+test"])
def test_a_part_of_a_stream_that_has_to_be_counted_is_refused(split: str) -> None:
    with (
        Kitchen({"dataset_store": RowsInMemory({"train": [], "test": []})}) as kitchen,
        pytest.raises(InvalidInput, match="a stream"),
    ):
        open_stream(kitchen, Source("x", split))


# --- rows to evaluate on ---


@given(st.integers(2, 200), st.integers(1, 45), st.integers(0, 2**32))
def test_a_held_out_part_is_the_same_each_time_and_shares_no_row(
    count: int, percent: int, seed: int
) -> None:
    size = percent / 100
    rows = opened(RowsInMemory({"train": numbers(count)}))
    train, test = map(of, hold_out(rows, size, seed))
    assert [train, test] == [of(part) for part in hold_out(rows, size, seed)]
    assert sorted(train + test) == list(range(count))
    assert train == sorted(train)
    assert test == sorted(test)
    assert len(test) == -(-count * percent // 100)
    assert len(hold_out(rows, 1, seed)[1]) == 1


def test_holding_out_everything_is_refused() -> None:
    with pytest.raises(InvalidInput, match="test_size = 2 leaves nothing of 2 rows"):
        hold_out(opened(RowsInMemory({"train": numbers(2)})), 2, 0)


NOON = datetime.datetime(2026, 10, 25, 2, 30)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (1, True),
        (1, 1.0),
        (0.0, -0.0),
        ("a", b"a"),
        ([1], (1,)),
        ({"a": 1, "b": 2}, {"b": 2, "a": 1}),
        (np.int64(0), np.float64(0)),
        (np.int64(0), bytes(8)),
        (np.zeros((2, 3)), np.zeros((3, 2))),
        (np.zeros(8, np.uint8), np.zeros(1)),
        ([NOON, b"a"], [NOON, {"bytes": "61"}]),
        ([NOON, (1,)], [NOON, [1]]),
        ({1: NOON}, {"1": NOON}),
        (NOON, NOON.replace(fold=1)),
        (NOON, NOON.replace(tzinfo=datetime.UTC)),
        (Decimal("1.0"), Decimal("1.00")),
    ],
)
def test_values_that_differ_in_type_shape_or_order_have_other_digests(one: Any, other: Any) -> None:
    assert digest({"x": one}) != digest({"x": other})
    assert digest({"x": one}) == digest({"x": copy.deepcopy(one)})


def test_an_object_that_does_not_show_its_content_is_known_by_its_type() -> None:
    assert digest({"x": object()}) == digest({"x": object()})


def test_a_row_that_is_nested_too_deeply_is_refused() -> None:
    nested: list[Any] = []
    for _ in range(100_000):
        nested = [nested]
    with pytest.raises(InvalidInput, match="nested too deeply"):
        digest({"x": nested})


def test_a_row_that_changes_after_it_was_counted_is_refused() -> None:
    changing: list[Row] = [{"x": 1}, {"x": 2}]
    rows = opened(RowsInMemory({"train": changing}))
    changing[1]["x"] = 3
    assert rows.read([0]) == [("row 0", {"x": 1})]
    with pytest.raises(InvalidInput, match="row 1 has changed since the data set was opened"):
        rows.read([1])
