"""`crucible config`: every value that applies, and where it came from."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Annotated, Any

import typer
from pydantic import BaseModel

from ..discovery import catalog
from ..port import Port
from ..environment import variable_of
from ..errors import ConfigurationError
from ..kitchen import Kitchen
from ..masking import masked, visible
from ..observers.config import configured
from ..ports import PORTS
from ..printable import text_of
from ..settings import Key, Settings, gather, miswritten
from ..workflows import config_class, find
from .console import Text, console, fail, note
from .run import ARGUMENTS, PROFILE, opened, read, workflow_of
from .toml import toml

HIDDEN = "(not shown)"


def config(
    arguments: Annotated[list[str] | None, ARGUMENTS] = None,
    profile: Annotated[str | None, PROFILE] = None,
) -> None:
    """Show every setting that applies, and its source.

    Secrets are masked.
    """
    settings = read(arguments or [], profile, gather)
    with opened(settings) as kitchen:
        wrong = kitchen.mistakes()
        rows = list(_rows(kitchen, settings, wrong))
    if rows:
        _print(rows)
    elif not wrong:
        note("nothing is configured; `crucible init` writes a crucible.toml to start from")
    if wrong:
        fail(str(ConfigurationError.of(wrong.values())))
        raise typer.Exit(2)


Row = tuple[Key, str | None, str]
"""A key, its value as TOML, None where it is not set, and where that comes from."""


def _print(rows: Iterable[Row]) -> None:
    """Print the rows as TOML, the source of each value behind it."""
    out, table = console(), None
    for (*path, name), value, source in rows:
        if path and path != table:  # an empty table is a value of its own
            out.print(*[Text()] * (table is not None), Text(_heading(path), "bold"), sep="\n")
            table = path
        line = f"# {name} is not set" if value is None else f"{name} = {value}"
        out.print(Text.assemble(line, (f"  # {source}", "dim")))


def _heading(path: Sequence[str]) -> str:
    """Return a table's name as TOML has it, where an item of a list has its brackets twice."""
    name = ".".join(part for part in path if not part.isdigit())
    return f"[[{name}]]" if path[-1].isdigit() else f"[{name}]"


def _rows(
    kitchen: Kitchen, settings: Settings, wrong: dict[Key, ConfigurationError]
) -> Iterator[Row]:
    """Yield every row; add what is wrong with the workflow to what is."""
    for name in kitchen.configured:
        at = ("adapters", name)
        if at in wrong:
            yield from _hidden_rows(settings, at)
        else:
            yield from _port_rows(settings, at, kitchen.port(PORTS[name]))
    yield from _workflow_rows(kitchen, settings, wrong)
    if "observe" in settings.values:
        if ("observe",) in wrong:
            yield from _hidden_rows(settings, ("observe",))
        else:
            yield from _model_rows(settings, ("observe",), configured(kitchen))


def _workflow_rows(
    kitchen: Kitchen, settings: Settings, wrong: dict[Key, ConfigurationError]
) -> Iterator[Row]:
    if "workflow" not in settings.values:
        return
    try:
        name, given = workflow_of(settings)
        chosen = kitchen.configure(config_class(find(name, settings)), given, ("workflow",))
    except ConfigurationError as error:
        wrong["workflow",] = error
        yield from _hidden_rows(settings, ("workflow",))
    else:
        yield (("workflow", "use"), toml(name), settings.source_of(("workflow", "use")))
        yield from _model_rows(settings, ("workflow",), chosen)


def _port_rows(settings: Settings, at: Key, port: Port) -> Iterator[Row]:
    yield ((*at, "use"), toml(port.adapter), settings.source_of((*at, "use")))
    yield from _model_rows(settings, at, port.options)


def _model_rows(settings: Settings, at: Key, model: BaseModel) -> Iterator[Row]:
    yield from plain_rows(settings, at, model)
    # Last: TOML has no way back to the table around another.
    for port, key in ports_inside(model, at):
        yield from _port_rows(settings, key, port)


def plain_rows(settings: Settings, at: Key, model: BaseModel) -> Iterator[Row]:
    """Yield a row for each field that holds no adapter."""
    shown = visible(model)
    holding = {key[len(at)] for _, key in ports_inside(model, at)}
    for name in type(model).model_fields:
        if name not in holding:
            value = None if shown[name] is None else toml(shown[name])
            yield ((*at, name), value, source_of(settings, (*at, name), model))


def ports_inside(model: BaseModel, at: Key) -> Iterator[tuple[Port, Key]]:
    """Yield the adapters that options hold, which are at a path, with their paths."""
    for name in type(model).model_fields:
        yield from _ports(getattr(model, name), (*at, name))


def _ports(value: Any, at: Key) -> Iterator[tuple[Port, Key]]:
    if isinstance(value, Port):
        yield value, at
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            yield from _ports(item, (*at, str(index)))
    elif isinstance(value, dict):
        for name, item in value.items():
            yield from _ports(item, (*at, str(name)))


def source_of(settings: Settings, key: Key, model: BaseModel) -> str:
    """Say where the value of a field, or each part of it, was set.

    Args:
        settings: what was set.
        key: the path of the field; its last part is the field's name.
        model: what was made of the table around it.
    """
    parts = {s for known, s in settings.sources.items() if known[: len(key)] == key}
    if parts:
        exact = settings.sources.get(key)
        return exact if exact and len(parts) < 2 else ", ".join(sorted(parts))
    name = key[-1]
    if name in model.model_fields_set:
        if _in_a_list(settings, key):
            return settings.source_of(key)
        if variable := variable_of(type(model).model_fields[name], os.environ):
            return f"environment variable {variable}"
    return "default"


def _in_a_list(settings: Settings, key: Key) -> bool:
    """Say whether a key was set as part of a list, which has one source as a whole."""
    value: Any = settings.values
    for part in key:
        if isinstance(value, Mapping) and part in value:
            value = value[part]
        elif isinstance(value, list) and part.isdigit() and int(part) < len(value):
            value = value[int(part)]
        else:
            return False
    return True


def _hidden_rows(settings: Settings, at: Key) -> Iterator[Row]:
    """Show keys without values: one that no loaded class declares may hold a secret.

    So may a `use` further in: any text becomes one that a higher layer lays a table over.
    """
    installed = [entry.name for entry in catalog().entries]
    for key, value in settings.leaves():
        if key[: len(at)] == at:
            chosen = key[:-1] == at and not miswritten(value)
            named = key[-1] == "use" and (chosen or value in installed)
            shown = toml(masked(text_of(value), whole=True)) if named else HIDDEN
            yield (key, shown, settings.source_of(key))
