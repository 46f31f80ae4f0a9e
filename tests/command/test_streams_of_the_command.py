"""The command where its output goes nowhere, or to an encoding that lacks a character."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from commands import COMMAND, Outcome, clean_environ, started


@pytest.mark.skipif(os.name != "posix", reason="needs a POSIX shell")
@pytest.mark.parametrize(
    ("arguments", "code"), [("adapters >&-", 0), ("config --profile nowhere 2>&-", 2)]
)
def test_a_closed_stream_changes_no_exit_code(tmp_path: Path, arguments: str, code: int) -> None:
    script = f'"$@" {arguments}'
    done = subprocess.run(
        ["sh", "-c", script, "sh", *COMMAND], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == code
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("arguments", [["adapters"], ["--help"], ["adapters", "show", "noop"]])
def test_a_reader_that_has_left_causes_no_complaint(
    tmp_path: Path, arguments: list[str], unbuffered: str
) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [*COMMAND, *arguments],
        cwd=tmp_path,
        env=clean_environ(PYTHONUNBUFFERED=unbuffered),
        stdout=writer,
        stderr=subprocess.PIPE,
        text=True,
    )
    os.close(writer)
    assert (done.returncode, done.stderr) == (1, "")


def test_a_character_that_the_encoding_lacks_is_written_as_its_code(tmp_path: Path) -> None:
    outcome = started(
        tmp_path,
        "config",
        "adapters.completer=noop",
        CRUCIBLE_ADAPTERS__COMPLETER__COMPLETION_TEXT="größe ✓",
        PYTHONIOENCODING="ascii",
    )
    assert outcome.code == 0, outcome
    assert r'"gr\xf6\xdfe \u2713"' in outcome.out


def test_it_runs_with_assertions_and_docstrings_left_out(tmp_path: Path) -> None:
    outcome = started(tmp_path, "adapters", "show", "blob_store.noop", PYTHONOPTIMIZE="2")
    assert (outcome.code, outcome.err) == (0, "")
    assert "read_range" in outcome.out


RUNS = """
import pathlib, select, sys, warnings
from crucible_kitchen import CrucibleWarning, WorkflowConfig

def emit(kitchen, left=lambda: None):
    kitchen.observers.emit("workflow.start", workflow="mine", run_id="r")
    left()
    for step in range(1, 10):
        kitchen.observers.emit("training.step", step=step, total=9, metrics={})
    pathlib.Path("trained").touch()

def emits(kitchen, config: WorkflowConfig):
    emit(kitchen)

def is_left(kitchen, config: WorkflowConfig):
    reader = select.poll()
    reader.register(1, 0)  # for nothing but that the other end is closed
    emit(kitchen, reader.poll)

def warns(kitchen, config: WorkflowConfig):
    warnings.warn("look out", CrucibleWarning)
    emits(kitchen, config)

def prints(kitchen, config: WorkflowConfig):
    with open("file", "w") as file:
        print("printed")
        sys.stdout.flush()
        file.write("written")

def observed(kitchen, config: WorkflowConfig):
    def mine(event):
        raise RuntimeError("it broke")
    kitchen.observe(mine)
    emits(kitchen, config)
    print("the end")
"""

Shell = Callable[[str], Outcome]


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    """Run a script of the shell in which `$@` is the command, in a folder with workflows."""
    (tmp_path / "mine.py").write_text(RUNS)

    def run(script: str) -> Outcome:
        done = subprocess.run(
            ["sh", "-c", script, "sh", *COMMAND],
            cwd=tmp_path,
            env=clean_environ(),
            capture_output=True,
            text=True,
        )
        assert "Traceback" not in done.stderr
        return Outcome(done.returncode, done.stdout, done.stderr)

    return run


def lost(what: str, why: str) -> str:
    return f"error: the run r is done, but what it printed is lost: {what} ({why})\n"


OUTPUT = "standard output"


@pytest.mark.parametrize(
    ("streams", "said"),
    [
        (">/dev/full", lost(OUTPUT, "No space left on device")),
        (">&-", lost(OUTPUT, "Bad file descriptor")),
        (">&- 2>&-", ""),
        (">/dev/full 2>/dev/full", ""),
    ],
)
def test_a_run_that_cannot_print_is_done_and_tells_by_its_exit_code(
    shell: Shell, tmp_path: Path, streams: str, said: str
) -> None:
    outcome = shell(f'"$@" run workflow.use=mine.py:emits {streams}')
    assert outcome == Outcome(1, "", said)
    assert (tmp_path / "trained").exists()


def test_a_run_into_head_trains_to_its_end(shell: Shell, tmp_path: Path) -> None:
    outcome = shell('{ "$@" run workflow.use=mine.py:is_left; echo "code $?" >&2; } | head -1')
    assert outcome.out == "mine run r begins\n"
    assert outcome.err == lost(OUTPUT, "Broken pipe") + "code 1\n"
    assert (tmp_path / "trained").exists()


def test_a_warning_that_cannot_be_printed_stops_nothing(shell: Shell, tmp_path: Path) -> None:
    assert shell('"$@" run workflow.use=mine.py:warns 2>/dev/full').code == 1
    assert (tmp_path / "trained").exists()


def test_what_need_not_be_said_is_not_lost(shell: Shell) -> None:
    assert shell('"$@" run workflow.use=mine.py:emits 2>&-').code == 0


def test_a_terminal_that_hangs_up_does_not_stop_a_run_that_ignores_that(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(RUNS)
    mine, its = pty.openpty()
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup does
    try:
        process = subprocess.Popen(
            [*COMMAND, "run", "workflow.use=mine.py:emits"],
            cwd=tmp_path,
            env=clean_environ(),
            stdout=its,
            stderr=subprocess.PIPE,
            text=True,
        )
    finally:
        signal.signal(signal.SIGHUP, before)
    os.close(its)
    os.close(mine)
    _, said = process.communicate(timeout=60)
    assert (process.returncode, said) == (1, lost(OUTPUT, "Input/output error"))
    assert (tmp_path / "trained").exists()


def test_what_is_printed_gets_into_no_file_where_streams_are_closed(
    shell: Shell, tmp_path: Path
) -> None:
    shell('"$@" run workflow.use=mine.py:prints <&- >&- 2>&-')
    assert (tmp_path / "file").read_text() == "written"


def test_a_full_disk_is_told_by_other_commands_too(shell: Shell) -> None:
    outcome = shell('"$@" adapters >/dev/full')
    why = "standard output (No space left on device)"
    assert outcome == Outcome(1, "", f"error: what was printed is lost: {why}\n")


def test_a_run_whose_observer_failed_is_done_and_tells_by_its_exit_code(shell: Shell) -> None:
    outcome = shell('"$@" run workflow.use=mine.py:observed')
    assert outcome.code == 1
    assert "the end\n" in outcome.out
    assert "\nerror: the run r is done, but observers failed: " in outcome.err
