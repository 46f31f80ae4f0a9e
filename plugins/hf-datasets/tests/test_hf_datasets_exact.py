"""What is read is what the file says: every format, every kind of value, whole and streamed."""

from __future__ import annotations

import bz2
import contextlib
import csv
import datetime
import decimal
import gzip
import importlib.util
import io
import json
import lzma
import math
import os
import sys
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import crucible_adapter_hf_datasets.dataset_store as hf_datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from crucible_kitchen import DatasetStore, InvalidInput, Kitchen, Unsupported
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

Row = dict[str, Any]

both_ways = pytest.mark.parametrize("streaming", [False, True], ids=["whole", "streamed"])


@pytest.fixture(scope="module")
def store() -> DatasetStore:
    return Kitchen(adapters={"dataset_store": {"use": hf_datasets}}).dataset_store


@pytest.fixture(autouse=True)
def working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def read(store: DatasetStore, name: str, streaming: bool = False) -> list[Row]:
    return store.to_list(store.load_dataset(name, streaming=streaming))


def written(name: str, content: str | bytes) -> str:
    data = content.encode() if isinstance(content, str) else content
    Path(name).parent.mkdir(parents=True, exist_ok=True)
    Path(name).write_bytes(data)
    return name


# --- every format x every kind of value ---

LOOKALIKES = [
    *("2024-01-05", "2023-12-31", "2024-01-05T10:00:00Z", "2024-01-05 10:00:00", "10:30"),
    *("01001", "007", "1.10", "1e3", "2E-7", "-0", "+1", "1_000", "0x1F", "1,5"),
    *("123456789012345678901234567890", "0.1234567890123456789012"),
    *("NA", "N/A", "None", "null", "NULL", "nan", "NaN", "inf", "#N/A", "<NA>", "n/a", ""),
    *("true", "false", "True", "yes", "no"),
    *('"', '""', 'say "hi"', '"quoted"', "'", "\\", "\\n", '5" pipe', '"open'),
    *(" lead", "trail ", "a,b", "a\tb", "a;b", "#", "[1, 2]", '{"a": null}', "=1+1"),
    *("a\nb", "a\r\nb", "a\rb", "\n", "a\n\nb", "\x00", "\x0b\x0c\x1c\x85"),
    *("a\u2028b\u2029c", "🦜👩‍👩‍👧", "e\u0301", "\ufeffx", "naïve 数据 עברית", "\U0010ffff"),
]
texts = st.sampled_from(LOOKALIKES) | st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
keys = st.sampled_from(["a", "b", "text", "prompt", "NA", "1", "é", "x y"])
scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(10**31), 10**31)
    | st.floats(allow_nan=False, allow_infinity=False)
    | texts
)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=3),
    max_leaves=8,
)
objects = st.lists(st.dictionaries(keys, values, min_size=1, max_size=4), min_size=1, max_size=6)


@st.composite
def tables(draw: st.DrawFn) -> list[dict[str, str]]:
    # A U+FEFF at the start of a file is a byte order mark, and none of the text.
    names = texts.filter(lambda text: not text.startswith("\ufeff"))
    columns = draw(st.lists(names, min_size=1, max_size=3, unique=True))
    rows = st.lists(st.tuples(*(texts for _ in columns)), min_size=1, max_size=5)
    return [dict(zip(columns, cells, strict=True)) for cells in draw(rows)]


def json_lines(rows: list[Row]) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


JSON: dict[str, Callable[[list[Row]], str]] = {
    "a.jsonl": json_lines,
    "a.ndjson": lambda rows: "".join(json.dumps(row) + "\r\n\r\n" for row in rows),
    "lines.json": lambda rows: json_lines([*rows, {"last": 1}]),
    "array.json": json.dumps,
    "indented.json": lambda rows: json.dumps(rows, indent=1, ensure_ascii=False),
    "objects.json": lambda rows: "".join(json.dumps(row, indent=2) + "\n" for row in [*rows, {}]),
    "data.json": lambda rows: json.dumps({"data": rows}),
}


def the_same(found: list[Row], expected: list[Row]) -> bool:
    """Compare with the types, and the order of keys."""
    return repr(found) == repr(expected)


