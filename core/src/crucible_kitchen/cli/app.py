"""The commands."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import TextIO

import typer

from ..errors import CrucibleWarning, described
from ..version import __version__
from . import adapters, check, clean, config, doctor, init, new, run, trace
from .console import conceal, note, say

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
        BaseException: whatever ended it, usage errors included.
    """
    conceal()
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


def _print_warnings() -> None:
    """Print our own warnings as a line: where in the code they arose helps no user."""

    def show(
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: TextIO | None = None,
        line: str | None = None,
    ) -> None:
        text = (
            described(message).partition(": ")[2] if isinstance(message, Warning) else str(message)
        )
        if issubclass(category, CrucibleWarning):
            note(f"warning: {text}")
        else:
            note(warnings.formatwarning(text, category, filename, lineno).rstrip("\n"))

    warnings.showwarning = show
