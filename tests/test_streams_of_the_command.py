"""The command where its output goes nowhere, or to an encoding that lacks a character."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from conftest import COMMAND, clean_environ, started


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
