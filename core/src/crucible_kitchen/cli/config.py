"""`crucible config`: every value that applies, and where it came from."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Annotated

import typer

from ..errors import ConfigurationError
from ..settings import Settings, gather
from .arguments import ARGUMENTS, PROFILE, opened, read
from .console import JSON, fail, note, say_json
from .inspection import BoundAdapter, ChosenWorkflow, Observation, Part, Untried, Wrong, inspect
from .provenance import (
    SettingRow,
    hidden_rows,
    plain_settings,
    rows_of_model,
    rows_of_plugins,
    rows_of_port,
)
from .styled import Text, console
from .toml import toml


def config(
    arguments: Annotated[list[str] | None, ARGUMENTS] = None,
    profile: Annotated[str | None, PROFILE] = None,
    as_json: Annotated[bool, JSON] = False,
) -> None:
    """Show every setting that applies, and its source.

    Secrets are masked.
    """
    settings = read(arguments or [], profile, gather)
    with opened(settings) as kitchen:
        parts = list(inspect(kitchen))
        rows = [row for part in parts for row in _rows(settings, part)]
        rows += rows_of_plugins(settings)
    wrong = [part.error for part in parts if isinstance(part, Wrong)]
    if as_json:
        say_json(plain_settings(rows))
    elif rows:
        _print(rows)
    elif not wrong:
        note("nothing is configured; `crucible init` writes a crucible.toml to start from")
    if wrong:
        fail(str(ConfigurationError.of(wrong)))
        raise typer.Exit(2)


def _rows(settings: Settings, part: Part) -> Iterator[SettingRow]:
    match part:
        case Wrong(at=()):
            pass
        case Wrong(at=at) | Untried(at=at):
            yield from hidden_rows(settings, at)
        case BoundAdapter(at=at, port=port):
            yield from rows_of_port(settings, at, port)
        case ChosenWorkflow(at=at, name=name, config=model):
            yield ((*at, "use"), toml(name), settings.source_of((*at, "use")))
            yield from rows_of_model(settings, at, model)
        case Observation(at=at, config=table):
            yield from rows_of_model(settings, at, table.built_in)
            for one in table.chosen:
                if one.options is None:
                    yield ((*at, one.name), toml(True), settings.source_of((*at, one.name)))
            for one in table.chosen:
                if one.options is not None:
                    yield from rows_of_model(settings, (*at, one.name), one.options)


def _print(rows: Iterable[SettingRow]) -> None:
    """Print the rows as TOML, the source of each value behind it."""
    out, table = console(), None
    for (*path, name), value, source in rows:
        if path and path != table:  # an empty table is a value itself
            out.print(*[Text()] * (table is not None), Text(_heading(path), "bold"), sep="\n")
            table = path
        line = f"# {name} is not set" if value is None else f"{name} = {value}"
        out.print(Text.assemble(line, (f"  # {source}", "dim")))


def _heading(path: Sequence[str]) -> str:
    """Return a table's name as TOML has it, where an item of a list has its brackets twice."""
    name = ".".join(part for part in path if not part.isdigit())
    return f"[[{name}]]" if path[-1].isdigit() else f"[{name}]"
