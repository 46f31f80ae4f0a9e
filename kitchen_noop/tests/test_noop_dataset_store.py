"""The store of made-up data sets keeps every promise of its port."""

from typing import Any

import pytest
from crucible_kitchen import DatasetStore, InvalidInput, Kitchen, NotFound, Unavailable
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

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


def test_rows_are_those_of_their_data_set_and_split(store: DatasetStore) -> None:
    def head(dataset_id: str, split: str, name: str | None = None) -> list[str]:
        return texts(store, store.take(store.load_dataset(dataset_id, split, name), 30))

    assert head("a", "train") == head("a", "train")
    others = [head("b", "train"), head("a", "test"), head("a", "train", "hard")]
    assert head("a", "train") not in others


def test_rows_may_be_changed_by_whoever_gets_them(store: DatasetStore) -> None:
    handle = store.take(store.load_dataset("a", "train"), 1)
    row = store.to_list(handle)[0]
    before = row["messages"][0]["content"]
    row["messages"][0]["content"] = "changed"
    assert store.to_list(handle)[0]["messages"][0]["content"] == before


def test_a_missing_split_is_not_found_and_the_error_lists_the_splits(store: DatasetStore) -> None:
    with pytest.raises(NotFound, match=r"'dev'.*train, test"):
        store.load_dataset("a", "dev")
    with pytest.raises(NotFound, match=r"'dev'.*train, test"):
        store.get_split(store.load_dataset("a"), "dev")


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


def test_another_split_comes_in_its_stored_order(store: DatasetStore) -> None:
    shuffled = store.take(store.shuffle(store.load_dataset("a", "train"), 1), 5)
    other = store.get_split(shuffled, "test")
    assert texts(store, other) == texts(store, store.load_dataset("a", "test"))


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


@given(n=st.integers(0, 120), size=st.integers(1, 130), seed=st.integers(0, 9))
def test_skipping_goes_on_where_reading_stopped(n: int, size: int, seed: int) -> None:
    store = noop()
    shuffled = store.shuffle(store.load_dataset("a", "test", streaming=True), seed)
    batches = list(store.stream(store.skip(shuffled, n), batch_size=size))
    assert all(len(batch) == size for batch in batches[:-1])
    read = store.to_list(store.take(shuffled, n))
    assert read + [row for batch in batches for row in batch] == store.to_list(shuffled)


@pytest.mark.parametrize("selection", [[100], [-1], range(99, 102), [0.5], [[1]]])
def test_a_selection_that_does_not_exist_is_invalid(store: DatasetStore, selection: Any) -> None:
    with pytest.raises(InvalidInput):
        store.select(store.load_dataset("a", "test"), selection)


def test_numbers_of_rows_are_not_negative(store: DatasetStore) -> None:
    handle = store.load_dataset("a", "test")
    for wrong in (
        lambda: store.take(handle, -1),
        lambda: store.skip(handle, -1),
        lambda: store.shuffle(handle, 0, 0),
        lambda: list(store.stream(handle, 0)),
    ):
        with pytest.raises(InvalidInput):
            wrong()


def test_a_failing_store_is_unavailable() -> None:
    with pytest.raises(Unavailable):
        noop(failure_rate=1).load_dataset("a", "train")


class Handles(RuleBasedStateMachine):
    """Any chain of operations equals the same on a list, and no handle ever changes."""

    @initialize(streaming=st.booleans())
    def load(self, streaming: bool) -> None:
        self.store = noop(rows={"train": 12})
        handle = self.store.load_dataset("a", "train", streaming=streaming)
        self.handles = [(handle, texts(self.store, handle))]

    @rule(data=st.data(), count=st.integers(0, 15))
    def take(self, data: st.DataObject, count: int) -> None:
        handle, rows = data.draw(st.sampled_from(self.handles))
        self.handles.append((self.store.take(handle, count), rows[:count]))

    @rule(data=st.data(), count=st.integers(0, 15))
    def skip(self, data: st.DataObject, count: int) -> None:
        handle, rows = data.draw(st.sampled_from(self.handles))
        self.handles.append((self.store.skip(handle, count), rows[count:]))

    @rule(data=st.data())
    def select(self, data: st.DataObject) -> None:
        handle, rows = data.draw(st.sampled_from(self.handles))
        indices = data.draw(st.lists(st.sampled_from(range(len(rows))))) if rows else []
        self.handles.append((self.store.select(handle, indices), [rows[i] for i in indices]))

    @rule(data=st.data(), seed=st.integers())
    def shuffle(self, data: st.DataObject, seed: int) -> None:
        handle, rows = data.draw(st.sampled_from(self.handles))
        shuffled = self.store.shuffle(handle, seed)
        order = texts(self.store, shuffled)
        assert sorted(order) == sorted(rows)
        assert texts(self.store, self.store.shuffle(handle, seed)) == order
        self.handles.append((shuffled, order))

    @invariant()
    def every_handle_is_as_it_was(self) -> None:
        for handle, rows in getattr(self, "handles", ()):
            assert texts(self.store, handle) == rows


TestHandles = Handles.TestCase
TestHandles.settings = settings(stateful_step_count=12, max_examples=50)
