"""What stands in a metrics file, or in its folder, and is no metric: it hides none."""

from __future__ import annotations

import errno
import json
import os
import socket
import tempfile
import time
import tracemalloc
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import crucible_adapter_jsonl.metrics_store as jsonl
import pytest
from crucible_adapter_jsonl.files import RunFiles, file_name, lines_of
from crucible_adapter_jsonl.rows import LONGEST, encode
from crucible_kitchen import (
    CrucibleWarning,
    InvalidInput,
    Kitchen,
    MetricsStore,
    Unauthorized,
    Unavailable,
    Unsupported,
)
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from restrictions import files_of_at_most, let_others_reach, not_root


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "metrics"


@pytest.fixture
def store(folder: Path) -> Iterator[MetricsStore]:
    with Kitchen(adapters={"metrics_store": {"use": jsonl, "path": folder}}) as kitchen:
        yield kitchen.metrics_store


@pytest.fixture
def unheld(folder: Path) -> Iterator[MetricsStore]:
    with Kitchen(
        adapters={"metrics_store": {"use": jsonl, "path": folder, "batch_size": 1}}
    ) as kitchen:
        yield kitchen.metrics_store


def row(**fields: Any) -> bytes:
    """A row that is right but for the given fields, as JSON texts."""
    right = {
        "run_id": '"run"',
        "metric": '"nll"',
        "value": "1.0",
        "step": "1",
        "timestamp": '"2026-01-31T09:30:00+00:00"',
        "metadata": "{}",
    }
    return ("{" + ",".join(f'"{k}":{v}' for k, v in {**right, **fields}.items()) + "}").encode()


def without(field: str) -> bytes:
    return json.dumps({k: v for k, v in json.loads(row()).items() if k != field}).encode()


FIELDS = ("run_id", "metric", "value", "step", "timestamp", "metadata")
NO_ROWS = {
    "a value of 400 digits": row(value="1" + "0" * 400),
    "a value of 5,000 digits": row(value="1" + "0" * 5000),
    "a value beyond floats": row(value="1e999"),
    "a bare NaN": row(value="NaN"),
    "a bare infinity": row(value="-Infinity"),
    "a value of another name": row(value='"nan"'),
    "a number as text": row(value='"1.0"'),
    "a true value": row(value="true"),
    "no value": row(value="null"),
    "a value that is a list": row(value="[1]"),
    "a step that is a list": row(step="[1]"),
    "a true step": row(step="true"),
    "a step that is a float": row(step="1.0"),
    "a step that is text": row(step='"1"'),
    "a step beyond 64 bits": row(step=str(2**63)),
    "a step of 400 digits": row(step="1" + "0" * 400),
    "a step of 5,000 digits": row(step="1" + "0" * 5000),
    "a metric that is a list": row(metric="[1]"),
    "a metric that is null": row(metric="null"),
    "another run": row(run_id='"other"'),
    "a run that is a number": row(run_id="1"),
    "a time without a zone": row(timestamp='"2026-01-31T09:30:00"'),
    "a time that is a number": row(timestamp="1769851800"),
    "a time that is text": row(timestamp='"yesterday"'),
    "the 13th month": row(timestamp='"2026-13-31T09:30:00+00:00"'),
    "a time before time": row(timestamp='"0001-01-01T00:00:00+14:00"'),
    "metadata that are a list": row(metadata="[]"),
    "metadata that are null": row(metadata="null"),
    "metadata that hold NaN": row(metadata='{"a":NaN}'),
    "metadata beyond floats": row(metadata='{"a":[-1e999]}'),
    "deep brackets": b"[" * 100_000,
    "deep brackets in a row": row(metadata='{"a":' + "[" * 100_000),
    "deep tables in a row": row(metadata='{"a":' * 100_000),
    "invalid UTF-8": row(metric='"\udcff"'.replace("\udcff", "X")).replace(b"X", b"\xff"),
    "UTF-16": row().decode().encode("utf-16"),
    "NULs": bytes(4096),
    "a row that ends in NULs": row()[:40] + bytes(40),
    "a row in which a quote is lost": row().replace(b'"nll"', b'"nll'),
    "a row in which a comma is lost": row().replace(b",", b"", 1),
    "a row behind NULs": bytes(40) + row(),
    "two rows on a line": row() + row(),
    "a list of rows": b"[" + row() + b"]",
    "a number": b"1",
    "a text": b'"text"',
    "null": b"null",
    "a data set's row": b'{"text": "hello"}',
    "another program's line": b"2026-01-31 09:30:00 INFO started",
    **{f"no {field} at all": without(field) for field in FIELDS},
}


