"""Names, docstrings, rows and error messages of others, on a terminal and in a pipe."""

from __future__ import annotations

import ast
import json
import os
import pty
import subprocess
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path

import crucible_kitchen.cli.console as output
import pytest
from commands import COMMAND, Crucible, Outcome, add_package, clean_environ
from crucible_kitchen.messages.printable import printable, printable_json, text_of
from hypothesis import given
from hypothesis import strategies as st

# What a terminal acts on: it clears the screen, takes a title, makes a link, takes the same in one
# character, turns the direction of reading around.
HOSTILE = "\x1b[2J\x1b]0;title\x07\x1b]8;;http://evil.example\x1b\\link\x9b31m\x7f\r\u202eabc\u2066"
SHOWN = r"\x1b[2J\x1b]0;title\x07\x1b]8;;http://evil.example\x1b\link\x9b31m\x7f\r\u202eabc\u2066"
# Of a docstring line breaks are undone, that one as well.
DOC, DOC_SHOWN = HOSTILE.replace("\r", ""), SHOWN.replace(r"\r", "")
MARKUP = "[red]danger[/red] [link=http://evil.example]x[/link] :skull:"
COMMANDS = [*map(chr, range(32)), *map(chr, range(0x7F, 0xA0)), *"\u2028\u202a\u202e\u2066\u2069"]
HIDDEN = "\u061c\u200b\u200e\u200f\u2060\u2064\ufeff"


def raw(text: str) -> set[str]:
    """Return the characters of a text that a terminal takes for commands."""
    return {character for character in text if character in COMMANDS} - {"\n", "\t"}


@given(st.text(st.one_of(st.sampled_from(COMMANDS), st.characters())))
def test_nothing_that_is_printable_is_a_command(text: str) -> None:
    shown = printable(text)
    assert not raw(shown)
    shown.encode()  # no lone surrogate, either
    assert printable(shown) == shown


@given(st.text(st.characters(categories=["L", "N", "P", "S", "Zs"])))
def test_letters_and_signs_of_any_language_stay(text: str) -> None:
    assert printable(text) == text


def test_what_has_no_width_is_shown_by_its_code_unless_a_script_needs_it() -> None:
    codes = r"\u061c\u200b\u200e\u200f\u2060\u2064\ufeff"
    assert printable(HIDDEN) == printable_json(HIDDEN) == codes
    for text in ("\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645", "\U0001f469\u200d\U0001f52c"):
        assert printable(text) == text


@given(st.dictionaries(st.text(max_size=9), st.lists(st.text(max_size=9), max_size=3), max_size=3))
def test_json_means_the_same_in_print(value: object) -> None:
    shown = printable_json(json.dumps(value, ensure_ascii=False))
    assert not raw(shown)
    assert json.loads(shown) == value


@pytest.mark.parametrize("error", [RuntimeError, SystemExit, RecursionError])
def test_what_fails_to_give_its_text_is_told_by_its_type(error: type[BaseException]) -> None:
    class Broken:
        def __str__(self) -> str:
            raise error

    assert text_of(Broken()) == "<Broken>"


