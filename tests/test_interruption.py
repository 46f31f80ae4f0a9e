"""What Ctrl-C does to a run."""

from __future__ import annotations

import json
import re
import shlex
import signal
import subprocess
from collections.abc import Iterable
from pathlib import Path

import pytest
from conftest import COMMAND, Crucible, clean_environ, started

pytestmark = pytest.mark.usefixtures("ctrl_c")

# More steps than can be taken before the signal comes.
CONFIG = """
[adapters]
training_client = { use = "noop", latency_scale = 0 }
dataset_store = "noop"
blob_store = { use = "fsspec", url = "runs" }
metrics_store = { use = "jsonl", path = "runs/metrics" }
[workflow]
use = "supervised"
model = "any"
dataset = "rows"
max_steps = 1_000_000
[profile.saving.workflow]
save_every = 1
max_steps = 4_000
"""


def interrupted(folder: Path, arguments: Iterable[str], at: str) -> tuple[list[str], str]:
    """Run the command until a line that begins with `at`, then press Ctrl-C.

    Returns:
        The lines of its output up to there, and what it said of the interruption.
    """
    with subprocess.Popen(
        [*COMMAND, *arguments],
        cwd=folder,
        env=clean_environ(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        lines: list[str] = []
        try:
            for line in process.stdout:
                lines.append(line.rstrip())
                if line.startswith(at):
                    process.send_signal(signal.SIGINT)
                    break
            _, said = process.communicate(timeout=60)
        finally:
            process.kill()
    assert process.returncode == 130, said
    assert "Traceback" not in said
    return lines, said


def advised(said: str) -> list[str]:
    """Return the command to go on with, as it stands on a line of its own."""
    [line] = [line for line in said.splitlines() if line.startswith("    crucible ")]
    return shlex.split(line)[1:]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "my run.toml").write_text(CONFIG)
    return tmp_path


def test_ctrl_c_gives_the_command_that_goes_on_from_the_last_checkpoint(folder: Path) -> None:
    first = ["run", "my run.toml", "--profile", "saving", "workflow.seed=3"]
    _, said = interrupted(folder, first, at="step 200/")
    assert re.match(r"interrupted; continue after step \d+ with\n", said)
    lines, _ = interrupted(folder, advised(said), at="supervised run")
    assert re.fullmatch(r"supervised run \S+ continues after step \d+", lines[-1])


def test_ctrl_c_before_the_first_checkpoint_says_that_there_is_none(folder: Path) -> None:
    _, said = interrupted(folder, ["run", "my run.toml"], at="step 1/")
    assert said.startswith("interrupted; there is no checkpoint yet, so begin again with\n")
    lines, _ = interrupted(folder, advised(said), at="supervised run")
    assert lines[-1].endswith(" begins")


def test_the_command_to_go_on_with_has_no_secret_in_it(folder: Path) -> None:
    inner = {"use": "sql", "url": "sqlite:///hunter2.db"}
    arguments = ["adapters.metrics_store.use=retry"]
    arguments += [f"adapters.metrics_store.inner={json.dumps(inner)}"]
    arguments += ["adapters.hub_client.use=hf-hub", "adapters.hub_client.token=hunter2-unbound"]
    _, said = interrupted(folder, ["run", "my run.toml", *arguments], at="step 1/")
    assert "hunter2" not in said
    assert "and the secrets in place of **********, better kept in the environment" in said
    given = dict(argument.partition("=")[::2] for argument in advised(said)[2:])
    assert given["adapters.metrics_store.use"] == "retry"
    assert json.loads(given["adapters.metrics_store.inner"]) == {**inner, "url": "**********"}
    assert given["adapters.hub_client.token"] == "**********"


# Python drops what is raised in a destructor; pydantic makes an error of its own of it.
SWALLOWING = """
import os, signal
from crucible_kitchen import AdapterError, WorkflowConfig

class Deaf:
    def __del__(self):
        os.kill(os.getpid(), signal.SIGINT)
        for _ in range(1000):
            pass

def goes_on(kitchen, config: WorkflowConfig):
    kitchen.observers.emit("workflow.start", workflow="goes on", run_id="r")
    Deaf()
    kitchen.observers.emit("training.step", step=1, total=9, metrics={})
    print("went on")

def fails(kitchen, config: WorkflowConfig):
    kitchen.observers.emit("workflow.start", workflow="fails", run_id="r")
    try:
        os.kill(os.getpid(), signal.SIGINT)
    except KeyboardInterrupt:
        raise AdapterError("a library failed")
"""


@pytest.mark.parametrize("function", ["goes_on", "fails"])
def test_ctrl_c_that_a_library_swallows_ends_the_run_all_the_same(
    plain_crucible: Crucible, tmp_path: Path, function: str
) -> None:
    (tmp_path / "mine.py").write_text(SWALLOWING)
    outcome = plain_crucible("run", f"workflow.use=mine.py:{function}")
    assert outcome.code == 130
    assert "went on" not in outcome.out
    assert "interrupted; there is no checkpoint yet, so begin again with\n" in outcome.err
    assert "a library failed" not in outcome.err


def test_a_command_that_was_started_deaf_to_ctrl_c_stays_so(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(SWALLOWING)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # until the fixture puts it back
    outcome = started(tmp_path, "run", "workflow.use=mine.py:goes_on")
    assert outcome.code == 0
    assert "went on" in outcome.out
