"""Rows that are held on disk are those that were written, wherever they are looked up."""

from __future__ import annotations

import datetime
import itertools
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from crucible_adapter_hf_datasets.files import local
from crucible_adapter_hf_datasets.formats.columnar import parquet_batches, parquet_rows
from crucible_adapter_hf_datasets.formats.columns import Columns, columns_of
from crucible_adapter_hf_datasets.spool import Spool
from crucible_kitchen import DatasetStore, InvalidInput, Kitchen
from hypothesis import given, settings
from hypothesis import strategies as st

Row = dict[str, Any]


def number(n: int) -> Row:
    return {"n": n, "text": f"row {n}", "list": [{"a": n}, {"b": None}], "big": 10**30 + n}


def written(path: Path, *tables: pa.Table) -> list[Path]:
    files = [path / f"{place}.parquet" for place, _ in enumerate(tables)]
    for file, table in zip(files, tables, strict=True):
        pq.write_table(table, file)
    return files


def held(files: list[Path]) -> Columns | None:
    return columns_of([local(file) for file in files], parquet_batches, None)


@pytest.mark.parametrize("plain", [True, False])
@settings(deadline=None)
@given(
    count=st.integers(0, 40),
    start=st.integers(0, 40),
    length=st.integers(0, 40),
    places=st.lists(st.integers(0, 39), max_size=12),
)
def test_rows_are_looked_up_like_those_of_a_list(
    plain: bool, count: int, start: int, length: int, places: list[int]
) -> None:
    rows = [number(n) for n in range(count)]
    spool = Spool(iter(rows), None, plain)
    assert len(spool) == count
    assert spool.look_up(slice(start, start + length)) == rows[start : start + length]
    there = [place for place in places if place < count]
    assert spool.look_up(there) == [rows[place] for place in there]


@settings(deadline=None, max_examples=25)
@given(
    sizes=st.lists(st.integers(1, 9), min_size=1, max_size=4),
    slices=st.tuples(st.integers(0, 40), st.integers(0, 40)),
    seed=st.integers(0, 99),
)
def test_columns_are_looked_up_like_rows_of_a_list(
    sizes: list[int], slices: tuple[int, int], seed: int
) -> None:
    rows = [{"n": n, "text": f"row {n}", "none": None if n % 2 else n} for n in range(sum(sizes))]
    schema = pa.Table.from_pylist(rows).schema
    ends = [sum(sizes[:place]) for place in range(len(sizes) + 1)]
    batches = [pa.RecordBatch.from_pylist(rows[a:b], schema) for a, b in itertools.pairwise(ends)]
    columns = Columns(batches, schema, None, None)
    assert len(columns) == len(rows)
    start, length = slices
    assert columns.look_up(slice(start, start + length)) == rows[start : start + length]
    places = random.Random(seed).choices(range(len(rows)), k=7)
    assert columns.look_up(places) == [rows[place] for place in places]


def test_a_null_within_a_struct_is_a_missing_field_where_columns_are_held(tmp_path: Path) -> None:
    table = pa.table({"said": [[{"role": "user", "to": None}], [{"role": "tool", "to": "me"}]]})
    columns = held(written(tmp_path, table))
    assert columns is not None
    expected = [{"said": [{"role": "user"}]}, {"said": [{"role": "tool", "to": "me"}]}]
    assert columns.look_up(slice(0, 2)) == expected
    assert columns.look_up([1, 0]) == expected[::-1]


DAY = datetime.datetime(2026, 5, 4)


@pytest.mark.parametrize(
    "column",
    [
        pa.array([DAY]),
        pa.array([[DAY]]),
        pa.array([[("a", 1)]], pa.map_(pa.string(), pa.int64())),
        pa.array(["a"]).dictionary_encode(),
    ],
    ids=["time", "times", "map", "dictionary"],
)
def test_columns_whose_values_can_be_wrong_are_read_when_they_are_loaded(
    tmp_path: Path, column: pa.Array
) -> None:
    assert held(written(tmp_path, pa.table({"column": column}))) is None


def test_files_of_other_columns_are_rows_of_one_data_set(
    tmp_path: Path, store: DatasetStore
) -> None:
    files = written(tmp_path, pa.table({"n": [1]}), pa.table({"n": ["2"], "more": [3]}))
    assert held(files) is None
    rows = store.to_list(store.load_dataset(str(tmp_path / "*.parquet"), "train"))
    assert rows == [{"n": 1}, {"n": "2", "more": 3}]


def test_a_text_that_is_not_utf_8_is_refused_when_it_is_loaded(
    tmp_path: Path, store: DatasetStore
) -> None:
    bad = pa.Array.from_buffers(
        pa.string(), 1, [None, pa.py_buffer(b"\0\0\0\0\1\0\0\0"), pa.py_buffer(b"\xff")]
    )
    (file,) = written(tmp_path, pa.table({"text": bad}))
    with pytest.raises(InvalidInput, match="cannot be read"):
        store.load_dataset(str(file), "train")


def test_of_a_stream_of_columns_the_rows_before_a_bad_one_come(tmp_path: Path) -> None:
    items = [[("a", 1)], [("a", 1), ("a", 2)], [("b", 1)]]
    table = pa.table({"map": pa.array(items, pa.map_(pa.string(), pa.int64()))})
    (file,) = written(tmp_path, table)
    rows = parquet_rows(local(file))
    assert next(rows) == {"map": {"a": 1}}
    with pytest.raises(InvalidInput, match="a map has a key twice"):
        next(rows)


def test_names_of_fields_are_one_text_for_all_rows(tmp_path: Path, store: DatasetStore) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_text('{"unheard_of": 1}\n' * 3)
    rows = store.to_list(store.load_dataset(str(file), "train", streaming=True))
    assert len({id(name) for row in rows for name in row}) == 1


@pytest.fixture
def store(tmp_path: Path) -> Iterator[DatasetStore]:
    options = {"use": "hf-datasets", "cache_dir": str(tmp_path / "cache")}
    with Kitchen({"dataset_store": options}) as kitchen:
        yield kitchen.dataset_store
