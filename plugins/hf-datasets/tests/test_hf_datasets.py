"""What the dataset store promises: local files, whole and streamed, and the Hub's errors."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import random
import socket
import subprocess
import sys
import threading
import tracemalloc
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import crucible_adapter_hf_datasets.dataset_store as hf_datasets
import numpy as np
import pytest
from crucible_adapter_hf_datasets import library
from crucible_adapter_hf_datasets.views import Pipeline, Table, permutation
from crucible_kitchen import (
    DatasetStore,
    InvalidInput,
    Kitchen,
    NotFound,
    Unavailable,
    Unsupported,
)
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

both_ways = pytest.mark.parametrize("streaming", [False, True], ids=["whole", "streamed"])


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> DatasetStore:
    cache = tmp_path_factory.mktemp("cache")
    adapter = {"use": hf_datasets, "cache_dir": cache}
    return Kitchen(adapters={"dataset_store": adapter}).dataset_store


@pytest.fixture(autouse=True)
def working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def numbers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("data") / "numbers.jsonl", range(200))


def write(file: Path, numbers: Any) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(json.dumps({"n": n}) + "\n" for n in numbers))
    return file


def values(store: DatasetStore, handle: Any) -> list[int]:
    return [row["n"] for row in store.to_list(handle)]


# --- files and folders ---


@both_ways
@pytest.mark.parametrize(
    ("name", "content", "rows"),
    [
        ("a.jsonl", '{"n": 1, "t": "é"}\n{"n": 2, "t": null}\n', [(1, "é"), (2, None)]),
        ("a.json", '[{"n": 1, "t": "x"}]', [(1, "x")]),
        ("a.csv", "n,t\n1,x\n2,y\n", [("1", "x"), ("2", "y")]),
        ("a.tsv", "n\tt\n1\tx,y\n", [("1", "x,y")]),
        ("with space [1] {a,b} *?#%41.v2.jsonl", '{"n": 1, "t": "x"}\n', [(1, "x")]),
    ],
)
def test_a_file_is_its_rows(
    store: DatasetStore, name: str, content: str, rows: list[Any], streaming: bool
) -> None:
    Path(name).write_text(content, encoding="utf-8")
    for dataset_id in (name, f"./{name}", str(Path(name).absolute())):
        handle = store.load_dataset(dataset_id, streaming=streaming)
        assert [(row["n"], row["t"]) for row in store.to_list(handle)] == rows


@both_ways
def test_text_and_parquet_and_compressed_files_are_read(
    store: DatasetStore, streaming: bool
) -> None:
    import pyarrow as pa
    import pyarrow.parquet

    Path("a.txt").write_text("first\nsecond\n")
    pa.parquet.write_table(pa.table({"n": [1, 2]}), "a.parquet")
    Path("b.jsonl.gz").write_bytes(gzip.compress(b'{"n": 3}\n'))

    def rows(name: str) -> list[dict[str, Any]]:
        return store.to_list(store.load_dataset(name, streaming=streaming))

    assert rows("a.txt") == [{"text": "first"}, {"text": "second"}]
    assert rows("a.parquet") == [{"n": 1}, {"n": 2}]
    assert rows("b.jsonl.gz") == [{"n": 3}]


@both_ways
def test_nested_values_come_back_as_python_objects(store: DatasetStore, streaming: bool) -> None:
    messages = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "🦜\u2028ü"}]
    rows = [{"messages": messages[:n], "tokens": [1] * n} for n in (2, 0, 1)]
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    Path("chat.jsonl").write_text(text, encoding="utf-8")
    assert store.to_list(store.load_dataset("chat.jsonl", streaming=streaming)) == rows


@both_ways
def test_a_row_has_the_fields_that_it_was_given(store: DatasetStore, streaming: bool) -> None:
    rows = [{"n": 1}, {"t": "x"}, {"n": None, "t": {"a": None}}, {"t": [{"b": 1}, {"c": None}]}]
    Path("a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert store.to_list(store.load_dataset("a.jsonl", streaming=streaming)) == rows


def test_a_file_in_the_home_folder_is_found(
    store: DatasetStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    write(tmp_path / "home" / "a.jsonl", [1])
    assert values(store, store.load_dataset("~/a.jsonl")) == [1]


def test_a_file_has_the_one_split_train(store: DatasetStore) -> None:
    write(Path("a.jsonl"), [1])
    assert values(store, store.load_dataset("a.jsonl", split="train")) == [1]
    with pytest.raises(NotFound, match=r"a\.jsonl: has no split 'test'; it has train$"):
        store.load_dataset("a.jsonl", split="test")


@both_ways
def test_a_pattern_is_its_files_in_the_order_of_their_names(
    store: DatasetStore, streaming: bool
) -> None:
    for number in (2, 10, 1):
        write(Path(f"data/part-{number:02}.jsonl"), [number])
    handle = store.load_dataset("data/part-*.jsonl", streaming=streaming)
    assert values(store, handle) == [1, 2, 10]


@both_ways
def test_a_folder_has_the_splits_that_its_files_are_named_for(
    store: DatasetStore, streaming: bool
) -> None:
    write(Path("data/train.jsonl"), [1, 2])
    write(Path("data/test.jsonl"), [3])
    train = store.load_dataset("data", split="train", streaming=streaming)
    assert values(store, train) == [1, 2]
    assert values(store, store.get_split(train, "test")) == [3]


@both_ways
def test_without_a_split_get_split_chooses_and_nothing_else_goes(
    store: DatasetStore, streaming: bool
) -> None:
    write(Path("data/train.jsonl"), [1, 2])
    write(Path("data/test.jsonl"), [3])
    handle = store.load_dataset("./data", streaming=streaming)
    assert values(store, store.get_split(handle, "test")) == [3]
    calls: list[Callable[[], object]] = [
        lambda: store.to_list(handle),
        lambda: store.stream(handle),
        lambda: store.shuffle(handle, seed=0),
        lambda: store.take(handle, 1),
        lambda: store.skip(handle, 1),
        lambda: store.select(handle, [0]),
    ]
    for call in calls:
        with pytest.raises(InvalidInput, match="choose a split first: train, test"):
            call()


@both_ways
def test_a_missing_split_is_not_found_and_those_there_are_are_listed(
    store: DatasetStore, streaming: bool
) -> None:
    write(Path("data/train.jsonl"), [1, 2])
    write(Path("data/test.jsonl"), [3])
    with pytest.raises(NotFound, match="no split 'dev'; it has train, test"):
        store.load_dataset("data", split="dev", streaming=streaming)
    handle = store.load_dataset("data", split="train", streaming=streaming)
    with pytest.raises(NotFound, match="no split 'dev'; it has train, test"):
        store.get_split(handle, "dev")


@both_ways
def test_another_split_comes_in_its_stored_order(store: DatasetStore, streaming: bool) -> None:
    write(Path("data/train.jsonl"), range(50))
    write(Path("data/test.jsonl"), range(50, 100))
    train = store.load_dataset("data", split="train", streaming=streaming)
    shuffled = store.take(store.shuffle(train, seed=1), 3)
    assert values(store, store.get_split(shuffled, "test")) == list(range(50, 100))
    assert values(store, store.get_split(shuffled, "train")) == list(range(50))


@pytest.mark.parametrize(
    "missing", ["no.jsonl", "./no", "../no/no", "data/no.csv.gz", "~/no", "no/*.jsonl", "/no"]
)
def test_a_path_that_leads_nowhere_is_not_found_with_the_place_that_was_tried(
    store: DatasetStore, working_directory: Path, missing: str
) -> None:
    with pytest.raises(NotFound) as caught:
        store.load_dataset(missing)
    assert str(Path(missing).expanduser().absolute()) in str(caught.value)
    assert f"working directory {working_directory}" in str(caught.value)


def test_an_edited_file_is_read_again(store: DatasetStore) -> None:
    for number in range(3):
        write(Path("a.jsonl"), [number])
        os.utime("a.jsonl", ns=(0, 1_700_000_000_000_000_000 + number * 1_000_000))
        assert values(store, store.load_dataset("a.jsonl")) == [number]


def test_files_of_one_name_in_different_folders_are_distinguished(
    store: DatasetStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    for folder, number in (("one", 1), ("two", 2)):
        write(Path(folder, "a.jsonl"), [number])
        os.utime(Path(folder, "a.jsonl"), ns=(0, 0))
        with monkeypatch.context() as patch:
            patch.chdir(folder)
            assert values(store, store.load_dataset("a.jsonl")) == [number]


@both_ways
def test_a_bad_line_is_refused_with_its_file_and_number(
    store: DatasetStore, working_directory: Path, streaming: bool
) -> None:
    Path("a.jsonl").write_text('{"n": 1}\n\n{"n": 2\n{"n": 3}\n')
    with pytest.raises(InvalidInput, match=f"{working_directory}/a.jsonl, line 3: "):
        store.to_list(store.load_dataset("a.jsonl", streaming=streaming))


@both_ways
def test_a_bad_line_in_a_folder_is_refused_with_its_file_and_number(
    store: DatasetStore, working_directory: Path, streaming: bool
) -> None:
    write(Path("data/train.jsonl"), [1])
    Path("data/test.jsonl").write_text('{"n": 1}\n{"n":\n')
    with pytest.raises(InvalidInput, match=f"{working_directory}/data/test.jsonl, line 2: "):
        store.to_list(store.load_dataset("data", "test", streaming=streaming))


@both_ways
def test_text_that_is_not_unicode_is_refused_with_its_file_and_number(
    store: DatasetStore, streaming: bool
) -> None:
    Path("a.jsonl").write_bytes(b'{"t": "x"}\n{"t": "\xff"}\n')
    with pytest.raises(InvalidInput, match=r"a\.jsonl, line 2: "):
        store.to_list(store.load_dataset("a.jsonl", streaming=streaming))


@both_ways
def test_a_bad_table_is_refused_with_its_file(store: DatasetStore, streaming: bool) -> None:
    Path("a.csv").write_text("n\n1\n2,3,4\n")
    Path("b.parquet").write_bytes(b"no parquet")
    for name in ("a.csv", "b.parquet"):
        with pytest.raises(InvalidInput, match=name):
            store.to_list(store.load_dataset(name, streaming=streaming))


@both_ways
@pytest.mark.parametrize(
    ("name", "content"),
    [("a.jsonl", ""), ("a.json", "[]"), ("a.csv", "n,t\n"), ("a.txt", "")],
)
def test_a_file_without_rows_is_refused(
    store: DatasetStore, name: str, content: str, streaming: bool
) -> None:
    Path(name).write_text(content)
    with pytest.raises(InvalidInput, match=f"{name}: holds no rows"):
        store.to_list(store.load_dataset(name, streaming=streaming))


@both_ways
@pytest.mark.parametrize("name", ["a.json", "a.csv"])
def test_an_empty_file_is_refused(store: DatasetStore, name: str, streaming: bool) -> None:
    Path(name).touch()
    with pytest.raises(InvalidInput, match=name):
        store.to_list(store.load_dataset(name, streaming=streaming))


@both_ways
def test_a_table_without_rows_is_refused(store: DatasetStore, streaming: bool) -> None:
    import pyarrow as pa
    import pyarrow.parquet

    pa.parquet.write_table(pa.table({"n": pa.array([], pa.int64())}), "a.parquet")
    with pytest.raises(InvalidInput, match=r"a\.parquet: holds no rows"):
        store.to_list(store.load_dataset("a.parquet", streaming=streaming))


def test_a_folder_without_data_is_not_found(store: DatasetStore) -> None:
    Path("data").mkdir()
    with pytest.raises(NotFound, match="data"):
        store.load_dataset("data")


def test_a_file_of_unknown_or_mixed_format_is_refused(store: DatasetStore) -> None:
    Path("a.xyz").touch()
    Path("b.csv").touch()
    Path("b.jsonl").touch()
    with pytest.raises(InvalidInput, match=r"a\.xyz is not known by its name; known are \.jsonl"):
        store.load_dataset("./a.xyz")
    with pytest.raises(InvalidInput, match=r"several formats: csv \(b.csv\), json \(b.jsonl\)"):
        store.load_dataset("./b.*")


def test_what_a_file_does_not_have_is_unsupported(store: DatasetStore) -> None:
    write(Path("data/train.jsonl"), [1])
    with pytest.raises(Unsupported, match="no revisions, but 'v1'"):
        store.load_dataset("data/train.jsonl", revision="v1")
    with pytest.raises(Unsupported, match="no revisions, but 'v1'"):
        store.load_dataset("data", revision="v1")
    with pytest.raises(Unsupported, match="no configurations, but 'main'"):
        store.load_dataset("data/train.jsonl", name="main")
    with pytest.raises(NotFound, match="'main' not found"):
        store.load_dataset("data", name="main")


def test_a_folder_may_have_configurations(store: DatasetStore) -> None:
    write(Path("data/easy.jsonl"), [1])
    write(Path("data/hard.jsonl"), [2])
    Path("data/README.md").write_text(
        "---\nconfigs:\n- config_name: easy\n  data_files: easy.jsonl\n"
        "- config_name: hard\n  data_files: hard.jsonl\n---\n"
    )
    assert values(store, store.load_dataset("data", name="hard")) == [2]
    with pytest.raises(InvalidInput, match="easy"):
        store.load_dataset("data")


# --- order ---


@both_ways
@pytest.mark.parametrize("buffer_size", [None, 1, 7, 1000])
def test_a_shuffle_keeps_every_row_once_and_repeats_for_its_seed(
    store: DatasetStore, numbers: Path, streaming: bool, buffer_size: int | None
) -> None:
    handle = store.load_dataset(str(numbers), streaming=streaming)

    def shuffled(seed: int) -> list[int]:
        return values(store, store.shuffle(handle, seed=seed, buffer_size=buffer_size))

    assert Counter(shuffled(1)) == Counter(range(200))
    assert shuffled(1) == shuffled(1)
    if buffer_size != 1 or not streaming:
        assert shuffled(1) != list(range(200))
        assert shuffled(1) != shuffled(2)


def test_the_order_of_a_seed_is_the_same_on_every_machine() -> None:
    # The bits of PCG64 are promised for ever, so these figures are, too.
    assert permutation(np.random.PCG64(7), 10).tolist() == [6, 3, 4, 9, 0, 2, 8, 7, 5, 1]
    assert sorted(permutation(np.random.PCG64(2**64), 1000)) == list(range(1000))
    assert permutation(np.random.PCG64(0), 0).tolist() == []


def test_a_shuffle_does_not_depend_on_the_state_of_anything_else(
    store: DatasetStore, numbers: Path
) -> None:
    handle = store.load_dataset(str(numbers))
    orders = []
    for seed in (0, 1):
        np.random.seed(seed)
        random.seed(seed)
        orders.append(values(store, store.shuffle(handle, seed=5)))
    assert orders[0] == orders[1]


def test_a_stream_through_a_buffer_for_all_has_the_order_of_the_whole(
    store: DatasetStore, numbers: Path
) -> None:
    whole = store.shuffle(store.load_dataset(str(numbers)), seed=3)
    stream = store.shuffle(store.load_dataset(str(numbers), streaming=True), seed=3)
    assert values(store, stream) == values(store, whole)


def test_a_shuffled_stream_mixes_within_the_buffer(store: DatasetStore, numbers: Path) -> None:
    stream = store.load_dataset(str(numbers), streaming=True)
    order = values(store, store.shuffle(stream, seed=3, buffer_size=20))
    assert all(value < place + 20 for place, value in enumerate(order))
    assert order[:10] == [0, 1, 18, 4, 6, 7, 2, 21, 26, 19]  # the same on every machine, as above


@both_ways
@pytest.mark.parametrize("read", [0, 1, 19, 50, 199, 200])
def test_skipping_continues_exactly_where_a_shuffled_reader_stopped(
    store: DatasetStore, numbers: Path, streaming: bool, read: int
) -> None:
    handle = store.load_dataset(str(numbers), streaming=streaming)
    shuffled = store.shuffle(handle, seed=11, buffer_size=20)
    rest = store.skip(shuffled, read)
    assert values(store, store.take(shuffled, read)) + values(store, rest) == values(
        store, shuffled
    )


@both_ways
def test_a_new_seed_an_epoch_gives_each_epoch_its_own_order_after_take_too(
    store: DatasetStore, numbers: Path, streaming: bool
) -> None:
    handle = store.load_dataset(str(numbers), streaming=streaming)
    firsts = {
        tuple(values(store, store.take(store.shuffle(handle, seed=epoch), 10)))
        for epoch in range(5)
    }
    assert len(firsts) == 5


@both_ways
@pytest.mark.parametrize("seed", [-1, "7", 1.5, None])
def test_a_seed_that_is_not_a_natural_number_is_refused(
    store: DatasetStore, numbers: Path, streaming: bool, seed: Any
) -> None:
    handle = store.load_dataset(str(numbers), streaming=streaming)
    with pytest.raises(InvalidInput, match="seed"):
        store.shuffle(handle, seed=seed)


# --- any sequence of operations, against a list ---


def apply_to_list(rows: list[int], operation: tuple[str, Any]) -> list[int]:
    name, argument = operation
    match name:
        case "take":
            return rows[:argument]
        case "skip":
            return rows[argument:]
        case "select":
            return [rows[index] for index in argument]
        case _:
            return [rows[place] for place in permutation(np.random.PCG64(argument), len(rows))]


@st.composite
def operations(draw: st.DrawFn, count: int = 12) -> list[tuple[str, Any]]:
    chosen: list[tuple[str, Any]] = []
    for _ in range(draw(st.integers(0, 5))):
        name = draw(st.sampled_from(["take", "skip", "select", "shuffle"]))
        argument: Any
        if name in ("take", "skip"):
            argument = draw(st.integers(0, 15))
            count = min(count, argument) if name == "take" else max(0, count - argument)
        elif name == "select":
            index = st.integers(0, count - 1)
            lists = st.lists(index, max_size=6) if count else st.just([])
            ranges = st.builds(range, st.integers(0, count), st.just(count), st.integers(1, 3))
            backwards = st.just(range(count - 1, -1, -1))
            argument = draw(lists | ranges | backwards)
            count = len(argument)
        else:
            argument = draw(st.integers(0, 2**70))
        chosen.append((name, argument))
    return chosen


@both_ways
@settings(
    deadline=None,
    max_examples=150,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(operations=operations(), batch_size=st.integers(1, 20))
def test_any_sequence_of_operations_does_what_a_list_does(
    store: DatasetStore,
    numbers: Path,
    streaming: bool,
    operations: list[tuple[str, Any]],
    batch_size: int,
) -> None:
    handle = few_numbers(store, numbers, streaming)
    rows = list(range(12))
    steps = [(handle, rows)]
    for operation in operations:
        name, argument = operation
        handle = getattr(store, name)(handle, argument)
        rows = apply_to_list(rows, operation)
        steps.append((handle, rows))
    for step, expected in steps:  # the older handles, too: none was changed
        assert values(store, step) == expected
    batches = list(store.stream(handle, batch_size))
    assert [row["n"] for batch in batches for row in batch] == rows
    assert all(len(batch) == batch_size for batch in batches[:-1])
    assert all(batches)


_few: dict[tuple[int, bool], Any] = {}


def few_numbers(store: DatasetStore, numbers: Path, streaming: bool) -> Any:
    key = (id(store), streaming)
    if key not in _few:
        file = write(numbers.parent / "few.jsonl", range(12))
        _few[key] = store.load_dataset(str(file), streaming=streaming)
    return _few[key]


@both_ways
def test_a_handle_may_be_read_again_and_by_several_at_once(
    store: DatasetStore, numbers: Path, streaming: bool
) -> None:
    handle = store.shuffle(store.load_dataset(str(numbers), streaming=streaming), seed=1)
    first = values(store, handle)
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(lambda _: values(store, handle), range(20))) == [first] * 20


@both_ways
def test_returned_rows_may_be_changed(store: DatasetStore, streaming: bool) -> None:
    Path("a.jsonl").write_text('{"messages": [{"content": "hi"}]}\n')
    handle = store.select(store.load_dataset("a.jsonl", streaming=streaming), [0, 0])
    first, second = store.to_list(handle)
    first["messages"][0]["content"] = "changed"
    assert second["messages"] == store.to_list(handle)[0]["messages"] == [{"content": "hi"}]


@both_ways
def test_two_streams_of_a_handle_do_not_disturb_each_other(
    store: DatasetStore, numbers: Path, streaming: bool
) -> None:
    handle = store.load_dataset(str(numbers), streaming=streaming)
    expected = [[{"n": start}, {"n": start + 1}] for start in range(0, 200, 2)]
    with store.stream(handle, 2) as one:
        begun = [next(one) for _ in range(10)]
        with store.stream(handle, 2) as other:
            pairs = [(next(one), next(other)) for _ in range(90)]
            assert [b for _, b in pairs] + list(other) == expected
        assert begun + [a for a, _ in pairs] + list(one) == expected


@both_ways
@pytest.mark.parametrize("selection", [[200], [-1], [0, 999], range(150, 201), range(3, -2, -1)])
def test_selecting_out_of_range_is_refused(
    store: DatasetStore, numbers: Path, streaming: bool, selection: Any
) -> None:
    handle = store.load_dataset(str(numbers), streaming=streaming)
    with pytest.raises(InvalidInput, match="cannot select row"):
        store.to_list(store.select(handle, selection))


def test_a_negative_index_is_refused_before_a_stream_is_read(
    store: DatasetStore, numbers: Path
) -> None:
    handle = store.load_dataset(str(numbers), streaming=True)
    with pytest.raises(InvalidInput, match="cannot select row -1"):
        store.select(handle, [3, -1])


@both_ways
@pytest.mark.parametrize("selection", [[1.5], ["a"], [[1]], [True, False]])
def test_a_selection_that_is_not_a_list_of_integers_is_refused(
    store: DatasetStore, numbers: Path, streaming: bool, selection: Any
) -> None:
    handle = store.load_dataset(str(numbers), streaming=streaming)
    with pytest.raises(InvalidInput, match="flat sequence of integers"):
        store.select(handle, selection)


@both_ways
def test_numpy_selections_are_selections(
    store: DatasetStore, numbers: Path, streaming: bool
) -> None:
    handle = store.load_dataset(str(numbers), streaming=streaming)
    chosen: Any = np.array([5, 3, 5])
    assert values(store, store.select(handle, chosen)) == [5, 3, 5]


@both_ways
def test_negative_counts_and_sizes_below_one_are_refused(
    store: DatasetStore, numbers: Path, streaming: bool
) -> None:
    handle = store.load_dataset(str(numbers), streaming=streaming)
    calls: list[Callable[[], object]] = [
        lambda: store.take(handle, -1),
        lambda: store.skip(handle, -1),
        lambda: store.stream(handle, 0),
        lambda: store.shuffle(handle, 1, buffer_size=0),
    ]
    for call in calls:
        with pytest.raises(InvalidInput):
            call()


# --- cost ---


def test_a_stream_reads_no_further_than_it_is_asked_to() -> None:
    read: list[int] = []

    def source() -> Iterator[dict[str, int]]:
        for n in range(100_000):
            read.append(n)
            yield {"n": n}

    rows = Pipeline(source).shuffle(1, 50).select(range(0, 40, 2)).take(10)
    assert len(next(rows.rows(10))) == 10
    assert read[-1] <= 200


def test_a_streamed_file_is_not_read_whole(store: DatasetStore) -> None:
    with Path("a.jsonl").open("w") as file:
        for n in range(600):
            file.write(json.dumps({"n": n, "filler": "x" * 20_000}) + "\n")
        file.write("no JSON, beyond what is read at a time\n")
    handle = store.load_dataset("a.jsonl", streaming=True)
    assert values(store, store.take(handle, 3)) == [0, 1, 2]
    with pytest.raises(InvalidInput, match="line 601: "):
        store.to_list(handle)


def test_a_stream_takes_bounded_memory() -> None:
    def source() -> Iterator[dict[str, bytes]]:
        for _ in range(40_000):
            yield {"blob": bytes(1000)}

    rows = Pipeline(source).shuffle(1, 500).skip(10).select(range(0, 30_000, 3))
    tracemalloc.start()
    try:
        count = sum(len(batch) for batch in rows.rows(100))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert count == 10_000
    assert peak < 8_000_000  # of 40 MB


def test_a_table_is_read_by_the_batch() -> None:
    read: list[slice | list[int]] = []

    def look_up(places: slice | list[int]) -> list[dict[str, int]]:
        read.append(places)
        assert isinstance(places, list)  # for they are shuffled
        return [{"n": place} for place in places]

    table = Table(look_up, range(10_000)).shuffle(1, None).skip(5).take(5000)
    assert sum(len(batch) for batch in table.rows(1000)) == 5000
    assert len(read) == 5


# --- quiet, lazy, configured ---


def test_importing_the_adapter_does_not_import_datasets() -> None:
    program = (
        "import crucible_adapter_hf_datasets.dataset_store, sys; print('datasets' in sys.modules)"
    )
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    assert found.stdout.strip() == b"False"


@both_ways
def test_a_local_file_needs_no_network(
    store: DatasetStore, monkeypatch: pytest.MonkeyPatch, streaming: bool
) -> None:
    asked: list[object] = []

    def no_network(*args: object, **kwargs: object) -> None:
        asked.append(args)
        raise OSError("no network")

    monkeypatch.setattr(socket, "getaddrinfo", no_network)
    monkeypatch.setattr(socket.socket, "connect", no_network)
    write(Path("data/train.jsonl"), [1])
    for dataset_id in ("data/train.jsonl", "data"):
        assert values(store, store.load_dataset(dataset_id, streaming=streaming)) == [1]
    assert asked == []


@both_ways
def test_loading_prints_nothing_and_leaves_the_library_as_it_was(
    store: DatasetStore,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
    streaming: bool,
) -> None:
    import datasets

    write(Path("a.jsonl"), range(10))
    Path("bad.jsonl").write_text("{\n")

    def state() -> object:
        bars = datasets.are_progress_bars_disabled()
        return bars, datasets.logging.get_verbosity(), datasets.config.HF_UPDATE_DOWNLOAD_COUNTS

    datasets.enable_progress_bars()
    before = state()
    store.to_list(store.load_dataset("a.jsonl", streaming=streaming))
    with pytest.raises(InvalidInput):
        store.to_list(store.load_dataset("bad.jsonl", streaming=streaming))
    assert state() == before
    assert capfd.readouterr() == ("", "")
    assert caplog.records == []


def test_several_loads_at_once_leave_the_library_as_it_was() -> None:
    import datasets

    before = datasets.are_progress_bars_disabled()
    with library.quiet():
        with library.quiet():
            pass
        assert datasets.are_progress_bars_disabled()
    assert datasets.are_progress_bars_disabled() == before


def test_the_token_comes_from_the_environment_and_is_never_shown(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hush")
    options = hf_datasets.Options()
    assert options.token is not None
    assert options.token.get_secret_value() == "hush"
    assert "hush" not in repr(options) + str(options.model_dump(mode="json"))


def test_the_package_offers_the_adapter_by_name(tmp_path: Path) -> None:
    adapter = {"use": "hf-datasets", "cache_dir": str(tmp_path / "cache")}
    write(Path("a.jsonl"), [1])
    with Kitchen(adapters={"dataset_store": adapter}) as kitchen:
        rows = kitchen.dataset_store
        assert rows.supports("stream")
        assert values(rows, rows.load_dataset("a.jsonl")) == [1]


# --- the Hub ---


class Hub(BaseHTTPRequestHandler):
    """What `datasets` asks a Hub for. `org/data` has the branches `main` and `old`; the others
    cannot be had, each for the reason that it is named for.
    """

    protocol_version = "HTTP/1.1"
    wbufsize = -1  # an answer is one packet; several would wait for each other
    branches: ClassVar = {"main": "a" * 40, "old": "b" * 40}
    files: ClassVar = {"a" * 40: b'{"n": 1}\n{"n": 2}\n', "b" * 40: b'{"n": 0}\n'}
    tokens: ClassVar[set[str | None]] = set()

    def do_GET(self) -> None:
        if "org/" in self.path:
            self.tokens.add(self.headers.get("Authorization"))
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        path = self.path.split("?")[0]
        parts = path.split("/")
        if "gated" in path:
            self.reply(403, {"X-Error-Code": "GatedRepo"})
        elif "broken" in path:
            self.reply(501)
        elif "busy" in path:
            self.reply(429)
        elif "org/data" not in path:
            self.reply(404, {"X-Error-Code": "RepoNotFound"})
        elif path.startswith("/api/datasets/org/data/tree/") and len(parts) == 7:
            content = self.files[parts[-1]]
            oid = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
            entry = {"type": "file", "path": "train.jsonl", "size": len(content), "oid": oid}
            self.reply(200, {}, [entry])
        elif path == "/api/datasets/org/data" or path.startswith("/api/datasets/org/data/revision"):
            revision = parts[-1] if "revision" in parts else "main"
            commit = self.branches.get(revision, revision)
            if commit in self.files:
                self.reply(200, {}, {"id": "org/data", "sha": commit, "siblings": [], "tags": []})
            else:
                self.reply(404, {"X-Error-Code": "RevisionNotFound"})
        elif path.endswith("/train.jsonl"):
            self.reply(200, {"ETag": f'"{parts[-2]}"', "X-Repo-Commit": parts[-2]}, parts[-2])
        else:
            self.reply(404, {"X-Error-Code": "EntryNotFound"})

    do_HEAD = do_POST = do_GET  # noqa: N815

    def reply(self, status: int, headers: Mapping[str, str] = {}, body: Any = None) -> None:
        content = self.files.get(body) if isinstance(body, str) else json.dumps(body or {}).encode()
        assert content is not None
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:
        pass


ASK_THE_HUB = """
import sys
from crucible_kitchen import AdapterError, Kitchen
store = Kitchen(
    adapters={"dataset_store": {"use": "hf-datasets", "cache_dir": sys.argv[1], "token": "hush"}}
).dataset_store
for question in sys.argv[2:]:
    dataset_id, _, revision = question.partition("@")
    for streaming in (False, True):
        try:
            handle = store.load_dataset(
                dataset_id, revision=revision or None, streaming=streaming
            )
            print([row["n"] for row in store.to_list(handle)])
        except AdapterError as error:
            print(type(error).__name__, dataset_id in str(error))
