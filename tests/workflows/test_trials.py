"""Runs of a real model that are killed, stopped, starved of space and mixed: all end as if alone.

Each trial is a `crucible run` in a process of its own. At the end the record, the rows of metrics
and every file are compared with those of a run that nothing happened to; weights and moments to
the bit. Run with `tox -e trials`: it takes minutes.
"""

from __future__ import annotations

import json
import os
import random
import re
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from killed_runs import ended, files, import_beforehand, outcome, run, said, start

pytest.importorskip("torch", reason="torch is not installed")
pytestmark = pytest.mark.slow

CONFIG = """
[adapters]
dataset_store = { use = "hf-datasets", cache_dir = "cache" }
metrics_store = { use = "jsonl", path = "metrics" }
blob_store = { use = "fsspec", url = "runs" }
[adapters.training_client]
use = "torch"
checkpoint_dir = "checkpoints"
[adapters.training_client.models.tiny]
model_type = "llama"
hidden_size = 16
num_hidden_layers = 1
num_attention_heads = 2
intermediate_size = 32
max_position_embeddings = 64
[workflow]
use = "supervised"
model = "tiny"
dataset = "train.jsonl"
test_size = 8
batch_size = 8
max_steps = 120
learning_rate = 1e-2
save_every = 10
eval_every = 15
keep_checkpoints = 2
[observe]
jsonl = "trace/trace.jsonl"
"""


@pytest.fixture(scope="session", autouse=True)
def imported() -> None:
    import_beforehand()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return prepared(tmp_path)


def prepared(folder: Path) -> Path:
    (folder / "crucible.toml").write_text(CONFIG)
    rows = ({"prompt": f"{i}+1=", "completion": str(i + 1)} for i in range(72))
    (folder / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


@pytest.fixture(scope="session")
def alone(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], list[str]]:
    """What a run leaves that nothing happens to, and the files."""
    folder = prepared(tmp_path_factory.mktemp("alone"))
    run(folder, "exp")
    return outcome(folder, "exp"), files(folder)


# --- trials ---


@pytest.mark.parametrize("seed", range(40))
def test_killed_at_a_random_instant_and_continued(folder: Path, alone: Any, seed: int) -> None:
    draw = random.Random(seed)
    for _ in range(draw.choice([1, 1, 1, 2, 3])):
        pid = start(folder, "exp")
        if ended(pid, draw.uniform(0, 4)) is None:
            os.kill(pid, signal.SIGKILL)
            ended(pid, 60)
    run(folder, "exp")
    assert (outcome(folder, "exp"), files(folder)) == alone


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("seed", range(10))
def test_stopped_at_any_moment_and_continued(
    folder: Path, alone: Any, number: signal.Signals, seed: int
) -> None:
    pid = start(folder, "exp")
    draw = random.Random(seed)
    if (code := ended(pid, draw.uniform(0.02, 4))) is None:
        os.kill(pid, number)
        code = ended(pid, 60)
    assert "Traceback" not in said(folder)
    file = folder / "runs/exp/run.json"
    status = json.loads(file.read_text())["status"] if file.exists() else None
    if code == 0:
        assert status == "done"
    elif code == -number:  # before the command had begun to listen
        assert status is None
    else:
        assert code == 128 + number
        assert "interrupted" in (folder / "err").read_text()
        assert status in (None, "interrupted")
    run(folder, "exp")
    assert (outcome(folder, "exp"), files(folder)) == alone


@pytest.fixture(params=["checkpoints", "runs", "metrics", "trace"])
def small(request: pytest.FixtureRequest, folder: Path) -> Iterator[Path]:
    """A file system of two megabytes, in one of the places that a run writes to."""
    place = folder / request.param
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=2m", "none", str(place)]
    done = subprocess.run(mount, capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"no file system can be mounted: {done.stderr.strip()}")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def fill(place: Path) -> Path:
    ballast = place / "ballast"
    with ballast.open("wb", buffering=0) as file:
        for size in (1 << 16, 1):
            try:
                while True:
                    file.write(b"\0" * size)
            except OSError:
                pass
    return ballast


def test_a_disk_that_is_full_loses_nothing(folder: Path, small: Path, alone: Any) -> None:
    pid = start(folder, "exp")
    out = folder / "out"
    while not (out.exists() and "step 24/" in out.read_text()):
        assert ended(pid, 0.01) is None, said(folder)
    ballast = fill(small)
    assert ended(pid, 120) == 1, said(folder)
    told = (folder / "err").read_text()
    assert "Traceback" not in told
    assert small.name in told
    assert re.search(r"No space left on device|\d bytes (were|could be) written", told)
    record = json.loads((folder / "runs/exp/run.json").read_text())
    if small.name == "trace":  # nothing that was asked of the run
        assert record["status"] == "done"
    ballast.unlink()
    run(folder, "exp")
    assert (outcome(folder, "exp"), files(folder)) == alone


def test_a_disk_that_is_too_small_is_found_out_before_the_first_step(folder: Path) -> None:
    place = folder / "checkpoints"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=40k", "none", str(place)]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("no file system can be mounted")
    try:
        assert ended(start(folder, "exp"), 120) == 1
        assert "training_client.torch.check_storage: " in (folder / "err").read_text()
        assert "step 1/" not in (folder / "out").read_text()
        assert not [*place.iterdir()]
    finally:
        subprocess.run(["umount", str(place)], check=True)


NAMES = {"exp": "workflow.seed=0", "exp/1": "workflow.seed=1"}
"""Two runs, the id of one the beginning of that of the other."""


@pytest.fixture(scope="session")
def both_alone(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[Any], list[str]]:
    folder = prepared(tmp_path_factory.mktemp("both"))
    for run_id, seed in NAMES.items():
        run(folder, run_id, seed)
    return [outcome(folder, run_id) for run_id in NAMES], files(folder)


@pytest.mark.parametrize("seed", range(20))
def test_two_runs_that_share_every_folder_end_as_if_alone(
    folder: Path, both_alone: Any, seed: int
) -> None:
    draw = random.Random(seed)
    running: dict[str, int] = {}

    def end(run_id: str, within: float) -> None:
        """Wait for a run, and take note if it ended: done, or refused where the second process
        was the first to take the lease."""
        if (code := ended(running[run_id], within)) is not None:
            assert code in (0, 2), said(folder)
            del running[run_id]

    for _ in range(10):
        run_id = draw.choice([*NAMES])
        if run_id not in running:
            running[run_id] = start(folder, run_id, NAMES[run_id])
            end(run_id, draw.uniform(0, 1.5))
            continue
        match draw.choice(["kill", "wait", "again"]):
            case "kill":
                os.kill(running[run_id], signal.SIGKILL)
                ended(running.pop(run_id), 60)
            case "wait":
                end(run_id, draw.uniform(0, 3))
            case "again":  # refused, unless the first has ended meanwhile
                code = ended(start(folder, run_id, NAMES[run_id]), 120)
                assert code in (0, 2), said(folder)
                if code == 2:
                    told = f"error: the run {run_id!r} is in use by process {running[run_id]} "
                    assert told in (folder / "err").read_text()
    for run_id in [*running]:
        end(run_id, 300)
    for run_id, argument in NAMES.items():
        run(folder, run_id, argument)
    assert "Traceback" not in said(folder)
    found = [outcome(folder, run_id) for run_id in NAMES]
    assert (found, files(folder)) == both_alone
