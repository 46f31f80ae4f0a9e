"""`crucible clean`: what killed runs left goes, and nothing else."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from commands import Crucible
from crucible_kitchen.workflows.runs.lease import process

CONFIG = """
[adapters]
training_client = { use = "noop", latency_scale = 0 }
dataset_store = "noop"
blob_store = { use = "fsspec", url = "runs" }
metrics_store = { use = "jsonl", path = "metrics" }
[workflow]
use = "supervised"
model = "any"
dataset = "rows"
max_steps = 3
"""
GONE = {"holder": "0", "count": 7, "host": "elsewhere", "pid": 1, "process": "b pid:[1] 1 9"}


@pytest.fixture
def folder(plain_crucible: Crucible, tmp_path: Path) -> Path:
    """A folder in which the run `r` was run, which then was made to look as if it was killed."""
    (tmp_path / "crucible.toml").write_text(CONFIG)
    assert plain_crucible("run", "workflow.run_id=r").code == 0
    killed = record(tmp_path) | {"status": "running", "weights": None}
    (tmp_path / "runs/r/run.json").write_text(json.dumps(killed))
    return tmp_path


def record(folder: Path) -> dict[str, Any]:
    return dict(json.loads((folder / "runs/r/run.json").read_text()))


def files(folder: Path) -> dict[str, bytes]:
    return {str(file): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def test_a_dry_run_lists_what_would_be_done_and_does_nothing(
    plain_crucible: Crucible, folder: Path
) -> None:
    before = files(folder)
    outcome = plain_crucible("clean", "--dry-run")
    assert outcome.code == 0
    assert "run r  was killed; goes on after step 3" in outcome.out
    assert files(folder) == before


def test_a_killed_run_is_not_running_for_ever(plain_crucible: Crucible, folder: Path) -> None:
    assert "run r  was killed" in plain_crucible("clean").out
    cleaned = record(folder)
    assert (cleaned["status"], cleaned["error"]) == ("interrupted", "killed")
    assert plain_crucible("clean").out == "there is nothing to clean\n"


def test_a_run_that_may_be_in_use_elsewhere_is_left_alone(
    plain_crucible: Crucible, folder: Path
) -> None:
    (folder / "runs/r/lease.json").write_text(json.dumps(GONE))
    before = files(folder)
    outcome = plain_crucible("clean", "--dry-run")
    assert "left alone: the run 'r' is in use by process 1 on elsewhere" in outcome.out
    assert files(folder) == before


@pytest.mark.parametrize("content", [b"", b"{}", b"\xff", b"[" * 100_000])
def test_a_damaged_record_is_named_and_hides_nothing(
    plain_crucible: Crucible, folder: Path, content: bytes
) -> None:
    (folder / "runs/another").mkdir()
    (folder / "runs/another/run.json").write_bytes(content)
    outcome = plain_crucible("clean")
    assert outcome.code == 0
    assert "left alone: the blob 'another/run.json' of the blob store is damaged" in outcome.out
    assert "run r        was killed" in outcome.out
    assert (folder / "runs/another/run.json").read_bytes() == content


def test_a_run_that_cannot_be_worked_on_is_named_and_hides_nothing(
    plain_crucible: Crucible, folder: Path
) -> None:
    killed = json.dumps(record(folder) | {"run_id": "a", "checkpoint_prefix": "a/01234567/"})
    (folder / "runs/a/lease.json").mkdir(parents=True)
    (folder / "runs/a/run.json").write_text(killed)
    outcome = plain_crucible("clean")
    assert outcome.code == 0
    assert "run a  left alone: blob_store.fsspec.write: blob path 'a/lease.json'" in outcome.out
    assert "run r  was killed" in outcome.out


@pytest.mark.parametrize("run_id", ["r", "killed-before-its-record-was-written"])
def test_a_lease_that_a_kill_left_goes(plain_crucible: Crucible, folder: Path, run_id: str) -> None:
    (folder / "runs/r/run.json").write_text(json.dumps(record(folder) | {"status": "done"}))
    boot, space, *_ = str(process(os.getpid())).split()
    ended = GONE | {"process": f"{boot} {space} {2**22 + 1} 1"}
    (folder / "runs" / run_id).mkdir(exist_ok=True)
    (folder / "runs" / run_id / "lease.json").write_text(json.dumps(ended))
    before = files(folder)
    assert plain_crucible("clean", "--dry-run").out.endswith(f"removed {run_id}/lease.json\n")
    assert files(folder) == before
    assert plain_crucible("clean").out.endswith(f"removed {run_id}/lease.json\n")
    assert plain_crucible("clean").out == "there is nothing to clean\n"


def test_a_file_of_another_program_that_is_named_as_a_lease_stays(
    plain_crucible: Crucible, folder: Path
) -> None:
    (folder / "runs/r/run.json").write_text(json.dumps(record(folder) | {"status": "done"}))
    (folder / "runs/dhcp").mkdir()
    (folder / "runs/dhcp/lease.json").write_text('{"address": "10.0.0.1"}')
    before = files(folder)
    assert "run dhcp  left alone" in plain_crucible("clean").out
    assert files(folder) == before


def test_where_nothing_is_configured_there_is_nothing_to_look_through(
    plain_crucible: Crucible, tmp_path: Path
) -> None:
    assert plain_crucible("clean").out == "no adapter is configured here\n"
