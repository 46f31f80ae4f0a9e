"""What Ctrl-C, SIGTERM and SIGHUP do to a run."""

from __future__ import annotations

import json
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest
from commands import COMMAND, Crucible, Outcome, add_package, clean_environ, started

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


CODES = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGHUP: 129}
every_signal = pytest.mark.parametrize("number", list(CODES))


def interrupted(
    folder: Path, arguments: Iterable[str], at: str, number: signal.Signals = signal.SIGINT
) -> tuple[list[str], str]:
    """Run the command until a line that begins with `at`, then send it a signal.

    Returns:
        The lines of its output up to there, and what it said about the interruption.
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
                    process.send_signal(number)
                    break
            _, said = process.communicate(timeout=60)
        finally:
            process.kill()
    assert process.returncode == CODES[number], said
    assert "Traceback" not in said
    return lines, said


def advised(said: str) -> list[str]:
    """Return the command that continues the run, which is on its own line."""
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


@every_signal
def test_each_signal_ends_a_run_with_its_record_written(
    folder: Path, number: signal.Signals
) -> None:
    # A signal in the middle of a submission saves nothing, so there must be a checkpoint already.
    arguments = ["run", "my run.toml", "--profile", "saving", "workflow.run_id=r"]
    _, said = interrupted(folder, arguments, at="step 200/", number=number)
    assert said.startswith("interrupted; continue after step ")
    assert json.loads((folder / "runs/r/run.json").read_text())["status"] == "interrupted"


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


# What follows sends signals to itself, so that they come when they are to come.
WORKFLOWS = """
import atexit, concurrent.futures, dataclasses, os, signal, threading
from crucible_kitchen import AdapterError, WorkflowConfig
from crucible_kitchen.cli import ending, interruption

interruption.ECHO = 0  # a signal that comes at once is not an echo here
ending.GRACE = 0.1

def hit(number=signal.SIGINT):
    os.kill(os.getpid(), number)

class Deaf:
    def __del__(self):
        hit()
        for _ in range(1000):
            pass

def begin(kitchen):
    kitchen.observers.emit("workflow.start", workflow="mine", run_id="r")

def step(kitchen):
    kitchen.observers.emit("training.step", step=1, total=9, metrics={})

def stop(kitchen):
    kitchen.observers.emit("workflow.stop", workflow="mine", run_id="r")

# Python drops what is raised in a destructor; pydantic turns it into an error of its own.

def goes_on(kitchen, config: WorkflowConfig):
    begin(kitchen)
    Deaf()
    step(kitchen)
    print("went on")

def fails(kitchen, config: WorkflowConfig):
    begin(kitchen)
    try:
        hit()
    except KeyboardInterrupt:
        raise AdapterError("a library failed")

def leaves(kitchen, config: WorkflowConfig):
    begin(kitchen)
    try:
        hit(signal.SIGTERM)
    finally:
        raise SystemExit(0)

def saves(kitchen, config: WorkflowConfig):
    begin(kitchen)
    try:
        hit()
    except KeyboardInterrupt:
        kitchen.observers.emit("workflow.interrupted", workflow="mine", run_id="r", step=7)
        step(kitchen)
        kitchen.observers.emit("training.checkpoint", run_id="r", step=7)
        raise

def saves_for_ever(kitchen, config: WorkflowConfig):
    begin(kitchen)
    try:
        hit()
    except KeyboardInterrupt:
        kitchen.observers.emit("workflow.interrupted", workflow="mine", run_id="r", step=7)
        hit()
        print("was not left")

def hears_nothing(kitchen, config: WorkflowConfig):
    begin(kitchen)
    while True:
        try:
            hit(signal.SIGTERM)
        except KeyboardInterrupt:
            pass

def hung_up(kitchen, config: WorkflowConfig):
    begin(kitchen)
    try:
        hit(signal.SIGHUP)
    except KeyboardInterrupt:
        hit(signal.SIGHUP)
        print("saved all the same")
        raise

