"""A recording that is killed leaves the cassette as it was, and a part that says it is none."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import crucible_adapter_compose.cassette as cassettes
import pytest
from crucible_kitchen import ConfigurationError, Kitchen

KILLED = """
import os, signal, sys
import crucible_adapter_compose.cassette as cassettes
from crucible_kitchen import Kitchen
noop = {"use": "noop", "latency_scale": 0}
table = {"use": cassettes.blob_store, "file": sys.argv[1], "mode": "record", "inner": noop}
store = Kitchen({"blob_store": table}).blob_store
store.write("a", b"1")
os.kill(os.getpid(), signal.SIGKILL)
"""


def killed(file: Path) -> None:
    done = subprocess.run([sys.executable, "-c", KILLED, str(file)], timeout=60)
    assert done.returncode == -9


def kitchen(file: Path, mode: str) -> Kitchen:
    noop = {"use": "noop", "latency_scale": 0}
    table: dict[str, Any] = {"use": cassettes.blob_store, "file": file, "mode": mode, "inner": noop}
    return Kitchen({"blob_store": table})


def parts(file: Path) -> list[Path]:
    return sorted(file.parent.glob("*.part"))


def test_a_killed_recording_is_unfinished_and_says_so(tmp_path: Path) -> None:
    file = tmp_path / "cassette.jsonl"
    killed(file)
    assert not file.exists()
    [part] = parts(file)
    assert b'"name": "write"' in part.read_bytes()
    for given in (file, part):
        with kitchen(given, "replay") as replayed, pytest.raises(ConfigurationError) as raised:
            replayed.blob_store  # noqa: B018
        assert "unfinished" in str(raised.value)
        assert 'record it again with mode = "record"' in str(raised.value)


def test_the_recording_after_one_that_was_killed_removes_its_part(tmp_path: Path) -> None:
    file = tmp_path / "cassette.jsonl"
    killed(file)
    assert len(parts(file)) == 1
    with kitchen(file, "record") as recorded:
        recorded.blob_store.write("a", b"newer")
    assert parts(file) == []
    with kitchen(file, "replay") as replayed:
        replayed.blob_store.write("a", b"newer")


@pytest.mark.filterwarnings("ignore:.*was recorded by another process meanwhile")
def test_the_part_of_a_recording_under_way_is_left_alone(tmp_path: Path) -> None:
    file = tmp_path / "cassette.jsonl"
    with kitchen(file, "record") as one:
        one.blob_store.write("a", b"1")
        with kitchen(file, "record") as two:
            two.blob_store.write("a", b"2")
            assert len(parts(file)) == 2
        one.blob_store.write("b", b"1")
    [kept] = (each for each in tmp_path.iterdir() if each.is_file() and each != file)
    with kitchen(kept, "replay") as replayed:
        replayed.blob_store.write("b", b"1")