@pytest.mark.parametrize("line", NO_ROWS.values(), ids=list(NO_ROWS))
def test_a_line_that_is_not_a_row_is_left_out_and_named_with_its_file(
    store: MetricsStore, folder: Path, line: bytes
) -> None:
    store.record("run", "nll", 1.0, step=1)
    with (folder / "run.jsonl").open("ab") as file:
        file.write(b"\n" + line)
    store.record("run", "nll", 2.0, step=2)
    with pytest.warns(CrucibleWarning, match=r"/run\.jsonl: 1 line is not a metric") as warned:
        assert [entry.value for entry in store.read("run")] == [1.0, 2.0]
    assert len(warned) == 1
    assert list(store.runs()) == ["run"]  # without a warning


def test_lines_that_are_no_rows_are_counted_once_for_each_time_of_reading(
    store: MetricsStore, folder: Path
) -> None:
    store.record("run", "nll", 1.0)
    with (folder / "run.jsonl").open("ab") as file:
        file.write(b"\nnonsense" * 3 + b"\n\n   \n" + row(run_id='"other"'))
    for _ in range(2):
        with pytest.warns(CrucibleWarning, match="5 lines are not a metric of the run") as warned:
            assert len(store.read("run")) == 1
        assert len(warned) == 1


def test_fields_that_are_unknown_are_left_out_of_a_row(store: MetricsStore, folder: Path) -> None:
    folder.mkdir()
    (folder / "run.jsonl").write_bytes(row(unit='"nats"'))
    assert [entry.value for entry in store.read("run")] == [1.0]


def test_a_row_written_by_hand_is_read(store: MetricsStore, folder: Path) -> None:
    folder.mkdir()
    by_hand = row(value=" 3", timestamp='"2026-01-31T10:30+01:00"', metric='"Verlust \u00fc"')
    (folder / "run.jsonl").write_bytes(by_hand + b"\r\n")
    [entry] = store.read("run")
    assert (entry.metric, entry.value) == ("Verlust ü", 3.0)
    assert entry.timestamp.isoformat() == "2026-01-31T09:30:00+00:00"


GOOD = [encode("run", f"metric {n}", float(n), n, None) for n in range(4)]
any_line = st.binary(max_size=60).filter(lambda junk: b"\n" not in junk)
json_line = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=True) | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(FIELDS) | st.text(max_size=5), inner, max_size=6)
    ),
).map(lambda value: json.dumps(value).encode())
damaged_row = st.builds(
    lambda good, at, junk, to: good[1 : 1 + at] + junk + good[1 + to :],
    st.sampled_from(GOOD),
    st.integers(0, 150),
    any_line,
    st.integers(0, 150),
)
any_folder = settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=60
)


def metrics_of(folder: Path, lines: list[bytes]) -> list[str]:
    (folder / "run.jsonl").write_bytes(b"".join(lines))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CrucibleWarning)
        return [entry.metric for entry in jsonl.read(jsonl.Options(path=folder), "run")]


@any_folder
@given(junk=st.lists(st.lists(any_line | json_line, max_size=3), min_size=5, max_size=5))
def test_between_any_lines_exactly_the_rows_are_read(
    tmp_path: Path, junk: list[list[bytes]]
) -> None:
    lines = [b"\n" + line for line in junk[0]]
    for row, behind in zip(GOOD, junk[1:], strict=True):
        lines += [row, *(b"\n" + line for line in behind)]
    assert metrics_of(tmp_path, lines) == [f"metric {n}" for n in range(4)]


@any_folder
@given(damaged=st.lists(damaged_row, min_size=4, max_size=4))
def test_no_damage_to_a_row_costs_another(tmp_path: Path, damaged: list[bytes]) -> None:
    pairs = zip(damaged, GOOD, strict=True)
    lines = [part for damage, row in pairs for part in (b"\n" + damage, row)]
    assert {f"metric {n}" for n in range(4)} <= set(metrics_of(tmp_path, lines))


