"""`crucible config`: every value that applies, and where it came from."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from typing import Annotated, Any

import typer
from pydantic import BaseModel

from ..dispatch import Port
from ..errors import ConfigurationError
from ..kitchen import Kitchen
from ..options import variable_of, visible
from ..ports import PORTS
from ..settings import Key, Settings
from ..workflows import config_class, find
from .console import fail, note, table
from .run import ARGUMENTS, PROFILE, read, workflow_of

HIDDEN = "(not shown)"


def config(
    arguments: Annotated[list[str] | None, ARGUMENTS] = None,
    profile: Annotated[str | None, PROFILE] = None,
) -> None:
    """Show the resolved configuration, with the source of every value. Secrets are masked."""
    settings = read(arguments or [], profile)
    errors: list[str] = []
    with Kitchen.from_settings(settings) as kitchen:
        rows = list(_rows(kitchen, settings, errors))
    if not rows:
        note("nothing is configured; `crucible init` writes a crucible.toml to start from")
    else:
        table(("key", "value", "source"), rows)
    for error in errors:
        fail(error)
    if errors:
        raise typer.Exit(2)


Row = tuple[str, str, str]


def _rows(kitchen: Kitchen, settings: Settings, errors: list[str]) -> Iterator[Row]:
    for name in kitchen.configured:
        at = ("adapters", name)
        try:
            yield from _port_rows(settings, at, kitchen.port(PORTS[name]))
        except ConfigurationError as error:
            errors.append(str(error))
            yield from _hidden_rows(settings, at)
    if "workflow" not in settings.values:
        return
    try:
        name, given = workflow_of(settings)
        chosen = kitchen.configure(config_class(find(name)), given, ("workflow",))
    except ConfigurationError as error:
        errors.append(str(error))
        yield from _hidden_rows(settings, ("workflow",))
    else:
        yield ("workflow.use", _show(name), settings.source_of(("workflow", "use")))
        yield from _model_rows(settings, ("workflow",), chosen)


def _port_rows(settings: Settings, at: Key, port: Port) -> Iterator[Row]:
    yield (".".join((*at, "use")), _show(port.adapter), settings.source_of((*at, "use")))
    yield from _model_rows(settings, at, port.options)


def _model_rows(settings: Settings, at: Key, model: BaseModel) -> Iterator[Row]:
    shown = visible(model)
    for name, field in type(model).model_fields.items():
        key = (*at, name)
        value = getattr(model, name)
        if isinstance(value, Port):
            yield from _port_rows(settings, key, value)
            continue
        source = _source(settings, key)
        if source is None:
            taken = name in model.model_fields_set
            variable = variable_of(field, os.environ) if taken else None
            source = f"environment variable {variable}" if variable else "default"
        yield (".".join(key), _show(shown[name]), source)


def _source(settings: Settings, key: Key) -> str | None:
    """Return where a value, or a part of it, was set."""
    exact = settings.sources.get(key)
    parts = {s for known, s in settings.sources.items() if known[: len(key)] == key}
    return exact if exact and len(parts) < 2 else ", ".join(sorted(parts)) or None


def _hidden_rows(settings: Settings, at: Key) -> Iterator[Row]:
    """Show keys without values: one that no loaded class declares may hold a secret."""
    for key, value in settings.leaves():
        if key[: len(at)] == at:
            shown = _show(value) if key[-1] == "use" else HIDDEN
            yield (".".join(key), shown, settings.source_of(key))


def _show(value: Any) -> str:
    if isinstance(value, str | int | float | bool | list | Mapping):
        return json.dumps(value, ensure_ascii=False)
    return "" if value is None else str(value)
