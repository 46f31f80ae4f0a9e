"""`crucible runs delete`: a run, with its checkpoints, weights and samples."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from ...errors import ConfigurationError, Unsupported
from ...history import removal, stored
from ...history.removal import Belongings
from ...kitchen import Kitchen
from ..arguments import PROFILE
from ..console import note, table
from ..progress import Progress
from .words import RUNS, split, stores


def delete(
    words: Annotated[list[str], RUNS],
    profile: Annotated[str | None, PROFILE] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Delete without asking.")] = False,
) -> None:
    """Delete runs: their checkpoints, weights, samples and records.

    Rows of metrics stay, since a metrics store deletes none. A run that a process works on is not
    deleted, nor one whose weights another run starts from, or has for a teacher.
    """
    ids, arguments = split(words)
    with stores(arguments, profile, "training_client") as kitchen, Progress(kitchen):
        if "blob_store" not in kitchen.configured:
            raise ConfigurationError("adapters.blob_store: none is configured, where records are")
        doomed = [removal.belongings(kitchen, stored.get(kitchen, run_id)) for run_id in ids]
        for run_id in ids:
            removal.wait(kitchen, run_id)
        removal.check_not_needed(kitchen, doomed)
        why_kept = _why_kept(kitchen)
        kept = [(each.record.run_id, name) for each in doomed for name in each.references]
        kept = kept if why_kept else []
        if not yes:
            _ask(doomed, kept, why_kept)
        gone: list[tuple[str, str]] = []
        try:
            for run_id in ids:
                for name in removal.delete(kitchen, run_id):
                    gone.append((run_id, name))
        finally:  # report what was deleted, whatever ended it
            _show("deleted", [each for each in gone if each not in kept])
            _show("kept", [each for each in kept if each[0] in {run_id for run_id, _ in gone}])
    note("rows of metrics stay, since a metrics store deletes none")


def _why_kept(kitchen: Kitchen) -> str:
    """Return why the training client keeps checkpoints that it is to delete; "" if it does not.
    It says so by a helper `keeps_checkpoints`.
    """
    if "training_client" not in kitchen.configured:
        return ""
    try:
        helper = kitchen.training_client.helper("keeps_checkpoints")
    except Unsupported:
        return ""
    return str(helper())


def _show(what: str, rows: Sequence[tuple[str, str]]) -> None:
    if rows:
        table(("run", what), rows)


def _ask(doomed: Sequence[Belongings], kept: Sequence[tuple[str, str]], why_kept: str) -> None:
    rows = [
        (each.record.run_id, name) for each in doomed for name in (*each.references, *each.blobs)
    ]
    _show("would be deleted", [each for each in rows if each not in kept])
    _show("would be kept", kept)
    if kept:
        note(why_kept)
    if not sys.stdin.isatty():
        raise ConfigurationError("nothing is deleted without --yes where nobody can be asked")
    if not typer.confirm("Delete all of this?", err=True):
        raise typer.Abort