often = settings(
    deadline=None,
    max_examples=40,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


@pytest.mark.parametrize("name", JSON)
@often
@given(rows=objects)
@example(rows=[{"a": {"b": None, "c": [None, {"d": None}]}}, {"a": {"c": 10**30}}])
def test_json_is_read_as_it_was_written(store: DatasetStore, name: str, rows: list[Row]) -> None:
    if name == "data.json" and any("role" in row or "from" in row for row in rows):
        return
    written(name, JSON[name](rows))
    further: dict[str, list[Row]] = {"lines.json": [{"last": 1}], "objects.json": [{}]}
    expected = rows + further.get(name, [])
    for streaming in (False, True):
        assert the_same(read(store, name, streaming), expected)


WRITERS: list[dict[str, Any]] = [
    {},
    {"quoting": csv.QUOTE_ALL},
    {"quoting": csv.QUOTE_ALL, "lineterminator": "\n"},
]


def delimited(rows: list[dict[str, str]], separator: str, **options: Any) -> str:
    file = io.StringIO(newline="")
    writer = csv.writer(file, delimiter=separator, **options)
    writer.writerow(rows[0])
    writer.writerows(row.values() for row in rows)
    return file.getvalue()


@pytest.mark.parametrize("options", WRITERS)
@often
@given(rows=tables())
@example(rows=[{"text": text} for text in LOOKALIKES])
@example(rows=[{"n": str(n), "text": text} for n, text in enumerate(LOOKALIKES)])
def test_a_csv_is_read_as_it_was_written(
    store: DatasetStore, rows: list[dict[str, str]], options: dict[str, Any]
) -> None:
    written("a.csv", delimited(rows, ",", **options))
    for streaming in (False, True):
        assert the_same(read(store, "a.csv", streaming), rows)


@pytest.mark.parametrize("options", WRITERS)
@often
@given(rows=tables())
@example(rows=[{"text": text} for text in LOOKALIKES])
@example(rows=[{"n": str(n), "text": text} for n, text in enumerate(LOOKALIKES)])
def test_a_quoted_tsv_is_read_as_it_was_written_or_refused_where_it_could_be_another(
    store: DatasetStore, rows: list[dict[str, str]], options: dict[str, Any]
) -> None:
    written("a.tsv", delimited(rows, "\t", **options))
    every = "".join(text for row in rows for pair in row.items() for text in pair)
    for streaming in (False, True):
        with contextlib.ExitStack() as refused:
            if "\n" in every and "\t" in every:
                refused.enter_context(contextlib.suppress(InvalidInput))
            assert the_same(read(store, "a.tsv", streaming), rows)


lines = texts.map(lambda text: text.replace("\n", "").replace("\r", ""))


@often
@given(rows=st.lists(st.tuples(lines, lines), min_size=1, max_size=6))
@example(rows=[("a", '"tis'), ("b", "x"), ("c", '5" pipe'), ("d", '"whole"')])
@example(rows=[("a", '"tis'), ("b", '"twas')])
def test_a_tsv_without_quoting_is_read_to_the_character(
    store: DatasetStore, rows: list[tuple[str, str]]
) -> None:
    rows = [(first.replace("\t", ""), second.replace("\t", "")) for first, second in rows]
    rows = [row for row in rows if row != ("", "")]
    rows += [("the mark that says that it is not quoted", '5" pipe')]
    written("a.tsv", "".join(f"{first}\t{second}\n" for first, second in [("p", "q"), *rows]))
    for streaming in (False, True):
        expected = [{"p": first, "q": second} for first, second in rows]
        assert the_same(read(store, "a.tsv", streaming), expected)


@often
@given(found=st.lists(lines, min_size=1, max_size=6), end=st.sampled_from(["\n", "\r\n"]))
def test_the_lines_of_a_text_are_rows_but_for_blank_ones(
    store: DatasetStore, found: list[str], end: str
) -> None:
    written("a.txt", end.join([*found, "last"]))
    expected = [{"text": text} for text in [*found, "last"] if text and not text.isspace()]
    if expected[0]["text"].startswith("\ufeff"):
        return  # at the start of a file it is a byte order mark
    for streaming in (False, True):
        assert the_same(read(store, "a.txt", streaming), expected)


def without_nulls(value: Any, in_struct: bool = False) -> Any:
    if isinstance(value, dict):
        return {k: without_nulls(v) for k, v in value.items() if v is not None}
    return [without_nulls(item) for item in value] if isinstance(value, list) else value


structs = st.fixed_dictionaries(
    {"role": texts},
    optional={
        "content": texts | st.none(),
        "calls": st.lists(
            st.dictionaries(st.sampled_from("xyz"), st.integers(0, 9) | st.none(), min_size=1),
            max_size=2,
        ),
    },
)


@often
@given(
    rows=st.lists(st.tuples(texts, st.none() | texts, st.lists(structs, max_size=3)), min_size=1)
)
@pytest.mark.parametrize("name", ["a.parquet", "stream.arrow", "file.arrow"])
def test_columns_are_read_as_they_were_written_and_structs_without_nulls(
    store: DatasetStore, name: str, rows: list[Any]
) -> None:
    source = [{"text": a, "maybe": b, "messages": c} for a, b, c in rows]
    schema = pa.schema({"text": pa.string(), "maybe": pa.string()})
    struct = pa.struct({n: pa.int64() for n in "xyz"})
    message = pa.struct({"role": pa.string(), "content": pa.string(), "calls": pa.list_(struct)})
    table = pa.Table.from_pylist(source, schema.append(pa.field("messages", pa.list_(message))))
    write_columns(table, name)
    expected = [{**row, "messages": without_nulls(row["messages"])} for row in source]
    for streaming in (False, True):
        assert read(store, name, streaming) == expected


def write_columns(table: pa.Table, name: str) -> None:
    if name.endswith(".parquet"):
        pq.write_table(table, name, row_group_size=2)
        return
    make = pa.ipc.new_stream if name.startswith("stream") else pa.ipc.new_file
    with pa.OSFile(name, "wb") as file, make(file, table.schema) as writer:
        writer.write_table(table, max_chunksize=2)


@both_ways
@pytest.mark.parametrize("name", ["a.parquet", "stream.arrow", "file.arrow"])
def test_typed_columns_keep_their_types(store: DatasetStore, name: str, streaming: bool) -> None:
    row = {
        "time": datetime.datetime(2024, 1, 5, 10, 30, 0, 5, tzinfo=datetime.UTC),
        "day": datetime.date(2024, 1, 5),
        "price": decimal.Decimal("12345678901234567890123456789.10"),
        "blob": b"\x00x",
        "large": 2**64 - 1,
        "map": {"a": None, "b": 1},
        "list": [None, 1],
        "category": "NA",
        "json": {"n": 10**30, "null": None, "list": [{"a": 1}, {"b": None}]},
        "struct": None,
    }
    schema = pa.schema(
        {
            "time": pa.timestamp("us", "UTC"),
            "day": pa.date32(),
            "price": pa.decimal128(38, 2),
            "blob": pa.binary(),
            "large": pa.uint64(),
            "map": pa.map_(pa.string(), pa.int64()),
            "list": pa.list_(pa.int64()),
            "category": pa.dictionary(pa.int32(), pa.string()),
            "json": pa.json_(),
            "struct": pa.struct({"a": pa.int64()}),
        }
    )
    stored = {**row, "map": [("a", None), ("b", 1)], "json": json.dumps(row["json"])}
    columns = [
        pa.ExtensionArray.from_storage(kind, pa.array([stored[key]]))
        if isinstance(kind, pa.BaseExtensionType)
        else pa.array([stored[key]], kind)
        for key, kind in zip(schema.names, schema.types, strict=True)
    ]
    write_columns(pa.table(columns, schema=schema), name)
    [found] = read(store, name, streaming)
    assert found == row
    assert {key: type(value) for key, value in found.items()} == {
        key: type(value) for key, value in row.items()
    }


# --- wherever a value lies ---

LATE = ["006000", "2024-01-05", "NA", "true", "1.10", ""]


@both_ways
@pytest.mark.parametrize("name", ["a.csv", "a.tsv", "a.jsonl", "a.json", "a.txt"])
def test_a_value_late_in_a_file_is_read_as_an_early_one(
    store: DatasetStore, name: str, streaming: bool
) -> None:
    rows = [{"n": "x", "text": str(n)} for n in range(5000)]
    rows += [{"n": "x", "text": text} for text in LATE]
    if name == "a.txt":
        rows = [{"text": row["text"]} for row in rows if row["text"]]
        written(name, "".join(row["text"] + "\n" for row in rows))
    elif name in ("a.csv", "a.tsv"):
        written(name, delimited(rows, "," if name == "a.csv" else "\t"))
    else:
        written(name, json_lines(rows) if name == "a.jsonl" else json.dumps(rows))
    assert read(store, name, streaming) == rows


@both_ways
def test_each_file_of_a_pattern_is_read_by_itself(store: DatasetStore, streaming: bool) -> None:
    written("csv/1.csv", "n\n1\n2\n")
    written("csv/2.csv", "n\n01001\nNA\n")
    written("tsv/1.tsv", "n\tm\n1\t2\n")
    written("tsv/2.tsv", 'n\tm\n01001\t5" pipe\n')
    written("json/1.jsonl", '{"n": 1}\n')
    written("json/2.jsonl", '{"n": "01001", "m": [1]}\n')
    Path("parquet").mkdir()
    pq.write_table(pa.table({"n": [1, 2]}), "parquet/1.parquet")
    pq.write_table(
        pa.table({"n": ["01001", "NA"], "m": [{"a": 1}, {"a": None}]}), "parquet/2.parquet"
    )
    for dataset_id in ("csv/*", "csv"):
        found = read(store, dataset_id, streaming)
        assert [row["n"] for row in found] == ["1", "2", "01001", "NA"]
    for dataset_id in ("tsv/*", "tsv"):
        found = [{"n": "1", "m": "2"}, {"n": "01001", "m": '5" pipe'}]
        assert read(store, dataset_id, streaming) == found
    for dataset_id in ("json/*.jsonl", "json"):
        assert read(store, dataset_id, streaming) == [{"n": 1}, {"n": "01001", "m": [1]}]
    for dataset_id in ("parquet/*", "parquet"):
        assert read(store, dataset_id, streaming) == [
            *({"n": 1}, {"n": 2}),
            *({"n": "01001", "m": {"a": 1}}, {"n": "NA", "m": {}}),
        ]


# --- compressed, and with a byte order mark ---

COMPRESS: dict[str, Callable[[bytes], bytes]] = {
    ".gz": gzip.compress,
    ".bz2": bz2.compress,
    ".xz": lzma.compress,
}


@both_ways
@pytest.mark.parametrize("suffix", COMPRESS)
def test_a_compressed_file_is_read_as_the_file(
    store: DatasetStore, suffix: str, streaming: bool
) -> None:
    table = io.BytesIO()
    pq.write_table(pa.table({"t": ["01001"]}), table)
    contents = {
        ".csv": b"t\n01001\n",
        ".tsv": b"t\n01001\n",
        ".jsonl": b'{"t": "01001"}\n',
        ".json": b'[{"t": "01001"}]',
        ".parquet": table.getvalue(),
    }
    for kind, content in contents.items():
        name = written(f"a{kind}{suffix}", COMPRESS[suffix](content))
        assert read(store, name, streaming) == [{"t": "01001"}], name
    assert read(store, written(f"a.txt{suffix}", COMPRESS[suffix](b"NA\n")), streaming) == [
        {"text": "NA"}
    ]


@both_ways
@pytest.mark.parametrize("suffix", COMPRESS)
def test_compressed_data_that_end_early_or_are_not_compressed_are_refused(
    store: DatasetStore, suffix: str, streaming: bool
) -> None:
    whole = COMPRESS[suffix](b"".join(b'{"n": %d}\n' % n for n in range(20_000)))
    for name, content in ((f"cut.jsonl{suffix}", whole[:-30]), (f"b.jsonl{suffix}", b'{"n": 1}\n')):
        written(name, content)
        with pytest.raises(InvalidInput, match=rf"{name}: is damaged, or not compressed"):
            read(store, name, streaming)


@both_ways
def test_zstd_is_read_or_what_it_needs_is_named(
    store: DatasetStore, streaming: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    frame = bytes.fromhex("28b52ffd200f7900007b2274223a20223031303031227d0a")
    written("a.jsonl.zst", frame)
    if importlib.util.find_spec("zstandard"):
        assert read(store, "a.jsonl.zst", streaming) == [{"t": "01001"}]
    monkeypatch.setitem(sys.modules, "zstandard", None)
    with pytest.raises(Unsupported, match=r'pip install "crucible-adapter-hf-datasets\[zstd\]"'):
        read(store, "a.jsonl.zst", streaming)


@both_ways
@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32"])
def test_a_byte_order_mark_is_not_part_of_the_text(
    store: DatasetStore, encoding: str, streaming: bool
) -> None:
    contents = {
        "a.csv": "t\né\n",
        "a.tsv": "t\né\n",
        "a.jsonl": '{"t": "é"}\n',
        "a.json": '[{"t": "é"}]',
        "a.txt": "é\n",
    }
    for name, content in contents.items():
        written(name, content.encode(encoding))
        [row] = read(store, name, streaming)
        assert row == {"text" if name == "a.txt" else "t": "é"}, name


# --- what is refused, with its place ---


@both_ways
@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", 'a,b\n1,"x\n2,y\n', "line 2: the quoting of the row that begins here is broken"),
        ("a.csv", 'a,b\n1,2\n2,"a"b\n', "line 3: the quoting"),
        ("a.csv", "a,b\n1,2\n1,2,3\n", r"line 3: .* 3 cells, but there are 2 columns \(a, b\)"),
        ("a.csv", "a,b\n1\n", "line 2: the row has 1 cells"),
        ("a.csv", "a,b,a\n1,2,3\n", "several columns are named 'a'"),
        ("a.csv", "a,b\n1,x\ry\n", "line 2: .*new-line character"),
        ("a.csv", b"a\n\xe9\n", "line 2: is not utf-8.*; save the file as UTF-8"),
        ("a.tsv", "a\tb\n1\t2\t3\n", "line 2: the row has 3 cells"),
        ("a.tsv", 'a\tb\n1\t5" x\n1\t"2\t3"\n', "line 3: the row has 3 cells"),
        ("a.tsv", 'a\tb\n1\t"x\n2\ty"\n', "line 2: a quotation mark opens.*closes in line 3"),
        ("a.jsonl", '{"a": 1}\n{"a": 1, "a": 2}\n', "line 2: .*the name 'a' twice"),
        ("a.jsonl", '{"a": 1}\n{"a": 1e400}\n', "line 2: .*1e400 is beyond a float"),
        ("a.jsonl", '{"a": 1}\n{"a": %s}\n' % ("1" * 5000), "line 2: "),
        ("a.jsonl", '{"a": 1}\n{"a": ' + "[" * 100_000 + "\n", "line 2: .*nested too deeply"),
        ("a.jsonl", '{"a": 1}\n[1]\n', r"line 2: .*a row is an object, not \[1\]"),
        ("a.jsonl", '{"a": 1},\n{"a": 2},\n', "line 1: "),
        ("a.jsonl", '{"a":\n{"a": 2}\n', "line 1: "),
        ("a.json", '[{"a": 1},\n{"a": 2}\n{"a": 3}]', "line 3: .*expected ',' or '\\]'"),
        ("a.json", '[{"a": 1},\n{"a": }]', "line 2: "),
        ("a.json", '[{"a": 1},\n]', "line 2: "),
        ("a.json", '[{"a": 1}] 2', "after the end of the array"),
        ("a.json", "[1, 2]", "a row is an object"),
        ("a.json", '[{"a": 1}', "expected ',' or '\\]'"),
    ],
)
def test_what_cannot_be_read_exactly_is_refused_with_its_place(
    store: DatasetStore, name: str, content: str | bytes, message: str, streaming: bool
) -> None:
    written(name, content)
    with pytest.raises(InvalidInput, match=rf"(?s){name}.*{message}"):
        read(store, name, streaming)