def test_all_of_the_command_prints_by_way_of_its_console() -> None:
    folder = Path(output.__file__).parent
    # These write to standard error before the console can be imported, and as the very last.
    others = {"console.py", "__init__.py", "streams.py"}
    for path in sorted(folder.glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if path.name not in others:
                assert not (isinstance(node, ast.Name) and node.id == "print"), path
            if path.name != "console.py":
                assert not (isinstance(node, ast.ImportFrom) and node.module == "rich.text"), path


# --- commands ---

PLUGIN = f'''
"""Doc {ascii(DOC)[1:-1]} {MARKUP}."""
import sys
from typing import Any
import kitchen_noop.blob_store as noop
from crucible_kitchen import AdapterOptions, Unavailable, hookimpl

class Broken:
    def __repr__(self):
        raise RuntimeError("no")

class Options(AdapterOptions):
    broken: Any = Broken()
    text: str = {HOSTILE!a}
    """Meaning {ascii(DOC)[1:-1]} {MARKUP}."""

class Adapter:
    """Doc {ascii(DOC)[1:-1]} {MARKUP}."""
    Options = Options
    stream, write, exists, delete, list = (
        noop.stream, noop.write, noop.exists, noop.delete, noop.list
    )
    @hookimpl
    def read(self, opts, path):
        raise Unavailable("the server said " + {HOSTILE + MARKUP!a})

adapter = Adapter()

class Undocumented(Adapter):
    __doc__ = 5

undocumented = Undocumented()

class Unlisted(Adapter):
    @property
    def leaves(self):
        sys.exit(0)
    def __dir__(self):
        raise RuntimeError("no")

unlisted = Unlisted()
'''

WORKFLOW = f"""
import warnings
from crucible_kitchen import CrucibleWarning, WorkflowConfig
def reads(kitchen, config: WorkflowConfig):
    kitchen.blob_store.read("x")
def warns(kitchen, config: WorkflowConfig):
    warnings.warn({HOSTILE!a}, CrucibleWarning)
    warnings.warn({HOSTILE!a}, UserWarning)
def breaks(kitchen, config: WorkflowConfig):
    raise ValueError({HOSTILE!a})
def named(kitchen, config: WorkflowConfig):
    kitchen.observers.emit("workflow.start", workflow="w", run_id={HOSTILE!a})
    kitchen.observers.emit("training.eval", step=1, metrics={{{HOSTILE!a}: 1.0}})
    def broken(event):
        raise RuntimeError({HOSTILE!a})
    kitchen.observe(broken)
    kitchen.observers.emit("mine", error={HOSTILE!a})
def rows(kitchen, config: WorkflowConfig): ...
def preview(kitchen, config, count):
    yield "user\\n⟦" + {HOSTILE + MARKUP!a} + "⟧"
"""


@pytest.fixture
def hostile(plain_crucible: Crucible, tmp_path: Path) -> Crucible:
    """The command, where a package and a workflow wish its user ill."""
    add_package(tmp_path, "bad", PLUGIN, "blob_store.imports")
    points = tmp_path / "bad-1.0.dist-info/entry_points.txt"
    points.write_text(
        "[crucible.adapters]\n"
        f"blob_store.{printable('x')}\x1b[2Jx = bad\nblob_store.bad = bad:adapter\n"
        "blob_store.undocumented = bad:undocumented\nblob_store.unlisted = bad:unlisted\n"
        "blob_store.broken = broken\n"
    )
    (tmp_path / "broken.py").write_text(f"raise RuntimeError({HOSTILE!a})")
    (tmp_path / "mine.py").write_text(WORKFLOW)

    def run(*arguments: str, **environ: str) -> Outcome:
        outcome = plain_crucible(*arguments, PYTHONPATH=str(tmp_path), **environ)
        assert not raw(outcome.out + outcome.err), outcome
        return outcome

    return run


BAD = "adapters.blob_store=bad"

SAYS: dict[str, tuple[list[str], int, str]] = {
    "a list": (["adapters"], 0, r"x\x1b[2Jx"),
    "a docstring": (["adapters", "show", "blob_store.bad"], 0, f"Doc {DOC_SHOWN} {MARKUP}."),
    "options": (["adapters", "show", "blob_store.bad"], 0, f"Meaning {DOC_SHOWN} {MARKUP}."),
    "what is not a docstring": (["adapters", "show", "blob_store.undocumented"], 0, "<Broken>"),
    "what cannot be listed": (["adapters", "show", "blob_store.unlisted"], 0, "<Broken>"),
    "a tree": (["adapters", "show", "blob_store", BAD], 0, "\\u001b[2J"),
    "an import": (["config", "adapters.blob_store=broken"], 2, f"RuntimeError: {SHOWN}"),
    "doctor": (["doctor", "adapters.blob_store=broken"], 1, f"RuntimeError: {SHOWN}"),
    "a server": (["run", BAD, "workflow.use=mine.py:reads"], 1, f"said {SHOWN}{MARKUP}"),
    "a warning": (["run", "workflow.use=mine.py:warns"], 0, f"warning: {SHOWN}\n"),
    "another's warning": (["run", "workflow.use=mine.py:warns"], 0, f"UserWarning: {SHOWN}\n"),
    "a traceback": (["run", "workflow.use=mine.py:breaks"], 1, f"ValueError: {SHOWN}\n"),
    "an id": (["run", "workflow.use=mine.py:named"], 1, f"w run {SHOWN} begins"),
    "a metric": (["run", "workflow.use=mine.py:named"], 1, f"step 1: {SHOWN} 1\n"),
    "an observer": (["run", "workflow.use=mine.py:named"], 1, f"(RuntimeError: {SHOWN})"),
    "rows": (["run", "--show-rows=1", "workflow.use=mine.py:rows"], 0, f"user\n⟦{SHOWN}{MARKUP}⟧"),
    "a command": ([HOSTILE], 2, f"no such command '{SHOWN[:35]}"),
    "an option": (["run", f"--{HOSTILE}"], 2, f"no such option: --{SHOWN[:4]}"),
    "a port": (["check", f"{HOSTILE}.x"], 2, SHOWN[:4]),
}


@pytest.mark.parametrize("what", SAYS)
def test_text_of_others_is_printed_as_text(hostile: Crucible, what: str) -> None:
    arguments, code, said = SAYS[what]
    outcome = hostile(*arguments)
    assert said in outcome.out + outcome.err
    assert outcome.code == code


def test_the_console_says_an_event_in_one_line(hostile: Crucible) -> None:
    said = hostile("run", "workflow.use=mine.py:named", "observe.console=true").err
    assert f"mine{' ' * 44}" in said
    assert f"  {SHOWN}\n" in said


def test_a_trace_that_wishes_ill_is_shown(hostile: Crucible, tmp_path: Path) -> None:
    about = {"port": HOSTILE, "adapter": MARKUP, "callback": "a\nb", "duration_s": 1.0}
    names = {"run_id": HOSTILE, "workflow": "w", "error": HOSTILE, "duration_s": 2.0}
    lines: list[dict[str, object]] = [
        {"event": "workflow.start", "span": None, "parent": 1, "attributes": names},
        {"event": "adapter.call", "span": 2, "parent": 1, "attributes": about},
        {"event": "workflow.run", "span": 1, "parent": None, "attributes": names},
    ]
    text = "\n".join(json.dumps({"trace": "t", "time": 9.0, **line}) for line in lines)
    (tmp_path / "trace").write_text(text)
    outcome = hostile("trace", "trace")
    assert outcome.code == 0
    assert SHOWN in outcome.out
    assert MARKUP in outcome.out


def test_what_config_prints_is_toml_whatever_is_in_it(
    plain_crucible: Crucible, tmp_path: Path
) -> None:
    text = HOSTILE + "\n" + MARKUP
    outcome = plain_crucible(
        "config",
        "adapters.completer=noop",
        CRUCIBLE_ADAPTERS__COMPLETER__COMPLETION_TEXT=json.dumps(text),
    )
    assert not raw(outcome.out)
    [options] = tomllib.loads(outcome.out)["adapters"].values()
    assert options["completion_text"] in (text, json.dumps(text))


@pytest.fixture
def on_a_terminal(tmp_path: Path) -> Iterator[Callable[..., str]]:
    mine, its = pty.openpty()

    def run(*arguments: str) -> str:
        process = subprocess.Popen(
            [*COMMAND, *arguments],
            cwd=tmp_path,
            env=clean_environ(PYTHONPATH=str(tmp_path), TERM="xterm"),
            stdout=its,
            stderr=its,
        )
        os.close(its)
        said = b""
        while True:
            try:
                piece = os.read(mine, 65536)
            except OSError:  # the other end of the terminal is closed
                break
            if not piece:
                break
            said += piece
        process.wait()
        return said.decode()

    yield run
    os.close(mine)


def test_a_terminal_gets_styles_of_ours_alone(
    hostile: Crucible, on_a_terminal: Callable[..., str]
) -> None:
    said = on_a_terminal("adapters", "show", "blob_store.bad")
    assert "\x1b[1m" in said  # the headings
    assert r"\x1b[2J" in said
    for command in ("\x1b[2J", "\x1b]", "\x07", "\x9b", "\u202e"):
        assert command not in said