"""


def ask_the_hub(cache: Path, *questions: str, **environment: str) -> list[str]:
    """Load each `id@revision`, whole and streamed, in a process of its own."""
    program = [sys.executable, "-c", ASK_THE_HUB, str(cache), *questions]
    found = subprocess.run(
        program,
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | {"USE_TORCH": "0"} | environment,
    )
    assert found.stderr == ""
    whole, streamed = found.stdout.splitlines()[::2], found.stdout.splitlines()[1::2]
    assert whole == streamed
    return whole


@pytest.fixture(scope="module")
def hub() -> Iterator[dict[str, str]]:
    """The environment in which a Hub on this machine is used."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Hub) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        yield {"HF_ENDPOINT": f"http://127.0.0.1:{server.server_port}"}
        server.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def hub_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("hub-cache")


@pytest.fixture(scope="module")
def answers(hub: dict[str, str], hub_cache: Path) -> dict[str, str]:
    """What became of each `id@revision`; one process for all, for `datasets` starts slowly."""
    questions = ["org/data", "org/data@old", f"org/data@{Hub.branches['old']}"]
    questions += ["org/data@none", "org/none", "none", "org/none-v1.5"]
    questions += ["org/gated", "org/busy", "org/broken"]
    return dict(zip(questions, ask_the_hub(hub_cache, *questions, **hub), strict=True))


