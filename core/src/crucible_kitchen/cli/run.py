"""`crucible run`: a workflow, on the adapters that the configuration names."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from ..errors import AdapterError, ConfigurationError, CrucibleError
from ..kitchen import Kitchen
from ..settings import gather
from ..workflows import Workflow, registry
from . import streams
from .arguments import ARGUMENTS, PROFILE, opened, read, workflow_of
from .console import fail, note
from .failures import explain
from .interruption import signals
from .plan import planned
from .preview import preview
from .progress import Progress


def run(
    arguments: Annotated[list[str] | None, ARGUMENTS] = None,
    profile: Annotated[str | None, PROFILE] = None,
    trace: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help="Append every event to FILE, for `crucible trace`; the same as "
            "observe.jsonl=FILE.",
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
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run",
            help="Print what would be done: rows, tokens, steps, evaluations, bytes that would be "
            "written, and the first rows; train nothing.",
        ),
    ] = False,
    locked: Annotated[
        bool,
        typer.Option("--locked", help="Refuse to run where anything is not as pylock.toml has it."),
    ] = False,
    lock: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="The same, with FILE in place of pylock.toml."),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="With --dry-run: print one JSON document.")
    ] = False,
) -> None:
    """Run the workflow of a crucible.toml.

    Without a FILE, reads crucible.toml in the current folder. Settings are written KEY=VALUE, such
    as workflow.max_steps=10.
    """
    if as_json and not dry_run:
        raise ConfigurationError(
            "--json is of --dry-run; what a run has done, `crucible runs show RUN --json` prints"
        )
    if dry_run and show_rows is not None:
        raise ConfigurationError("--dry-run shows the first rows, too: leave out --show-rows")
    instead: Callable[[Workflow], Workflow] | None = None
    if show_rows is not None:
        instead = partial(preview, count=show_rows)
    elif dry_run:
        instead = partial(planned, as_json=as_json)
    given = [*(arguments or []), *([] if trace is None else [f"observe.jsonl={trace}"])]
    settings = read(given, profile, gather)
    if locked or lock is not None:
        from .lock import beside, refuse_unlike

        refuse_unlike(lock or beside(settings), settings)
    ended: BaseException | None = None
    try:
        with opened(settings) as kitchen, Progress(kitchen, stderr=dry_run) as progress:
            try:
                start = _prepared(kitchen, instead)
                if not dry_run:
                    kitchen.observe_as_configured()
                # Last, for it may raise, and the others must be notified before.
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
        fail(f"{progress.name} is done, but what it printed is lost: {streams.described(losses)}")
    if observers:
        fail(f"{progress.name} is done, but observers failed: {', '.join(observers)}")
    if losses or observers:
        raise typer.Exit(1)


def _ended(
    error: BaseException, progress: Progress, arguments: list[str], profile: str | None
) -> BaseException:
    """Return what the command ends with after a run's error; print how to continue."""
    how = progress.continuation(arguments, profile)
    if signals.first is not None or isinstance(error, KeyboardInterrupt):
        done = signals.done and progress.run_id is not None
        note(f"interrupted; {progress.name} is done" if done else how.after_interruption())
        return typer.Exit(signals.code)
    if isinstance(error, AdapterError) and (more := how.after_failure()):
        error.add_note(more)
    if isinstance(error, SystemExit):
        return CrucibleError(f"the workflow called sys.exit({error.code!r})")
    return error


def _prepared(
    kitchen: Kitchen, instead: Callable[[Workflow], Workflow] | None
) -> Callable[[], Any]:
    """Return what starts the workflow, or what `instead` makes of it."""
    try:
        name, table = workflow_of(kitchen.settings)
        workflow: str | Workflow = name
        if instead is not None:
            workflow = instead(registry.find(name, kitchen.settings))
    except ConfigurationError as error:
        raise kitchen.with_the_rest({("workflow",): error}) from None
    return registry.prepare(kitchen, workflow, table)
