"""`crucible clean`: remove what killed processes left behind."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

import typer

from ..kitchen import Kitchen
from ..ports import PORTS
from ..settings import gather
from ..workflows import runs
from .arguments import ARGUMENTS, PROFILE, opened, read
from .console import JSON, note, records, say, say_json, table
from .progress import Progress


def clean(
    arguments: Annotated[list[str] | None, ARGUMENTS] = None,
    profile: Annotated[str | None, PROFILE] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Remove nothing; list what would be removed.")
    ] = False,
    as_json: Annotated[bool, JSON] = False,
) -> None:
    """Remove what killed processes left behind.

    With the configured adapters: unfinished files, checkpoints and uploads whose process has ended,
    and the checkpoints and weights of each run in the blob store that its record does not name. A
    run that is at work is left alone.
    """
    settings = read(arguments or [], profile, gather)
    found: list[tuple[str, str]] = []
    try:
        with opened(settings) as kitchen, Progress(kitchen, stderr=as_json):
            kitchen.bind(kitchen.configured)
            for one in _found(kitchen, dry_run):
                found.append(one)
    finally:  # report what was removed, whatever ended it
        headings = ("where", "would be done" if dry_run else "done")
        if as_json:
            say_json(records(headings, found))
        elif found:
            table(headings, found)
    if not found and not as_json:
        say("there is nothing to clean" if kitchen.configured else "no adapter is configured here")


def _found(kitchen: Kitchen, dry_run: bool) -> Iterator[tuple[str, str]]:
    for name in kitchen.configured:
        for left in kitchen.port(PORTS[name]).clean(dry_run=dry_run):
            yield f"adapters.{name}", f"removed {left}"
    runs_here = {"blob_store", "training_client"} <= {*kitchen.configured}
    if runs_here and not kitchen.blob_store.supports("list"):
        adapter = kitchen.blob_store.adapter
        note(f"the blob store {adapter} cannot list its blobs, so runs are not cleaned")
    elif runs_here:
        for run_id, what in runs.clean(kitchen, dry_run):
            yield f"run {run_id}", what
