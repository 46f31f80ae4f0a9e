"""What the JSON Lines metrics store promises."""

from __future__ import annotations

import json
import math
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import crucible_adapter_jsonl.metrics_store as jsonl
import pytest
from crucible_adapter_jsonl import held
from crucible_adapter_jsonl.files import RunFiles, file_name
from crucible_kitchen import (
    CrucibleWarning,
    InvalidInput,
    Kitchen,
    MetricsStore,
    Unauthorized,
    Unavailable,
)
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from restrictions import files_of_at_most, not_root

# Lone surrogates, too, but no two that JSON would read as one character.
any_text = st.text(st.characters(exclude_categories=()), max_size=30).filter(
    lambda text: not re.search("[\ud800-\udbff][\udc00-\udfff]", text)
)
ODD_IDS = ["", ".", "..", "a/b", "../x", "x" * 5000, "\ud800", "\udfff", "?"]
one_folder = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "metrics"


@pytest.fixture
def store(folder: Path) -> Iterator[MetricsStore]:
    with Kitchen(adapters={"metrics_store": {"use": jsonl, "path": folder}}) as kitchen:
        yield kitchen.metrics_store


@pytest.fixture
def synced(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The paths that were synced so far."""
    paths: list[str] = []
    fsync = os.fsync

    def watched(fd: int) -> None:
        paths.append(os.readlink(f"/proc/self/fd/{fd}"))
        fsync(fd)

    monkeypatch.setattr(os, "fsync", watched)
    return paths


def another(folder: Path, **options: Any) -> Kitchen:
    return Kitchen(adapters={"metrics_store": {"use": jsonl, "path": folder, **options}})


def values(store: MetricsStore, run_id: str = "run") -> list[float]:
    return [entry.value for entry in store.read(run_id)]


def the_file(folder: Path) -> Path:
    [file] = folder.iterdir()
    return file


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "file", tmp_path / "file" / "below"):
        with (
            another(folder) as kitchen,
            pytest.raises(InvalidInput, match=r"file.* \(option path\)"),
        ):
            kitchen.metrics_store.record("run", "nll", 1.0)


# --- rows ---


def test_an_unknown_run_has_no_rows_and_asking_makes_no_file(
    store: MetricsStore, folder: Path
) -> None:
    assert store.read("nobody") == []
    assert list(store.runs()) == []
    store.flush("nobody")
    assert not folder.exists()


def test_the_first_row_of_a_run_is_seen_by_other_processes_at_once(
    store: MetricsStore, folder: Path
) -> None:
    for run_id in ("run", "next"):
        store.record(run_id, "nll", 1.0)
        with another(folder) as other:
            assert values(other.metrics_store, run_id) == [1.0]


def test_a_run_continues_in_another_kitchen(folder: Path) -> None:
    for value in (1.0, 2.0):
        with another(folder) as kitchen:
            kitchen.metrics_store.record("run", "nll", value)
    with another(folder) as kitchen:
        assert values(kitchen.metrics_store) == [1.0, 2.0]


def test_record_many_is_one_row_a_metric_of_one_step_in_one_write(
    store: MetricsStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    writes: list[bytes] = []
    append = RunFiles.append

    def watched(self: RunFiles, run_id: str, rows: bytes) -> int:
        writes.append(rows)
        return append(self, run_id, rows)

    monkeypatch.setattr(RunFiles, "append", watched)
    store.record_many("run", {"a": 1.0, "b": math.inf}, step=4, metadata={"k": 1})
    assert len(writes) == 1
    assert [(e.metric, e.value, e.step, dict(e.metadata)) for e in store.read("run")] == [
        ("a", 1.0, 4, {"k": 1}),
        ("b", math.inf, 4, {"k": 1}),
    ]


def test_record_many_of_nothing_is_nothing(store: MetricsStore, folder: Path) -> None:
    store.record_many("run", {})
    assert not folder.exists()


def test_the_file_is_strict_json_on_every_line(store: MetricsStore, folder: Path) -> None:
    store.record_many("run", {"a": math.nan, "b": -math.inf, "line\nbreak\u2028": 1.0})
    _, *rows = the_file(folder).read_text(encoding="ascii").split("\n")

    def no_constant(text: str) -> None:
        raise AssertionError(f"{text} is not JSON")

    assert [json.loads(row, parse_constant=no_constant)["value"] for row in rows] == [
        "NaN",
        "-Infinity",
        1.0,
    ]


# --- what is refused ---


@pytest.mark.parametrize("value", [object(), {1, 2}, math.nan, b"", {"nested": object()}])
def test_metadata_that_is_not_json_is_refused_by_its_key_and_nothing_is_written(
    store: MetricsStore, folder: Path, value: object
) -> None:
    with pytest.raises(InvalidInput, match=r"metadata\['culprit'\]"):
        store.record_many("run", {"a": 1.0, "b": 2.0}, metadata={"fine": 1, "culprit": value})
    assert not folder.exists()


def test_a_metadata_key_that_is_not_a_string_is_refused(store: MetricsStore) -> None:
    with pytest.raises(InvalidInput, match="must be strings, not 1"):
        store.record("run", "a", 1.0, metadata={1: "x"})  # type: ignore[dict-item]


@pytest.mark.parametrize("value", [None, "1.0", 10**400])
def test_a_value_that_is_not_a_float_is_refused_by_its_metric(
    store: MetricsStore, value: float
) -> None:
    with pytest.raises(InvalidInput, match="'nll'"):
        store.record("run", "nll", value)


def test_a_step_that_is_not_an_integer_is_refused(store: MetricsStore) -> None:
    with pytest.raises(InvalidInput, match="step of 'nll'"):
        store.record("run", "nll", 1.0, step=1.5)  # type: ignore[arg-type]


def test_a_folder_that_may_not_be_written_is_unauthorized(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with another(tmp_path / "metrics") as kitchen:
        store = kitchen.metrics_store
        with not_root(), pytest.raises(Unauthorized, match="metrics"):
            store.record("run", "nll", 1.0)


# --- runs and their files ---


@settings(one_folder, max_examples=50)
@given(run_ids=st.sets(any_text | st.sampled_from(ODD_IDS)))
def test_any_text_is_a_run_id_and_different_ids_never_share_rows(
    tmp_path_factory: pytest.TempPathFactory, run_ids: set[str]
) -> None:
    folder = tmp_path_factory.mktemp("metrics")
    opts = jsonl.Options(path=folder)
    for number, run_id in enumerate(sorted(run_ids)):
        jsonl.record(opts, run_id, "nll", float(number), 0, None)
    assert jsonl.runs(opts) == sorted(run_ids)
    for number, run_id in enumerate(sorted(run_ids)):
        assert [entry.value for entry in jsonl.read(opts, run_id)] == [float(number)]
    jsonl.close(opts)
    assert len(list(folder.iterdir())) == len(run_ids)  # nothing landed elsewhere


@given(a=any_text, b=any_text)
def test_names_of_files_differ_on_a_disk_that_ignores_case(a: str, b: str) -> None:
    names = {file_name(run_id).casefold() for run_id in (a, b, a.upper(), a * 100)}
    assert len(names) == len({a, b, a.upper(), a * 100})
    assert all(len(name) < 255 and "/" not in name for name in names)


def test_files_of_others_in_the_folder_are_no_runs(store: MetricsStore, folder: Path) -> None:
    store.record("run", "nll", 0.0)
    (folder / "data.jsonl").write_text('{"text": "hello"}\n[1]\n"x"\n')
    assert list(store.runs()) == ["run"]


def test_more_runs_than_files_that_may_be_open(store: MetricsStore) -> None:
    for _ in range(2):
        for number in range(150):
            store.record(f"run-{number}", "nll", float(number))
    assert values(store, "run-0") == [0.0, 0.0]
    assert len(store.runs()) == 150
    assert len(os.listdir("/proc/self/fd")) < 130


# --- durability ---


def test_a_line_torn_anywhere_costs_that_row_and_never_the_next(folder: Path) -> None:
    with another(folder) as kitchen:
        kitchen.metrics_store.record("run", "nll", 1.0)
        one_row = the_file(folder).stat().st_size
        kitchen.metrics_store.record("run", "nll", 2.0)
    whole = the_file(folder).read_bytes()
    for size in range(one_row, len(whole)):
        the_file(folder).write_bytes(whole[:size])
        with another(folder) as kitchen:
            assert values(kitchen.metrics_store) == [1.0]
            kitchen.metrics_store.record("run", "nll", 3.0)
            assert values(kitchen.metrics_store) == [1.0, 3.0]


def test_a_torn_line_costs_nothing_to_a_process_that_had_the_file_open(
    store: MetricsStore, folder: Path
) -> None:
    store.record("run", "nll", 1.0)
    with the_file(folder).open("ab") as other:  # another process, killed in mid-line
        other.write(b'\n{"run_id":"run","metric":"nl')
    store.record("run", "nll", 2.0)
    assert values(store) == [1.0, 2.0]


def test_a_run_whose_first_line_was_torn_is_listed(store: MetricsStore, folder: Path) -> None:
    folder.mkdir()
    (folder / file_name("run")).write_bytes(b'\n{"run_id":"run","me')
    assert list(store.runs()) == []
    store.record("run", "nll", 1.0)
    assert list(store.runs()) == ["run"]


def test_flush_syncs_the_file_and_its_first_use_syncs_every_new_folder(
    tmp_path: Path, synced: list[str]
) -> None:
    folder = tmp_path / "new" / "metrics"
    with another(folder) as kitchen:
        kitchen.metrics_store.record("run", "nll", 1.0)
        assert set(synced) == {str(tmp_path), str(folder.parent), str(folder)}
        synced.clear()
        kitchen.metrics_store.flush("run")
        assert synced == [str(the_file(folder))]


def test_flush_covers_rows_of_an_earlier_kitchen(
    store: MetricsStore, folder: Path, synced: list[str]
) -> None:
    with another(folder) as kitchen:
        kitchen.metrics_store.record("run", "nll", 1.0)
    store.flush("run")
    assert str(the_file(folder)) in synced


WRITER = """
import sys
import crucible_adapter_jsonl.metrics_store as jsonl
opts = jsonl.Options(path=sys.argv[1])
for step in range(100):
    jsonl.record(opts, "run", "nll", float(step), step, None)
jsonl.flush(opts, "run")
print("flushed", flush=True)
step = 100
while True:
    jsonl.record(opts, "run", "nll", float(step), step, {"filler": "x" * 20_000})
    step += 1
"""


def test_a_writer_killed_after_flush_keeps_every_row(store: MetricsStore, folder: Path) -> None:
    for _ in range(3):
        with subprocess.Popen(
            [sys.executable, "-c", WRITER, str(folder)], stdout=subprocess.PIPE
        ) as child:
            assert child.stdout is not None
            assert child.stdout.readline() == b"flushed\n"
            child.send_signal(signal.SIGKILL)
        found = values(store)
        assert found[:100] == [float(step) for step in range(100)]
        assert found == [float(step) for step in range(len(found))]
        store.record("after", "nll", 1.0)


def test_a_disk_that_takes_only_a_part_of_a_row_is_unavailable(folder: Path) -> None:
    with another(folder, batch_size=1) as kitchen:
        store = kitchen.metrics_store
        store.record("run", "nll", 1.0)
        most = the_file(folder).stat().st_size + 10
        with files_of_at_most(most), pytest.raises(Unavailable, match="only 10 of"):
            store.record("run", "nll", 2.0)
        store.record("run", "nll", 3.0)
        assert values(store) == [1.0, 3.0]


def test_a_disk_that_is_full_is_unavailable_and_nothing_was_done(
    store: MetricsStore, folder: Path
) -> None:
    folder.mkdir()
    (folder / file_name("run")).symlink_to("/dev/full")
    with pytest.raises(Unavailable, match="No space left") as caught:
        store.record("run", "nll", 1.0)
    assert caught.value.retryable
    assert caught.value.no_effect


# --- what is held back ---


def in_file(folder: Path, run_id: str = "run") -> list[float]:
    lines = (folder / file_name(run_id)).read_text().splitlines()
    return [json.loads(line)["value"] for line in lines if line]


def held_for_ever(folder: Path, **options: Any) -> Kitchen:
    return another(folder, **{"max_delay": 3600, **options})


def test_rows_are_held_until_flush_read_or_close(folder: Path) -> None:
    with held_for_ever(folder) as kitchen:
        store = kitchen.metrics_store
        for value in (1.0, 2.0, 3.0):
            store.record("run", "nll", value)
        assert in_file(folder) == [1.0]
        store.flush("run")
        assert in_file(folder) == [1.0, 2.0, 3.0]
        store.record("run", "nll", 4.0)
        assert values(store) == [1.0, 2.0, 3.0, 4.0] == in_file(folder)
        store.record("run", "nll", 5.0)
    assert in_file(folder) == [1.0, 2.0, 3.0, 4.0, 5.0]


def test_a_flush_of_another_run_leaves_rows_held(folder: Path) -> None:
    with held_for_ever(folder) as kitchen:
        store = kitchen.metrics_store
        for run_id in ("run", "other", "run", "other"):
            store.record(run_id, "nll", 1.0)
        store.flush("other")
        assert (in_file(folder), in_file(folder, "other")) == ([1.0], [1.0, 1.0])


def test_a_batch_is_one_write_when_it_is_full(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writes: list[int] = []
    append = RunFiles.append

    def counted(self: RunFiles, run_id: str, rows: bytes) -> int:
        writes.append(rows.count(b"\n"))
        return append(self, run_id, rows)

    monkeypatch.setattr(RunFiles, "append", counted)
    with held_for_ever(folder, batch_size=100) as kitchen:
        for step in range(250):
            kitchen.metrics_store.record("run", "nll", 0.0, step)
    assert writes == [1, 100, 100, 49]


def test_long_rows_are_not_held_in_memory_without_a_limit(folder: Path) -> None:
    with held_for_ever(folder) as kitchen:
        for step in range(100):
            kitchen.metrics_store.record("run", "nll", step, step, {"filler": "x" * 100_000})
        assert len(in_file(folder)) > 88


def test_a_row_that_comes_after_the_delay_is_written_at_once_with_all_that_is_held(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 100.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    with another(folder, max_delay=1.0) as kitchen:
        for at, written in ((100.0, 1), (100.5, 1), (100.9, 1), (101.0, 4), (101.9, 4), (102.0, 6)):
            now = at
            kitchen.metrics_store.record("run", "nll", at)
            assert len(in_file(folder)) == written


def test_rows_that_a_full_disk_took_in_part_are_written_once_each(folder: Path) -> None:
    with held_for_ever(folder) as kitchen:
        store = kitchen.metrics_store
        store.record("run", "nll", 0.0)
        row = the_file(folder).stat().st_size
        for value in (1.0, 2.0, 3.0, 4.0):
            store.record("run", "nll", value)
        with files_of_at_most(3 * row + row // 2):
            for _ in range(2):
                with pytest.raises(Unavailable, match=str(folder)) as caught:
                    store.flush("run")
                assert caught.value.no_effect
        store.flush("run")
        assert values(store) == [0.0, 1.0, 2.0, 3.0, 4.0]


def test_rows_that_could_not_be_written_at_the_close_are_written_at_the_next(folder: Path) -> None:
    opts = jsonl.Options(path=folder, max_delay=3600)
    for value in (0.0, 1.0):
        jsonl.record(opts, "run", "nll", value, None, None)
    with files_of_at_most(the_file(folder).stat().st_size), pytest.raises(Unavailable):
        jsonl.close(opts)
    jsonl.close(opts)
    assert in_file(folder) == [0.0, 1.0]


UNCLOSED = """
import gc, os, sys
import crucible_adapter_jsonl.metrics_store as jsonl

def record(run_id):
    opts = jsonl.Options(path=sys.argv[1], max_delay=3600)
    for value in (0.0, 1.0, 2.0):
        jsonl.record(opts, run_id, "nll", value, None, None)
    return opts

record("forgotten")
gc.collect()
opts = record("run")
if sys.argv[2:] == ["fork"]:
    if child := os.fork():
        os.waitpid(child, 0)
"""


def test_a_program_that_ends_without_closing_writes_what_is_held(folder: Path) -> None:
    subprocess.run([sys.executable, "-c", UNCLOSED, str(folder)], check=True)
    assert in_file(folder) == in_file(folder, "forgotten") == [0.0, 1.0, 2.0]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_forked_child_that_ends_leaves_its_parents_rows_to_it(folder: Path) -> None:
    subprocess.run([sys.executable, "-c", UNCLOSED, str(folder), "fork"], check=True)
    assert in_file(folder) == in_file(folder, "forgotten") == [0.0, 1.0, 2.0]


def test_rows_that_cannot_be_written_at_the_end_are_reported_by_their_run(folder: Path) -> None:
    opts = jsonl.Options(path=folder, max_delay=3600)
    for value in (0.0, 1.0):
        jsonl.record(opts, "run", "nll", value, None, None)
    with (
        files_of_at_most(the_file(folder).stat().st_size),
        pytest.warns(CrucibleWarning, match="'run' are lost"),
    ):
        jsonl._held_rows(opts).write_at_exit("run")
    jsonl.close(opts)


def test_a_run_without_held_rows_keeps_nothing_alive(folder: Path) -> None:
    with held_for_ever(folder) as kitchen:
        for value in (0.0, 1.0):
            kitchen.metrics_store.record("run", "nll", value)
        assert [run_id for _, run_id in held._holding] == ["run"]
        kitchen.metrics_store.flush("run")
        assert not held._holding


def test_an_interrupt_during_a_write_doubles_no_row(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    append = RunFiles.append

    def interrupted(self: RunFiles, run_id: str, rows: bytes) -> int:
        append(self, run_id, rows)
        raise KeyboardInterrupt  # the signal is handled when write(2) returns

    with held_for_ever(folder, batch_size=3) as kitchen:
        store = kitchen.metrics_store
        for value in (0.0, 1.0, 2.0):
            store.record("run", "nll", value)
        with monkeypatch.context() as patched:
            patched.setattr(RunFiles, "append", interrupted)
            with pytest.raises(KeyboardInterrupt):
                store.record("run", "nll", 3.0)
        store.record("run", "nll", 4.0)
        assert values(store) == [0.0, 1.0, 2.0, 3.0, 4.0]


# --- several at once ---


ONE_OF_MANY = """
import sys
import crucible_adapter_jsonl.metrics_store as jsonl
opts = jsonl.Options(path=sys.argv[1])
print("ready", flush=True)
sys.stdin.readline()
for step in range(500):
    jsonl.record(opts, "run", f"metric-{sys.argv[2]}", float(step), step, {"filler": "x" * 9000})
jsonl.close(opts)
"""


def test_processes_that_write_at_once_lose_nothing_and_readers_see_whole_rows(
    store: MetricsStore, folder: Path
) -> None:
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", ONE_OF_MANY, str(folder), str(n)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        for n in range(4)
    ]
    for writer in writers:
        assert writer.stdout is not None
        assert writer.stdout.readline() == b"ready\n"
    for writer in writers:
        assert writer.stdin is not None
        writer.stdin.write(b"go\n")
        writer.stdin.flush()
    while any(writer.poll() is None for writer in writers):
        for entry in store.read("run"):
            assert entry.value == entry.step
    for writer in writers:
        writer.communicate()
        assert writer.returncode == 0
    entries = store.read("run")
    assert len(entries) == 2000
    for n in range(4):
        mine = [entry.value for entry in entries if entry.metric == f"metric-{n}"]
        assert mine == [float(step) for step in range(500)]


def test_threads_that_write_at_once_lose_nothing(store: MetricsStore) -> None:
    def write(thread: int) -> None:
        for step in range(100):
            store.record("run", f"metric-{thread}", float(step), step=step)
            store.record(f"run-{thread}-{step}", "nll", 0.0)  # makes others' files close
            store.flush("run")

    threads = [threading.Thread(target=write, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(store.read("run")) == 400
    assert len(store.runs()) == 401


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_forked_child_opens_files_of_its_own(store: MetricsStore) -> None:
    store.record("run", "nll", 1.0)
    assert isinstance(store.options, jsonl.Options)
    mine = jsonl._run_files(store.options)
    child = os.fork()
    if child == 0:  # no assertion may leave this branch
        status = 1
        try:
            store.record("run", "nll", 2.0)
            store.flush("run")
            status = int(jsonl._run_files(store.options) is mine)
        finally:
            os._exit(status)
    assert os.waitpid(child, 0)[1] == 0
    store.record("run", "nll", 3.0)
    assert values(store) == [1.0, 2.0, 3.0]


def test_close_closes_the_files_and_a_later_use_opens_them_again(folder: Path) -> None:
    opts = jsonl.Options(path=folder)
    jsonl.record(opts, "run", "nll", 1.0, None, None)
    fd = jsonl._run_files(opts)._open["run"].fileno()
    jsonl.close(opts)
    jsonl.close(opts)
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(fd)
    jsonl.record(opts, "run", "nll", 2.0, None, None)
    assert [entry.value for entry in jsonl.read(opts, "run")] == [1.0, 2.0]
    jsonl.close(opts)