@both_ways
def test_the_rows_before_a_bad_one_are_streamed(store: DatasetStore, streaming: bool) -> None:
    written("a.jsonl", '{"n": 1}\n{"n": 2}\n{"n"\n')
    batches = store.stream(store.load_dataset("a.jsonl", streaming=True), 1)
    assert [next(batches), next(batches)] == [[{"n": 1}], [{"n": 2}]]
    with pytest.raises(InvalidInput, match="line 3"):
        next(batches)


# --- documents of JSON ---


@both_ways
@pytest.mark.parametrize(
    ("name", "content", "rows"),
    [
        (
            "a.json",
            '{"p": ["x", "y"], "q": ["1", null]}',
            [{"p": "x", "q": "1"}, {"p": "y", "q": None}],
        ),
        ("a.json", '{"messages": [{"role": "user"}]}', [{"messages": [{"role": "user"}]}]),
        ("a.json", '{\n"p": "x"\n}', [{"p": "x"}]),
        ("a.json", '["NA", "01"]', [{"text": "NA"}, {"text": "01"}]),
        ("a.jsonl", '{"p": ["x", "y"]}', [{"p": ["x", "y"]}]),
        ("a.jsonl", '[{"p": 1}, {"p": 2}]', [{"p": 1}, {"p": 2}]),
        ("a.jsonl", '{"t": "a\tb"}', [{"t": "a\tb"}]),
    ],
)
def test_a_document_of_json_is_its_rows(
    store: DatasetStore, name: str, content: str, rows: list[Row], streaming: bool
) -> None:
    assert read(store, written(name, content), streaming) == rows


