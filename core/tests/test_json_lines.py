"""The trace file: whole lines, whatever happens to the process and the disk."""

from __future__ import annotations

import json
import math
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from crucible_kitchen import Event
from crucible_kitchen.events import Observers
from crucible_kitchen.observers.jsonl import JsonLines
from crucible_kitchen.traces.lines import Line, decode, encode, read
from hypothesis import given
from hypothesis import strategies as st

EVENT = Event("training.step", {"step": 1, "metrics": {"nll": 0.5}}, 12.5, 3, 2)


def test_what_is_written_can_be_read(tmp_path: Path) -> None:
    lines = JsonLines(tmp_path / "deep" / "trace.jsonl")
    lines(EVENT)
    lines(Event("noticed", {}, 13.0))
    assert list(read(lines.path)) == [
        Line(lines.trace_id, EVENT),
        Line(lines.trace_id, Event("noticed", {}, 13.0)),
    ]


def test_each_observer_of_a_file_has_a_trace_of_its_own(tmp_path: Path) -> None:
    for _ in range(2):
        lines = JsonLines(tmp_path / "trace.jsonl")
        lines(EVENT)
        lines.close()
    first, second = read(tmp_path / "trace.jsonl")
    assert first is not None
    assert second is not None
    assert first.trace_id != second.trace_id


def test_numbers_that_json_lacks_are_written_as_text() -> None:
    values = {"a": math.nan, "b": [-math.inf], "c": np.float32(0.5), "d": np.float32(math.inf)}
    line = json.loads(encode("t", Event("e", {"metrics": values})))
    assert line["attributes"]["metrics"] == {"a": "nan", "b": ["-inf"], "c": 0.5, "d": "inf"}


def test_what_is_no_number_and_no_name_is_not_written_out() -> None:
    class Row:
        def __repr__(self) -> str:
            return "a private row"

    about = {"array": np.array([41, 42]), "row": Row(), "bytes": b"private"}
    line = json.loads(encode("t", Event("e", about)))
    assert line["attributes"] == {"array": "<ndarray>", "row": "<Row>", "bytes": "<bytes>"}


def test_a_torn_last_line_does_not_spoil_the_next_one(tmp_path: Path) -> None:
    path = tmp_path / "trace.jsonl"
    path.write_bytes(encode("t", EVENT) + encode("t", EVENT)[:20])
    JsonLines(path)(EVENT)
    first, torn, next_ = read(path)
    assert (first is None, torn is None, next_ is None) == (False, True, False)


def test_an_event_after_the_end_opens_the_file_again(tmp_path: Path) -> None:
    lines = JsonLines(tmp_path / "trace.jsonl")
    lines(EVENT)
    lines.close()
    lines.close()
    lines(EVENT)
    assert len(list(read(lines.path))) == 2


def test_a_full_disk_is_reported_once(capsys: pytest.CaptureFixture[str]) -> None:
    observers = Observers()
    observers.add(JsonLines("/dev/full"))
    for _ in range(3):
        observers.emit("noticed")
    assert capsys.readouterr().err.count("No space left on device") == 1


def test_threads_write_whole_lines(tmp_path: Path) -> None:
    lines = JsonLines(tmp_path / "trace.jsonl")
    long = Event("noticed", {"words": ["word"] * 2000})

    def write() -> None:
        for _ in range(20):
            lines(long)

    threads = [threading.Thread(target=write) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [line.event.attributes for line in read(lines.path) if line] == [long.attributes] * 80


plain = st.none() | st.booleans() | st.floats() | st.text("ab", max_size=3)
json_values: Any = plain | st.lists(plain, max_size=3) | st.just({})
numbers = st.none() | st.integers(1, 10**9)
lines_of_traces = st.fixed_dictionaries(
    {
        "trace": st.text(max_size=3),
        "event": st.text(max_size=3),
        "time": st.floats(-1e11, 1e11),
        "span": numbers,
        "parent": numbers,
        "attributes": st.dictionaries(st.text(max_size=3), st.integers() | st.text(max_size=3)),
    }
)


@given(lines_of_traces)
def test_every_line_of_a_trace_is_read(line: dict[str, Any]) -> None:
    event = Event(line["event"], line["attributes"], line["time"], line["span"], line["parent"])
    assert decode(json.dumps(line).encode()) == Line(line["trace"], event)


@given(lines_of_traces, st.data())
def test_a_line_without_one_of_its_keys_is_not_an_event(
    line: dict[str, Any], data: st.DataObject
) -> None:
    del line[data.draw(st.sampled_from(sorted(line)))]
    assert decode(json.dumps(line).encode()) is None


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("trace", 1),
        ("event", None),
        ("time", "12.5"),
        ("time", math.nan),
        ("time", 1e12),
        ("span", "3"),
        ("parent", 2.5),
        ("attributes", []),
    ],
)
def test_a_value_of_another_type_or_out_of_range_is_not_an_event(key: str, value: Any) -> None:
    line = json.loads(encode("t", EVENT))
    assert decode(json.dumps(line).encode()) is not None
    assert decode(json.dumps({**line, key: value}).encode()) is None


@given(st.binary() | json_values.map(json.dumps))
def test_garbage_is_not_an_event_and_not_an_error(line: bytes | str) -> None:
    assert decode(line.encode() if isinstance(line, str) else line) is None


def test_a_line_of_nothing_but_brackets_is_not_an_error() -> None:
    assert decode(b"[" * 100_000) is None


def test_an_event_may_come_in_the_middle_of_another(tmp_path: Path) -> None:
    lines = JsonLines(tmp_path / "t.jsonl")
    with lines._lock:  # as where a stream is collected that nobody closed
        lines(Event("noticed", {}))
    assert len((tmp_path / "t.jsonl").read_text().splitlines()) == 1
