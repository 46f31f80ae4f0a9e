"""The store of made-up data sets keeps every promise of its port."""

from typing import Any

import pytest
from crucible_kitchen import DatasetStore, InvalidInput, Kitchen, Unavailable

from kitchen_noop import dataset_store


def noop(**options: Any) -> DatasetStore:
    table = {"use": dataset_store, "latency_scale": 0, **options}
    return Kitchen(adapters={"dataset_store": table}).dataset_store


@pytest.fixture
def store() -> DatasetStore:
    return noop()


def texts(store: DatasetStore, handle: Any) -> list[str]:
    return [row["text"] for row in store.to_list(handle)]


def test_any_data_set_has_the_configured_number_of_rows() -> None:
    store = noop(rows={"train": 7, "validation": 0})
    assert len(store.to_list(store.load_dataset("any", "train"))) == 7
    assert store.to_list(store.load_dataset("any", "validation", name="x", revision="y")) == []


def test_rows_come_in_every_shape_that_workflows_read(store: DatasetStore) -> None:
    for row in store.to_list(store.take(store.load_dataset("sums", "train"), 20)):
        a, b = (int(number) for number in row["prompt"][len("What is ") : -1].split(" + "))
        assert row["completion"] == str(a + b)
        assert row["text"] == f"{row['prompt']} {row['completion']}"
        assert [m["content"] for m in row["messages"]] == [row["prompt"], row["completion"]]
        assert row["chosen"] == row["completion"] != row["rejected"]


def test_rows_are_those_of_their_data_set_and_split(store: DatasetStore) -> None:
    def head(dataset_id: str, split: str, name: str | None = None) -> list[str]:
        return texts(store, store.take(store.load_dataset(dataset_id, split, name), 30))

    assert head("a", "train") == head("a", "train")
    others = [head("b", "train"), head("a", "test"), head("a", "train", "hard")]
    assert head("a", "train") not in others


def test_without_a_split_there_is_the_only_one_or_a_choice(store: DatasetStore) -> None:
    assert len(store.to_list(noop(rows={"all": 3}).load_dataset("a"))) == 3
    handle = store.load_dataset("a")
    with pytest.raises(InvalidInput, match="get_split"):
        store.to_list(handle)
    assert len(store.to_list(store.get_split(handle, "test"))) == 100


def test_a_file_has_one_split() -> None:
    with Kitchen({"dataset_store": {"use": dataset_store, "latency_scale": 0}}) as kitchen:
        store = kitchen.dataset_store
        assert len(store.to_list(store.load_dataset("folder/rows.jsonl"))) == 1000


def test_the_order_of_a_seed_is_the_same_on_every_machine() -> None:
    store = noop(rows={"train": 10})
    handle = store.load_dataset("a", "train")
    assert store.shuffle(handle, 0).indices.tolist() == [3, 2, 1, 8, 6, 0, 7, 4, 5, 9]
    assert store.shuffle(handle, -1).indices.tolist() != store.shuffle(handle, 1).indices.tolist()


def test_streaming_and_buffers_change_no_order(store: DatasetStore) -> None:
    orders = [
        texts(store, store.shuffle(store.load_dataset("a", "test", streaming=s), 3, b))
        for s in (False, True)
        for b in (None, 10)
    ]
    assert orders == [orders[0]] * 4


def test_a_failing_store_is_unavailable() -> None:
    with pytest.raises(Unavailable):
        noop(failure_rate=1).load_dataset("a", "train")