@dataclasses.dataclass
class Result:
    weights: str = "here"

def done(kitchen, config: WorkflowConfig):
    begin(kitchen)
    stop(kitchen)
    hit(signal.SIGTERM)
    return Result()

def calls_exit(kitchen, config: WorkflowConfig):
    raise SystemExit(0)

def done_at_exit(kitchen, config: WorkflowConfig):
    begin(kitchen)
    stop(kitchen)
    atexit.register(hit, signal.SIGTERM)
    return Result()

def one_of_two(kitchen, config: WorkflowConfig):
    begin(kitchen)
    stop(kitchen)
    begin(kitchen)
    hit()
    print("went on")

def threads(kitchen, config: WorkflowConfig):
    never = threading.Event()
    threading.Thread(target=never.wait, name="stuck").start()
    concurrent.futures.ThreadPoolExecutor(1).submit(never.wait)
    return Result()

def forks(kitchen, config: WorkflowConfig):
    ready, tell = os.pipe()
    if not (child := os.fork()):
        os.write(tell, b"1")
        while True:
            signal.pause()
    os.read(ready, 1)
    os.kill(child, signal.SIGTERM)
    _, status = os.waitpid(child, 0)
    print("ended by", -os.waitstatus_to_exitcode(status))
"""


@pytest.fixture
def mine(plain_crucible: Crucible, tmp_path: Path) -> Callable[[str], Outcome]:
    """Run one of the workflows above; there is never a traceback."""
    (tmp_path / "mine.py").write_text(WORKFLOWS)

    def run(function: str) -> Outcome:
        outcome = plain_crucible("run", f"workflow.use=mine.py:{function}")
        assert "Traceback" not in outcome.out + outcome.err
        return outcome

    return run


Mine = Callable[[str], Outcome]


@pytest.mark.parametrize(("function", "code"), [("goes_on", 130), ("fails", 130), ("leaves", 143)])
def test_a_signal_that_a_library_swallows_ends_the_run_all_the_same(
    mine: Mine, function: str, code: int
) -> None:
    outcome = mine(function)
    assert outcome.code == code
    assert "went on" not in outcome.out
    assert "interrupted; there is no checkpoint yet, so begin again with\n" in outcome.err
    assert "a library failed" not in outcome.err


def test_the_first_signal_lets_a_run_save(mine: Mine) -> None:
    outcome = mine("saves")
    assert outcome.code == 130
    assert "interrupted; saving a checkpoint of step 7 (Ctrl-C again leaves" in outcome.out
    assert outcome.err.startswith("interrupted; continue after step 7 with\n")


def test_the_second_signal_leaves_without_saving(mine: Mine) -> None:
    outcome = mine("saves_for_ever")
    assert outcome.code == 130
    assert "was not left" not in outcome.out
    assert outcome.err.startswith("interrupted; there is no checkpoint yet, so begin again with\n")


def test_the_third_signal_ends_the_process_whatever_it_does(mine: Mine) -> None:
    outcome = mine("hears_nothing")
    assert (outcome.code, outcome.err) == (143, "interrupted for the third time; ended at once\n")


def test_a_terminal_that_hangs_up_twice_leaves_time_to_save(mine: Mine) -> None:
    outcome = mine("hung_up")
    assert outcome.code == 129
    assert "saved all the same" in outcome.out


@pytest.mark.parametrize("function", ["done", "done_at_exit"])
def test_a_run_that_is_done_stays_done(mine: Mine, function: str) -> None:
    outcome = mine(function)
    assert (outcome.code, outcome.err) == (0, "")
    assert "weights     here" in outcome.out


def test_a_workflow_that_calls_sys_exit_has_failed(mine: Mine) -> None:
    outcome = mine("calls_exit")
    assert (outcome.code, outcome.err) == (1, "error: the workflow called sys.exit(0)\n")


def test_that_one_run_is_done_saves_no_other_from_a_signal(mine: Mine) -> None:
    outcome = mine("one_of_two")
    assert outcome.code == 130
    assert "went on" not in outcome.out


def test_threads_that_never_end_do_not_keep_the_command(mine: Mine) -> None:
    outcome = mine("threads")
    assert outcome.code == 0
    assert "weights     here" in outcome.out
    assert outcome.err.startswith("not waiting any longer for the threads stuck, ")


def test_a_forked_process_ends_by_a_signal_as_any_other(mine: Mine) -> None:
    assert "ended by 15\n" in mine("forks").out


CLOSING = """
import os, signal
import kitchen_noop.blob_store as noop
from crucible_kitchen import hookimpl
read, stream, write, exists, delete, list = (
    noop.read, noop.stream, noop.write, noop.exists, noop.delete, noop.list
)
@hookimpl
def close(opts):
    os.kill(os.getpid(), signal.SIGTERM)
