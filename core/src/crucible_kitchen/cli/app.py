"""The commands."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Sequence
from typing import TextIO

import typer

from ..adapters import policy
from ..errors import CrucibleWarning, described
from .console import conceal, note, say
from .later import group_of

COMMANDS = {
    "run": ("run:run", "Run the workflow of a crucible.toml."),
    "export": (
        "export:export_",
        "Write a run's weights to a folder that Transformers loads, or PEFT.",
    ),
    "sample": (
        "sample:sample",
        "Ask the weights of a run, or any model that the configured completer has.",
    ),
    "lock": ("lock:lock", "Write down what the kitchen is made of: a pylock.toml."),
    "sync": ("sync:sync", "Install what a lock says, into the environment of this command."),
    "install": ("install:install", "Install plugins, with pip or uv."),
    "uninstall": ("install:uninstall", "Uninstall plugins."),
    "upgrade": ("install:upgrade", "Upgrade plugins to their newest releases."),
    "config": ("config:config", "Show every setting that applies, and its source."),
    "doctor": ("doctor:doctor", "Check what is installed, and try what is configured."),
    "init": ("init:init", "Write a commented crucible.toml to start from."),
    "check": (
        "check:check",
        "Run the conformance suite on an adapter or an environment; print its report.",
    ),
    "clean": ("clean:clean", "Remove what killed processes left behind."),
    "parity": ("parity:parity", "Compare the numbers of several backends, step by step."),
    "trace": ("trace:trace", "Show where the time of a run went."),
    "runs": ("runs:app", "List runs; show, compare, plot, export or delete them."),
    "adapters": ("adapters:app", "List the installed adapters, or show one."),
    "ports": ("ports:ports", "List the ports, or print the contract of one."),
    "workflows": ("installed:workflows", "List the installed workflows, or show one."),
    "environments": ("installed:environments", "List the installed environments, or show one."),
    "observers": ("installed:observers", "List the installed observers, or show one."),
    "new": ("new:app", "Start a package."),
}
"""For each command where it is, and what the list of commands says of it."""

app = typer.Typer(
    name="crucible",
    help="Write the post-training loop once; pick the backend by name.",
    cls=group_of(COMMANDS),
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        from ..version import __version__

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
    policy.decide(functools.cache(_written_here))
    command = typer.main.get_command(app)
    try:
        # Not `app()`, which prints usage errors as they are, ends the process, and has ideas of its
        # own about Ctrl-C and broken pipes.
        with command.make_context("crucible", list(arguments)) as context:
            command.invoke(context)
    except typer.Exit as end:
        return end.exit_code
    finally:
        policy.decide()
    return 0


def _written_here() -> policy.Policy:
    """Return what the settings say about plugins, for commands that are given no settings."""
    from ..settings import gather

    settings = gather()
    return policy.Policy.of(settings.values.get("plugins", {}), settings.source_of)


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