@both_ways
def test_not_a_number_and_the_infinities_are_floats(store: DatasetStore, streaming: bool) -> None:
    written("a.jsonl", '{"a": NaN}\n{"a": -Infinity}\n')
    first, second = read(store, "a.jsonl", streaming)
    assert math.isnan(first["a"])
    assert second["a"] == -math.inf


def test_a_long_array_is_streamed_in_bounded_memory(store: DatasetStore) -> None:
    count, size = 2000, 10_000
    with Path("a.json").open("w") as file:
        file.write("[")
        file.writelines(f'{{"t": "{"x" * size}"}}, ' for _ in range(count - 1))
        file.write(f'{{"t": "{"x" * size}"}}]')
    assert memory(store, "a.json") < 2_000_000


def test_a_long_array_on_lines_is_streamed_in_bounded_memory(store: DatasetStore) -> None:
    count, size = 2000, 10_000
    written("a.json", json.dumps([{"t": "x" * size}] * count, indent=0))
    assert memory(store, "a.json") < 2_000_000


def memory(store: DatasetStore, name: str) -> int:
    """Stream a file and return the most memory that was in use, in bytes."""
    handle = store.load_dataset(name, streaming=True)
    next(store.stream(handle, 1)).clear()  # what is imported and opened once
    tracemalloc.start()
    try:
        assert sum(len(batch) for batch in store.stream(handle, 10)) == 2000
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


