"""The commands, and what becomes of an error that one ends with."""

from __future__ import annotations

import io
import traceback
import warnings
from collections.abc import Sequence
from typing import Any

import typer

from ..discovery import catalog
from ..errors import ConfigurationError, CrucibleError, CrucibleWarning, told
from ..version import __version__
from . import adapters, check, clean, config, doctor, init, new, run, trace
from .console import fail, note, say

app = typer.Typer(
    name="crucible",
    help="Write the post-training loop once; pick the backend by name.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("run")(run.run)
app.add_typer(adapters.app, name="adapters")
app.command("config")(config.config)
app.command("doctor")(doctor.doctor)
app.command("init")(init.init)
app.command("check")(check.check)
app.command("clean")(clean.clean)
app.command("trace")(trace.trace)
app.add_typer(new.app, name="new")


def _version(wanted: bool) -> None:
    if wanted:
        say(f"crucible-kitchen {__version__}")
        raise typer.Exit


@app.callback()
def crucible(
    version: bool = typer.Option(
        False, "--version", callback=_version, is_eager=True, help="Print the version and exit."
    ),
) -> None:
    pass


def invoke(arguments: Sequence[str]) -> int:
    """Run a command; return its exit code.

    Raises:
        BaseException: whatever ended it, usage errors included; `explain` prints it.
    """
    _print_warnings()
    command = typer.main.get_command(app)
    try:
        # Not `app()`, which prints usage errors as they are, ends the process, and has ideas of its
        # own about Ctrl-C and broken pipes.
        with command.make_context("crucible", list(arguments)) as context:
            command.invoke(context)
    except typer.Exit as end:
        return end.exit_code
    return 0


def explain(error: BaseException) -> int:
    """Print an error; return the exit code: 2 for a mistake of the user, else 1.

    A traceback is printed of what nobody raises on purpose: a bug, or a workflow's own exception.
    """
    match error:
        case CrucibleError():
            fail(told(error).removeprefix(f"{type(error).__name__}: "))
            for more in getattr(error, "__notes__", ()):
                note(more)
            # A library that reads entry points fails where a neighbour's are malformed.
            if found := catalog().problems:
                note(
                    f"{len(found)} package(s) have malformed metadata; `crucible doctor` says which"
                )
            return 2 if isinstance(error, ConfigurationError) else 1
        case typer.Abort():
            note("aborted")
            return 1
        case SystemExit():
            # Nothing here leaves that way, and what did, in a package, may have called it success.
            fail(f"sys.exit({error.code!r}) was called {_where(error)}")
            return 1
    usage = getattr(error, "show", None)  # typer names the class ClickException in some versions
    if isinstance(error, Exception) and callable(usage):
        text = io.StringIO()
        usage(file=text)
        note(text.getvalue().rstrip("\n"))
        return int(getattr(error, "exit_code", 2))
    note("".join(traceback.format_exception(error)).rstrip("\n"))
    return 1


def _where(error: BaseException) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    return f"in {frames[-1].filename}, line {frames[-1].lineno}" if frames else "somewhere"


def _print_warnings() -> None:
    """Print our own warnings as a line: where in the code they arose helps no user."""

    def show(message: Any, category: type[Warning], filename: str, lineno: int, *more: Any) -> None:
        text = told(message).partition(": ")[2] if isinstance(message, Warning) else str(message)
        if issubclass(category, CrucibleWarning):
            note(f"warning: {text}")
        else:
            note(warnings.formatwarning(text, category, filename, lineno).rstrip("\n"))

    warnings.showwarning = show
