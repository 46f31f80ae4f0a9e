"""`crucible export`: the weights of a run, as a folder that other programs load."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from ..errors import AdapterError, ConfigurationError, Unsupported
from ..history import stored
from ..history.weights import Exported, export
from ..kitchen import Kitchen
from ..messages.spelling import shortened
from ..workflows.runs import RunRecord
from .arguments import PROFILE
from .console import JSON, note, say, say_json
from .progress import Progress
from .runs.words import split, stores

RUN: Any = typer.Argument(
    metavar="RUN [FILE.toml] [KEY=VALUE]...",
    help="Id of a run; then a configuration and settings, which say where runs are kept.",
    show_default=False,
)
WEIGHTS = (".safetensors", ".safetensors.index.json", "adapter_config.json")
"""How the names of files end that say what the weights of a repository are."""


def export_(
    words: Annotated[list[str], RUN],
    to: Annotated[Path, typer.Option(metavar="FOLDER", help="Where to; it must be empty.")],
    profile: Annotated[str | None, PROFILE] = None,
    checkpoint: Annotated[
        str | None,
        typer.Option(
            metavar="last|best|REFERENCE",
            help="Which weights; the best checkpoint if the run looks for one, else the last.",
            show_default=False,
        ),
    ] = None,
    format: Annotated[
        Literal["merged", "peft"],
        typer.Option(help="A whole model, or the low-rank update alone, as an adapter of PEFT."),
    ] = "merged",
    push: Annotated[
        str | None,
        typer.Option(
            metavar="REPO",
            help="Upload the folder to this repository, which exists, with the hub client.",
            show_default=False,
        ),
    ] = None,
    revision: Annotated[str, typer.Option(help="Branch to upload to.")] = "main",
    message: Annotated[
        str | None, typer.Option(help="Message of that commit.", show_default=False)
    ] = None,
    as_json: Annotated[bool, JSON] = False,
) -> None:
    """Write a run's weights to a folder that Transformers loads, or PEFT.

    With the tokenizer, its chat template and the generation configuration. The folder is whole, or
    it is not there.
    """
    [run_id], arguments = split(words, most=1)
    needed = ("blob_store", "training_client", *(["hub_client"] if push else []))
    with stores(arguments, profile) as kitchen, Progress(kitchen):
        kitchen.bind(needed)
        run = stored.get(kitchen, run_id)
        if run.record is None:
            raise ConfigurationError(run.problem or f"the run {run_id!r} has no record")
        there = None if push is None else _there(kitchen, push, revision)
        exported = export(kitchen, run.record, to, checkpoint, merge=format == "merged")
        facts = dict(_facts(run.record, exported))
        for each in exported.differs:
            note(f"the training client differs from the run's: {each}")
        if push is not None:
            facts |= dict(_pushed(kitchen, exported, push, revision, message))
            _warn_of_others(push, exported.folder, there or [])
    if as_json:
        say_json(facts)
    else:
        for name, value in facts.items():
            say(f"{name:<12}{value}")


def _facts(record: RunRecord, exported: Exported) -> Iterator[tuple[str, str]]:
    yield "run_id", record.run_id
    yield "checkpoint", exported.checkpoint
    yield "format", "merged" if exported.merged else "peft"
    yield "folder", str(exported.folder)


def _there(kitchen: Kitchen, repo: str, revision: str) -> list[str]:
    """Return the files of a repository, so that one that does not exist shows at once."""
    hub = kitchen.hub_client
    if not hub.supports("upload"):
        raise ConfigurationError(
            f"--push: the hub client {hub.adapter!r} uploads nothing: it does not implement "
            "upload, which is optional"
        )
    try:
        return list(hub.list_files(repo, revision=revision))
    except AdapterError as error:
        error.add_note("--push uploads to a repository, and a branch, that exist; nothing was done")
        raise


def _pushed(
    kitchen: Kitchen, exported: Exported, repo: str, revision: str, message: str | None
) -> Iterator[tuple[str, str]]:
    hub = kitchen.hub_client
    try:
        commit = hub.upload(
            repo,
            exported.folder,
            revision=revision,
            message=message or f"Weights of the run {exported.run_id}",
        )
    except AdapterError as error:
        error.add_note(f"{exported.folder} is complete; only the upload failed")
        raise
    yield "commit", commit
    try:
        yield "url", str(hub.helper("commit_url")(repo, commit))
    except Unsupported:
        return


def _warn_of_others(repo: str, folder: Path, there: list[str]) -> None:
    mine = {path.name for path in folder.iterdir()}
    others = [name for name in there if name.endswith(WEIGHTS) and name not in mine]
    if others:
        note(f"{repo} also has {shortened(others)}, of something else: it may be loaded instead")
