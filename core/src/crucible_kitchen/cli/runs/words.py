"""Which words of a command are runs, which name a file, and which are settings."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import typer

from ...errors import ConfigurationError
from ...kitchen import Kitchen
from ...settings import TABLES, gather
from ..arguments import opened, read

RUNS: Any = typer.Argument(
    metavar="RUN... [FILE.toml] [KEY=VALUE]...",
    help="Ids of runs; then a configuration and settings, such as adapters.blob_store.url=PLACE. "
    "The configuration says where runs are kept.",
    show_default=False,
)
STORES = ("blob_store", "metrics_store")


def split(
    words: Sequence[str], least: int = 1, most: int | None = None
) -> tuple[list[str], list[str]]:
    """Return the ids of runs among the words of a command, and the other words.

    Ids are the words before the first that ends in `.toml` or is a setting, such as
    `adapters.blob_store=noop`. A run that is named twice counts once.

    Raises:
        ConfigurationError: too few or too many runs.
    """
    ids = []
    for word in words:
        if begins_settings(word):
            break
        ids.append(word)
    rest = list(words[len(ids) :])
    ids = list(dict.fromkeys(ids))
    if len(ids) < least:
        needed = "a run" if least == 1 else f"{least} different runs"
        raise ConfigurationError(f"name {needed}; `crucible runs list` lists what is there")
    if most is not None and len(ids) > most:
        raise ConfigurationError(
            f"one run, not {len(ids)}; a file of settings ends in .toml, got {ids[most]!r}"
        )
    return ids, rest


def begins_settings(word: str) -> bool:
    """Say whether a word is a file of settings, or a setting, and not a run or a command."""
    key, equals, _ = word.partition("=")
    return word.endswith(".toml") or (bool(equals) and key.partition(".")[0] in TABLES)


@contextlib.contextmanager
def stores(arguments: Sequence[str], profile: str | None, *more: str) -> Iterator[Kitchen]:
    """Open the kitchen of a command that looks at runs, and bind the stores that are configured.

    Args:
        arguments: a file and settings.
        profile: the profile's name.
        more: further ports that are bound if they are configured.
    """
    settings = read(list(arguments), profile, gather)
    with opened(settings) as kitchen:
        kitchen.bind([port for port in (*STORES, *more) if port in kitchen.configured])
        yield kitchen