def test_a_line_of_any_length_is_passed_over_in_bounded_memory(
    store: MetricsStore, folder: Path
) -> None:
    store.record("run", "nll", 1.0)
    with (folder / "run.jsonl").open("r+b") as file:
        file.seek(0, os.SEEK_END)
        file.write(b'\n{"run_id":"run","metric":"' + b"x" * 100)
        file.truncate(file.tell() + (100 << 20))  # 100 MiB of NULs, which take no disk
    store.record("run", "nll", 2.0)
    tracemalloc.start()
    try:
        with pytest.warns(CrucibleWarning, match="1 line is"):
            assert [entry.value for entry in store.read("run")] == [1.0, 2.0]
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 5 * LONGEST


# --- what is not written, since it would not be read ---


@pytest.mark.parametrize("step", [2**63, -(2**63) - 1, 10**5000], ids=["over", "under", "huge"])
def test_a_step_beyond_64_bits_is_unsupported_and_leaves_no_row(
    store: MetricsStore, folder: Path, step: int
) -> None:
    with pytest.raises(Unsupported, match="64 bits"):
        store.record("run", "nll", 1.0, step=step)
    assert not folder.exists()


def test_a_row_longer_than_one_may_be_is_unsupported_and_leaves_none(
    store: MetricsStore, folder: Path
) -> None:
    with pytest.raises(Unsupported, match="'nll' has"):
        store.record("run", "nll", 1.0, metadata={"text": "x" * LONGEST})
    assert not folder.exists()
    store.record("run", "nll", 1.0, metadata={"text": "x" * (LONGEST - 1000)})
    assert len(store.read("run")) == 1


# --- what is no file ---


def pipe(path: Path) -> None:
    os.mkfifo(path)


def directory(path: Path) -> None:
    path.mkdir()


def links_in_a_circle(path: Path) -> None:
    path.symlink_to(path.name)


def sock(path: Path) -> None:
    with tempfile.TemporaryDirectory() as short:  # the name of a socket has 107 bytes at most
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(f"{short}/s")
        os.rename(f"{short}/s", path)


@pytest.mark.parametrize("make", [pipe, directory, links_in_a_circle, sock])
def test_what_is_not_a_file_does_not_block_and_does_not_hide_other_runs(
    store: MetricsStore, folder: Path, make: Any
) -> None:
    store.record("other", "nll", 1.0)
    make(folder / "run.jsonl")
    began = time.monotonic()
    assert list(store.runs()) == ["other"]
    assert len(store.read("other")) == 1
    for call in (
        lambda: store.read("run"),
        lambda: store.record("run", "nll", 1.0),
        lambda: store.record_many("run", {"nll": 1.0}),
        lambda: store.flush("run"),
    ):
        if make is links_in_a_circle and call.__code__.co_names[-1] == "flush":
            continue  # nothing is there to be synced
        with pytest.raises(InvalidInput, match=r"run\.jsonl"):
            call()
    store.ping()
    assert time.monotonic() - began < 10


def test_a_pipe_with_a_reader_takes_no_rows(store: MetricsStore, folder: Path) -> None:
    folder.mkdir()
    os.mkfifo(folder / "run.jsonl")
    reader = os.open(folder / "run.jsonl", os.O_RDONLY | os.O_NONBLOCK)
    try:
        with pytest.raises(InvalidInput, match="is not a file"):
            store.record("run", "nll", 1.0)
    finally:
        os.close(reader)


def test_a_file_that_may_not_be_read_is_named_and_does_not_hide_other_runs(
    store: MetricsStore, folder: Path, tmp_path: Path
) -> None:
    let_others_reach(folder)
    for run in ("run", "other"):
        store.record(run, "nll", 1.0)
    (folder / "run.jsonl").chmod(0)
    with not_root():
        with pytest.warns(CrucibleWarning, match=r"run\.jsonl is left out.*Permission denied"):
            assert list(store.runs()) == ["other"]
        with pytest.raises(Unauthorized, match=r"run\.jsonl: Permission denied"):
            store.read("run")
        assert len(store.read("other")) == 1