# --- folders ---


@both_ways
def test_a_folder_of_several_formats_is_refused(store: DatasetStore, streaming: bool) -> None:
    written("data/part1.jsonl", '{"t": "a"}\n')
    written("data/part2.csv", "t\nb\n")
    written("data/part3.csv", "t\nc\n")
    message = r"several formats: csv \(part2.csv and 1 more\), json \(part1.jsonl\)"
    for dataset_id in ("data", "data/*"):
        with pytest.raises(InvalidInput, match=message):
            read(store, dataset_id, streaming)
    assert read(store, "data/*.csv", streaming) == [{"t": "b"}, {"t": "c"}]


@both_ways
@pytest.mark.parametrize("other", ["a.tsv", "a.txt", "b.parquet", "deep/er/a.csv", "a.csv.gz"])
def test_one_file_of_another_format_is_noticed(
    store: DatasetStore, other: str, streaming: bool
) -> None:
    for number in range(3):
        written(f"data/part{number}.jsonl", '{"t": "a"}\n')
    written(f"data/{other}", "t\nb\n")
    with pytest.raises(InvalidInput, match="several formats"):
        read(store, "data", streaming)


@both_ways
def test_what_is_not_data_is_skipped(store: DatasetStore, streaming: bool) -> None:
    written("data/a.jsonl", '{"t": "a"}\n')
    for name in ("README.md", "1.md", "2.md", "3.md", "LICENSE", "LICENSE.txt", "notice.txt"):
        written(f"data/{name}", "x\n")
    for name in (".gitattributes", ".hidden.jsonl", "dataset_infos.json", "state.json"):
        written(f"data/{name}", "{}")
    assert read(store, "data", streaming) == [{"t": "a"}]


