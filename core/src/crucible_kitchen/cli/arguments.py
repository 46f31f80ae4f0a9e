"""What a command is given: a FILE, settings KEY=VALUE, and a profile."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import typer

from ..adapters import policy
from ..errors import ConfigurationError
from ..kitchen import Kitchen
from ..messages.spelling import nearest
from ..settings import TABLES, Settings, load
from .console import conceal

ARGUMENTS = typer.Argument(
    metavar="[FILE] [KEY=VALUE]...",
    help="A crucible.toml, then settings that override it, such as workflow.epochs=3 "
    "or adapters.training_client=noop.",
    show_default=False,
)
PROFILE = typer.Option("--profile", "-p", help="Lay [profile.NAME] over the file.")


def read(
    arguments: list[str], profile: str | None, load: Callable[..., Settings] = load
) -> Settings:
    """Read every layer of settings; the first argument that is not a setting is the file.

    From now on what they say about plugins holds in this process.

    Args:
        arguments: of the command.
        profile: the profile's name.
        load: `settings.load`, or `gather`, which leaves mistakes to the caller.
    """
    file = None
    if arguments and "=" not in arguments[0]:
        file, *arguments = arguments
        if file.partition(".")[0] in TABLES and not Path(file).exists():
            raise ConfigurationError(
                f"{file!r} is a setting; write {file}=<value>, without a space"
            )
    for argument in arguments:
        if "=" not in argument and Path(argument).suffix == ".toml":
            raise ConfigurationError(f"{argument!r}: one file, named before any setting")
    settings = load(file, profile=profile, arguments=arguments)
    restrict(settings)
    return settings


def restrict(settings: Settings) -> None:
    """Let what settings say about plugins hold in this process from now on."""
    found = policy.Policy.of(settings.values.get("plugins", {}), settings.source_of)
    policy.decide(lambda: found)


def opened(settings: Settings) -> Kitchen:
    """Make the kitchen of a command; from now on no message shows a secret that it knows."""
    kitchen = Kitchen(settings=settings)
    conceal(kitchen.redacted)
    return kitchen


def workflow_of(settings: Settings) -> tuple[str, dict[str, Any]]:
    """Return the name of the chosen workflow and its table.

    Raises:
        ConfigurationError: no workflow is chosen.
    """
    table = dict(settings.values.get("workflow", {}))
    name = table.pop("use", None)
    if not isinstance(name, str) or not name:
        where = settings.files[0] if settings.files else "crucible.toml"
        near = nearest("use", table)
        hint = f"did you mean workflow.use, not workflow.{near}? Or " if near else ""
        raise ConfigurationError(
            f"no workflow is chosen; {hint}add to {where}\n\n    [workflow]\n"
            '    use = "supervised"\n\nor run `crucible init` to get a file to start from'
        )
    return name, table