def test_a_folder_that_may_not_be_read_is_not_an_empty_one(
    store: MetricsStore, folder: Path, tmp_path: Path
) -> None:
    let_others_reach(folder)
    store.record("run", "nll", 1.0)
    folder.chmod(0)
    with not_root():
        for call in (store.runs, lambda: store.read("run"), store.ping):
            with pytest.raises(Unauthorized, match=str(folder)):
                call()
    folder.chmod(0o755)


def test_a_file_in_the_place_of_the_folder_is_refused(store: MetricsStore, folder: Path) -> None:
    folder.touch()
    for call in (store.runs, store.ping, lambda: store.read("run")):
        with pytest.raises(InvalidInput, match=str(folder)):
            call()


# --- disks ---


def test_a_full_disk_is_unavailable_names_the_folder_and_leaves_no_row(
    unheld: MetricsStore, folder: Path
) -> None:
    unheld.record("run", "nll", 1.0)
    size = (folder / "run.jsonl").stat().st_size
    for space in (0, 1, 50):
        with (
            files_of_at_most(size + space),
            pytest.raises(Unavailable, match=str(folder)) as caught,
        ):
            unheld.record_many("run", {"nll": 2.0, "acc": 3.0})
        assert caught.value.no_effect
        assert caught.value.retryable
    unheld.record("run", "nll", 4.0)
    assert [entry.value for entry in unheld.read("run")] == [1.0, 4.0]  # and no warning


def test_rows_of_which_some_were_written_to_a_full_disk_had_an_effect(
    unheld: MetricsStore, folder: Path
) -> None:
    unheld.record("run", "nll", 1.0)
    size = (folder / "run.jsonl").stat().st_size
    with files_of_at_most(2 * size + 10), pytest.raises(Unavailable) as caught:
        unheld.record_many("run", {"nll": 2.0, "acc": 3.0})
    assert not caught.value.no_effect
    assert [entry.value for entry in unheld.read("run")] == [1.0, 2.0]


@pytest.mark.parametrize("what", ["sync", "close"])
def test_a_disk_that_fails_late_is_unavailable_and_named(
    store: MetricsStore, folder: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    def full(files: RunFiles, *_: object) -> None:
        close(files)
        raise OSError(errno.EDQUOT, "Disk quota exceeded")

    close = RunFiles.close
    store.record("run", "nll", 1.0)
    monkeypatch.setattr(RunFiles, what, full)
    with pytest.raises(Unavailable, match=f"{folder}: Disk quota exceeded"):
        store.flush("run") if what == "sync" else store.close()


def test_a_ping_tries_the_folder_and_makes_nothing(
    store: MetricsStore, folder: Path, tmp_path: Path
) -> None:
    store.ping()
    with files_of_at_most(0), pytest.raises(Unavailable, match=str(folder)):
        store.ping()
    assert list(tmp_path.iterdir()) == []
    folder.mkdir()
    store.ping()
    assert list(folder.iterdir()) == []


def test_names_of_files_that_could_not_be_written_do_not_hide_a_run(
    store: MetricsStore, folder: Path
) -> None:
    store.record("run", "nll", 1.0)
    for name in (b"\xff.jsonl", b"\x1b[31mred.jsonl", b"a\nb.jsonl", b".jsonl"):
        Path(os.fsdecode(os.fsencode(folder) + b"/" + name)).write_bytes(row(run_id='"foreign"'))
    assert list(store.runs()) == ["run"]


def test_a_copy_of_a_run_under_another_name_is_not_a_run(store: MetricsStore, folder: Path) -> None:
    store.record("run", "nll", 1.0)
    (folder / "copy.jsonl").write_bytes((folder / file_name("run")).read_bytes())
    assert list(store.runs()) == ["run"]


def test_a_line_that_is_finished_while_it_is_read_is_torn_and_not_damaged(tmp_path: Path) -> None:
    file = tmp_path / "run.jsonl"
    file.write_bytes(b'\n{"run_id":"r","metric":"a","val')
    lines = lines_of(file, 1000)
    assert next(lines) == b""
    assert next(lines).endswith(b'"val')
    with file.open("ab") as more:
        more.write(b'ue":1}\n{"run_id":"r"}')
    assert list(lines) == []
