"""The `crucible` command."""

from __future__ import annotations

import io
import os
import sys
import warnings
from typing import Any

import typer

from ..discovery import catalog
from ..errors import ConfigurationError, CrucibleError, CrucibleWarning
from ..version import __version__
from . import adapters, check, config, doctor, init, new, run, trace
from .console import fail, note

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
app.command("trace")(trace.trace)
app.add_typer(new.app, name="new")


def _version(wanted: bool) -> None:
    if wanted:
        print(f"crucible-kitchen {__version__}")
        raise typer.Exit


@app.callback()
def crucible(
    version: bool = typer.Option(
        False, "--version", callback=_version, is_eager=True, help="Print the version and exit."
    ),
) -> None:
    pass


def _make_streams_usable() -> None:
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # closed by whoever started us, as `>&-` does
            setattr(sys, name, os.fdopen(os.open(os.devnull, os.O_WRONLY), "w"))
    # A character that the terminal's encoding lacks is no reason to fail.
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


def _print_warnings() -> None:
    """Print our own warnings as a line: where in the code they arose helps no user."""
    otherwise = warnings.showwarning

    def show(message: Any, category: type[Warning], *where: Any, **more: Any) -> None:
        if issubclass(category, CrucibleWarning):
            note(f"warning: {message}")
        else:
            otherwise(message, category, *where, **more)

    warnings.showwarning = show


def main() -> None:
    """Run the command. A mistake of the user is a message and exit code 2, never a traceback.

    Exit codes: 0 done, 1 an adapter failed, 2 a mistake in the configuration, 130 interrupted.
    """
    _make_streams_usable()
    _print_warnings()
    stdout = sys.stdout  # typer puts another in its place when a pipe breaks
    try:
        try:
            app()
        finally:
            stdout.flush()  # here, where it may fail, and not when Python exits
    except CrucibleError as error:
        fail(str(error))
        for more in getattr(error, "__notes__", ()):
            note(more)
        # A library that reads entry points fails where a neighbour's are malformed.
        if found := catalog().problems:
            note(f"{len(found)} package(s) have malformed metadata; `crucible doctor` says which")
        sys.exit(2 if isinstance(error, ConfigurationError) else 1)
    except BrokenPipeError:
        # The reader of our pipe has left, as `| head` does. Python would complain at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), stdout.fileno())
        sys.exit(1)