def test_a_data_set_of_the_hub_is_loaded_at_its_revision(answers: dict[str, str]) -> None:
    assert answers["org/data"] == "[1, 2]"
    assert answers["org/data@old"] == "[0]"
    assert answers[f"org/data@{Hub.branches['old']}"] == "[0]"


def test_the_hub_is_given_the_token(answers: dict[str, str]) -> None:
    assert Hub.tokens == {"Bearer hush"}


def test_what_the_hub_does_not_have_is_not_found_even_if_there_is_a_cached_version(
    answers: dict[str, str],
) -> None:
    for question in ("org/data@none", "org/none", "none"):
        assert answers[question] == "NotFound True"
    assert answers["org/none-v1.5"] == "NotFound True"  # no file, for all that it has a suffix


def test_what_the_hub_refuses_is_distinguished(answers: dict[str, str]) -> None:
    assert answers["org/gated"] == "Unauthorized True"
    assert answers["org/busy"] == "RateLimited True"
    assert answers["org/broken"] == "Unavailable True"


def test_offline_the_cache_is_used_and_what_it_lacks_is_unavailable(
    answers: dict[str, str], hub: dict[str, str], hub_cache: Path
) -> None:
    offline = hub | {"HF_HUB_OFFLINE": "1"}
    found = ask_the_hub(hub_cache, "org/data", "org/data@old", "org/none", **offline)
    assert found == ["[0]", "Unavailable True", "Unavailable True"]  # the version loaded last


def test_a_hub_that_does_not_answer_is_unavailable_and_worth_another_try(
    store: DatasetStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import HfApi

    api = HfApi(endpoint="http://127.0.0.1:9")
    monkeypatch.setattr("huggingface_hub.HfApi", lambda **_: api)
    with pytest.raises(Unavailable, match="org/name") as caught:
        store.load_dataset("org/name")
    assert caught.value.retryable