@both_ways
def test_a_readme_says_which_files_are_data_and_how_they_are_separated(
    store: DatasetStore, streaming: bool
) -> None:
    written("data/a.csv", "t;u\n01;NA\n")
    written("data/b.jsonl", "{}\n")
    card = "---\nconfigs:\n- config_name: default\n  data_files: '*.csv'\n  {}\n---\n"
    written("data/README.md", card.format("sep: ';'"))
    assert read(store, "data", streaming) == [{"t": "01", "u": "NA"}]
    written("data/README.md", card.format("skiprows: 3"))
    with pytest.raises(Unsupported, match=r"option 'skiprows' to 3.*; known are sep"):
        read(store, "data", streaming)


@both_ways
def test_a_data_set_in_a_file_that_names_it_twice_is_read_once(
    store: DatasetStore, streaming: bool
) -> None:
    written("data/train/my-train/a.jsonl", '{"t": "a"}\n')
    assert read(store, "data", streaming) == [{"t": "a"}]


def test_a_whole_data_set_does_not_change_with_its_file(store: DatasetStore) -> None:
    written("a.csv", "t\n1\n2\n")
    handle = store.load_dataset("a.csv")
    os.truncate("a.csv", 0)
    assert store.to_list(handle) == [{"t": "1"}, {"t": "2"}]


def test_a_long_text_is_not_an_error(store: DatasetStore) -> None:
    text = "x" * 300_000  # the limit of the csv module is 131072
    for name, separator in (("a.csv", ","), ("a.tsv", "\t")):
        written(name, delimited([{"a": "1", "t": text}], separator))
        assert read(store, name) == [{"a": "1", "t": text}]
