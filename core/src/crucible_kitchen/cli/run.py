"""`crucible run`: a workflow, on the adapters that the configuration names."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from ..errors import AdapterError, ConfigurationError, CrucibleError
from ..kitchen import Kitchen
from ..settings import TABLES, Settings, gather, load
from ..spelling import nearest
from ..workflows import find, prepare
from . import streams
from .console import conceal, fail, note
from .failures import explain
from .interruption import signals
from .preview import preview
from .progress import Progress

ARGUMENTS = typer.Argument(
    metavar="[FILE] [KEY=VALUE]...",
    help="A crucible.toml, then settings that override it, such as workflow.epochs=3 "
    "or adapters.training_client=noop.",
    show_default=False,
)
PROFILE = typer.Option("--profile", "-p", help="Lay [profile.NAME] over the file.")


def run(
    arguments: Annotated[list[str] | None, ARGUMENTS] = None,
    profile: Annotated[str | None, PROFILE] = None,
    trace: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help="Append every event to FILE, for `crucible trace`; short for observe.jsonl=FILE.",
        ),
    ] = None,
    show_rows: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            min=1,
            help="Print the first N rows as the model reads them, what is trained on between "
            "⟦ and ⟧, and stop before training.",
        ),
    ] = None,
) -> None:
    """Run the workflow of a crucible.toml.

    Without a FILE, reads crucible.toml in the current folder. Settings are written KEY=VALUE, such
    as workflow.max_steps=10.
    """
    given = [*(arguments or []), *([] if trace is None else [f"observe.jsonl={trace}"])]
    settings = read(given, profile, gather)
    ended: BaseException | None = None
    try:
        with opened(settings) as kitchen, Progress(kitchen) as progress:
            try:
                start = _prepared(kitchen, show_rows)
                kitchen.observe_as_configured()
                # Last, for it may raise where others must be notified.
                kitchen.observe(signals.observe)
                signals.check()
                result = start()
                signals.hold()
                progress.result(result)
                signals.release()
            except BaseException as error:
                progress.stop()
                ended = _ended(error, progress, given, profile)
                if ended is error:
                    raise
                raise ended from None
    except BaseException as error:
        if error is ended or not (ended or signals.done):
            raise
        if not isinstance(error, KeyboardInterrupt):
            raise typer.Exit(explain(error)) from None
        note("interrupted while closing what the run used")
        if ended is not None:
            raise typer.Exit(explain(ended)) from None
    losses, observers = streams.lost(), kitchen.observers.failed
    if losses:
        fail(f"{progress.name} is done, but what it printed is lost: {streams.told(losses)}")
    if observers:
        fail(f"{progress.name} is done, but observers failed: {', '.join(observers)}")
    if losses or observers:
        raise typer.Exit(1)


def _ended(
    error: BaseException, progress: Progress, arguments: list[str], profile: str | None
) -> BaseException:
    """Return what a run ends with that ended with an error; print what goes with it."""
    if signals.first is not None or isinstance(error, KeyboardInterrupt):
        note(progress.interrupted(arguments, profile))
        return typer.Exit(signals.code)
    if isinstance(error, AdapterError) and (more := progress.failed(arguments, profile)):
        error.add_note(more)
    if isinstance(error, SystemExit):
        return CrucibleError(f"the workflow called sys.exit({error.code!r})")
    return error


def _prepared(kitchen: Kitchen, show_rows: int | None) -> Callable[[], Any]:
    try:
        name, table = workflow_of(kitchen.settings)
        if show_rows is not None:
            return prepare(kitchen, preview(find(name, kitchen.settings), show_rows), table)
    except ConfigurationError as error:
        raise kitchen.with_the_rest({("workflow",): error}) from None
    return prepare(kitchen, name, table)


def read(
    arguments: list[str], profile: str | None, load: Callable[..., Settings] = load
) -> Settings:
    """Read every layer; the first argument that is not a setting is the file.

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
    return load(file, profile=profile, arguments=arguments)


def opened(settings: Settings) -> Kitchen:
    """Make the kitchen of a command; no message shows a secret that it knows, from now on."""
    kitchen = Kitchen(settings=settings)
    conceal(kitchen.redacted)
    return kitchen


def workflow_of(settings: Settings) -> tuple[str, dict[str, Any]]:
    """Return the name of the chosen workflow and its table."""
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