"""


@pytest.mark.parametrize(("function", "code"), [("binds", 0), ("fails_then", 1)])
def test_a_signal_while_adapters_are_closed_changes_no_outcome(
    plain_crucible: Crucible, tmp_path: Path, function: str, code: int
) -> None:
    add_package(tmp_path, "closing", CLOSING, "blob_store.closing")
    (tmp_path / "mine.py").write_text(
        "from crucible_kitchen import AdapterError, WorkflowConfig\n"
        "def binds(kitchen, config: WorkflowConfig):\n    kitchen.blob_store\n"
        "def fails_then(kitchen, config: WorkflowConfig):\n"
        "    kitchen.blob_store\n    raise AdapterError('it failed')\n"
    )
    arguments = ["adapters.blob_store=closing", f"workflow.use=mine.py:{function}"]
    outcome = plain_crucible("run", *arguments, PYTHONPATH=str(tmp_path))
    assert outcome.code == code, outcome
    assert outcome.err.startswith("interrupted while closing what the run used\n")
    assert ("error: it failed\n" in outcome.err) == bool(code)


# As extension modules do: what comes while they are imported is an error of theirs.
IMPORTING = """
import os, signal
try:
    os.kill(os.getpid(), signal.{name})
except KeyboardInterrupt:
    raise ImportError("half of it is missing")
"""


@every_signal
@pytest.mark.parametrize("module", ["typer", "mine"])
def test_a_signal_during_imports_leaves_a_line(
    tmp_path: Path, module: str, number: signal.Signals
) -> None:
    (tmp_path / f"{module}.py").write_text(IMPORTING.format(name=number.name))
    outcome = started(tmp_path, "run", "workflow.use=mine:it", PYTHONPATH=str(tmp_path))
    assert (outcome.code, outcome.out) == (CODES[number], "")
    assert re.fullmatch("interrupted.*\n", outcome.err)


def test_little_is_imported_before_signals_are_listened_to() -> None:
    program = "import sys; before = {*sys.modules}; from crucible_kitchen.cli import main; " + (
        "print(*{name.partition('.')[0] for name in {*sys.modules} - before} "
        "- sys.stdlib_module_names)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout.split() == ["crucible_kitchen"]


@every_signal
def test_a_command_that_was_started_deaf_to_a_signal_stays_so(
    tmp_path: Path, number: signal.Signals
) -> None:
    (tmp_path / "mine.py").write_text(
        "import os, signal\nfrom crucible_kitchen import WorkflowConfig\n"
        "def it(kitchen, config: WorkflowConfig):\n"
        f"    os.kill(os.getpid(), {int(number)})\n    print('went on')\n"
    )
    before = signal.signal(number, signal.SIG_IGN)
    try:
        outcome = started(tmp_path, "run", "workflow.use=mine.py:it")
    finally:
        signal.signal(number, before)
    assert (outcome.code, outcome.out) == (0, "went on\n")
