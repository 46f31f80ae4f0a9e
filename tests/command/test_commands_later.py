"""Commands are imported when they are used, and shown as if they had been."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
from commands import clean_environ
from crucible_kitchen.adapters.discovery import PORT_NAMES
from crucible_kitchen.cli.adapters import SHOW
from crucible_kitchen.cli.app import COMMANDS
from crucible_kitchen.cli.later import Later
from crucible_kitchen.ports import PORTS

HEAVY = ("numpy", "pydantic_settings", "rich", "crucible_kitchen.kitchen", "crucible_kitchen.ports")


@pytest.mark.parametrize(
    ("name", "place", "summary"), [(n, *about) for n, about in {**COMMANDS, **SHOW}.items()]
)
def test_the_list_says_what_a_command_says_itself(name: str, place: str, summary: str) -> None:
    later: Any = Later(name, place, summary)
    loaded = later.load()
    assert loaded.name == name
    assert " ".join(loaded.help.split("\n\n")[0].split()) == summary
    assert later.get_short_help_str(60) == loaded.get_short_help_str(60)


@pytest.mark.parametrize("arguments", [["--help"], ["adapters"], ["adapters", "list", "--json"]])
def test_a_command_imports_little_that_it_does_not_need(arguments: list[str]) -> None:
    program = (
        "import sys, atexit\n"
        f"atexit.register(lambda: print(*[m for m in {HEAVY} if m in sys.modules], "
        "file=sys.stderr))\n"
        f"sys.argv = {['crucible', *arguments]!r}\n"
        "from crucible_kitchen.cli import main; main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, env=clean_environ()
    )
    assert (done.returncode, done.stderr.split()) == (0, []), done


@pytest.mark.parametrize(
    ("variable", "imported"), [("CRUCIBLE_CACHE", False), ("CRUCIBLE_X", True)]
)
def test_variables_are_read_by_a_library_where_there_are_any(variable: str, imported: bool) -> None:
    program = (
        "import sys; from crucible_kitchen.settings.assignments import of_environment\n"
        f"of_environment({{'PATH': '/bin', {variable!r}: 'a'}}, [])\n"
        "print('pydantic_settings' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout.strip() == str(imported), done.stderr


def test_a_misspelt_command_names_the_nearest_one() -> None:
    program = (
        "import sys; sys.argv = ['crucible', 'adaptrs']\n"
        "from crucible_kitchen.cli import main; main()"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 2
    assert "error: no such command 'adaptrs'" in done.stderr
    assert "'adapters'" in done.stderr


def test_discovery_knows_the_names_of_the_ports() -> None:
    assert tuple(PORTS) == PORT_NAMES
