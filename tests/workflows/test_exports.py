"""Weights of runs, exported: the right ones, and a folder that is whole or not there."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import bigram_training_client
import numpy as np
import pytest
from crucible_kitchen import ConfigurationError, InvalidInput, Kitchen, NotFound, RunRecord
from crucible_kitchen.history.weights import checkpoint_of, export
from crucible_kitchen.workflows import run_in, runs
from crucible_kitchen.workflows.supervised import supervised

import kitchen_noop

ADAPTERS = {name: {**table, "latency_scale": 0} for name, table in kitchen_noop.ADAPTERS.items()}
CONFIG = {
    "model": "any",
    "dataset": "any",
    "max_steps": 6,
    "batch_size": 4,
    "save_every": 2,
    "keep_checkpoints": 2,
}
TEXT = [[5, 6, 7, 8]]


@pytest.fixture
def kitchen() -> Iterator[Kitchen]:
    with Kitchen(adapters=ADAPTERS) as kitchen:
        yield kitchen


def trained(kitchen: Kitchen, **config: Any) -> RunRecord:
    """Return the record of a run of six steps, which keeps the checkpoints of steps 4 and 6."""
    run_in(kitchen, supervised, {**CONFIG, "run_id": "r", **config})
    record = runs.read(kitchen, "r")
    assert record is not None
    return record


def score(kitchen: Kitchen, model: str | Path) -> Any:
    return kitchen.completer.score(TEXT, str(model))[0]


def test_an_exported_folder_has_the_final_weights(kitchen: Kitchen, tmp_path: Path) -> None:
    record = trained(kitchen)
    assert record.weights is not None
    exported = export(kitchen, record, tmp_path / "out")
    assert exported.folder == tmp_path / "out"
    assert exported.checkpoint == record.state.checkpoint
    assert exported.differs == ()
    assert np.array_equal(score(kitchen, exported.folder), score(kitchen, record.weights))
    assert not np.array_equal(score(kitchen, exported.folder), score(kitchen, "any"))
    about = json.loads((exported.folder / "crucible.json").read_text())
    assert (about["run_id"], about["workflow"]) == ("r", "supervised")
    assert about["checkpoint"] == record.state.checkpoint


def test_an_earlier_checkpoint_can_be_exported(kitchen: Kitchen, tmp_path: Path) -> None:
    record = trained(kitchen)
    export(kitchen, record, tmp_path / "earlier", record.checkpoints[0])
    export(kitchen, record, tmp_path / "last", "last")
    found = {n: json.loads((tmp_path / n / "noop.json").read_text()) for n in ("earlier", "last")}
    assert (found["earlier"]["steps"], found["last"]["steps"]) == (4, 6)


def test_a_run_that_looks_for_the_best_stands_for_it(kitchen: Kitchen) -> None:
    record = trained(kitchen)
    best = {"step": 4, "value": 0.5, "checkpoint": record.checkpoints[0]}
    state = {**record.state.model_dump(), "standing": {"best": best, "waited": 1}}
    with_best = record.with_(state=state)
    assert checkpoint_of(with_best) == record.checkpoints[0]
    assert checkpoint_of(with_best, "best") == record.checkpoints[0]
    assert checkpoint_of(with_best, "last") == record.checkpoints[1]


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ("best", "without workflow.best_metric"),
        ("lats", "keeps no checkpoint 'lats'; there is last, best, noop://"),
        ("noop://checkpoint/of-another-run", "keeps no checkpoint"),
    ],
)
def test_a_checkpoint_that_is_not_the_runs_is_refused(
    kitchen: Kitchen, tmp_path: Path, wanted: str, message: str
) -> None:
    with pytest.raises(ConfigurationError, match=message):
        export(kitchen, trained(kitchen), tmp_path / "out", wanted)
    assert os.listdir(tmp_path) == []


def test_a_run_without_a_checkpoint_is_refused(kitchen: Kitchen, tmp_path: Path) -> None:
    record = trained(kitchen).with_(state={"step": 0, "checkpoint": None}, status="failed")
    with pytest.raises(ConfigurationError, match="'r', which is failed, has no checkpoint yet"):
        export(kitchen, record, tmp_path / "out")


def test_what_the_training_client_reports_otherwise_is_named(
    kitchen: Kitchen, tmp_path: Path
) -> None:
    record = trained(kitchen).with_(depends_on={"training_client": {"formula": "noop 0"}})
    exported = export(kitchen, record, tmp_path / "out")
    assert exported.differs == ("formula was 'noop 0' and is 'noop 1'",)


def test_another_training_client_than_the_runs_is_named(kitchen: Kitchen, tmp_path: Path) -> None:
    record = trained(kitchen)
    there = {"training_client": {"use": "torch"}}
    with Kitchen(adapters=ADAPTERS) as other, pytest.raises(NotFound) as failure:
        export(other, record.with_(adapters=there), tmp_path / "out")
    [said] = failure.value.__notes__
    assert "was trained by the training client 'torch'" in said


def test_a_client_that_exports_nothing_is_named(kitchen: Kitchen, tmp_path: Path) -> None:
    record = trained(kitchen)
    bigram = {"use": bigram_training_client, "models": {"any": 300}}
    adapters = {**ADAPTERS, "training_client": {**bigram, "checkpoint_dir": tmp_path / "c"}}
    with (
        Kitchen(adapters=adapters) as other,
        pytest.raises(ConfigurationError, match="exports no weights: it does not implement"),
    ):
        export(other, record, tmp_path / "out")


# --- the folder ---


def test_a_failure_leaves_no_folder_not_even_around_it(kitchen: Kitchen, tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="no low-rank update"):
        export(kitchen, trained(kitchen), tmp_path / "a" / "b" / "out", merge=False)
    assert os.listdir(tmp_path) == []


def test_an_empty_folder_is_filled_and_those_around_it_are_made(
    kitchen: Kitchen, tmp_path: Path
) -> None:
    record = trained(kitchen)
    (tmp_path / "empty").mkdir()
    for name in ("empty", "a/b/out"):
        export(kitchen, record, tmp_path / name)
        assert {*os.listdir(tmp_path / name)} == {"noop.json", "crucible.json"}
    assert {*os.listdir(tmp_path)} == {"empty", "a"}


@pytest.mark.parametrize("there", ["a folder", "a file", "a dangling link"])
def test_nothing_is_replaced(kitchen: Kitchen, tmp_path: Path, there: str) -> None:
    out = tmp_path / "out"
    if there == "a folder":
        out.mkdir()
        (out / "mine").write_text("mine")
    elif there == "a file":
        out.write_text("mine")
    else:
        out.symlink_to(tmp_path / "nowhere")
    with pytest.raises(ConfigurationError, match=r"is not empty|is not a folder"):
        export(kitchen, trained(kitchen), out)
    assert os.listdir(tmp_path) == ["out"]


KILLED = """
import sys, time
from crucible_kitchen.history import weights
with weights._new_folder(weights.Path(sys.argv[1])) as partial:
    (partial / "half").write_text("half")
    print("there", flush=True)
    time.sleep(60)
"""


@pytest.mark.slow
def test_a_kill_leaves_no_folder_and_what_it_leaves_goes_with_the_next_export(
    kitchen: Kitchen, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    with subprocess.Popen([sys.executable, "-c", KILLED, str(out)], stdout=subprocess.PIPE) as one:
        assert one.stdout is not None
        assert one.stdout.readline() == b"there\n"
        one.send_signal(signal.SIGKILL)
    assert not out.exists()
    [left] = tmp_path.iterdir()
    assert left.name.startswith(".crucible-export-")
    export(kitchen, trained(kitchen), out)
    assert list(tmp_path.iterdir()) == [out]


def test_an_export_that_is_under_way_is_left_alone(kitchen: Kitchen, tmp_path: Path) -> None:
    other = tmp_path / ".crucible-export-0"
    other.mkdir()
    descriptor = os.open(other, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        export(kitchen, trained(kitchen), tmp_path / "out")
        assert other.exists()
    finally:
        os.close(descriptor)
