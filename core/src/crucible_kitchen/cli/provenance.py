"""Settings as rows: a key, its value, and where the value came from."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, TypeAlias

from pydantic import BaseModel

from ..adapters.discovery import catalog
from ..calls.port import Port, ports_in
from ..masking.evident import masked
from ..masking.models import visible
from ..messages.printable import text_of
from ..options.environment import variable_of
from ..settings import Key, Settings, miswritten
from .toml import toml

HIDDEN = "(not shown)"

SettingRow: TypeAlias = tuple[Key, str | None, str]
"""A key, its value as TOML or None if it is not set, and the source of the value."""


def rows_of_port(settings: Settings, at: Key, port: Port) -> Iterator[SettingRow]:
    """Yield the rows of an adapter: its name, its options, and the adapters in them."""
    yield ((*at, "use"), toml(port.adapter), settings.source_of((*at, "use")))
    yield from rows_of_model(settings, at, port.options)


def rows_of_model(settings: Settings, at: Key, model: BaseModel) -> Iterator[SettingRow]:
    """Yield a row for each field, then the rows of the adapters that fields hold.

    In this order, since TOML cannot return to the table around another.
    """
    yield from plain_rows(settings, at, model)
    for port, key in ports_in(model, at):
        yield from rows_of_port(settings, key, port)


def plain_rows(settings: Settings, at: Key, model: BaseModel) -> Iterator[SettingRow]:
    """Yield a row for each field that holds no adapter."""
    shown = visible(model)
    holding = {key[len(at)] for _, key in ports_in(model, at)}
    for name in type(model).model_fields:
        if name not in holding:
            value = None if shown[name] is None else toml(shown[name])
            yield ((*at, name), value, source_of(settings, (*at, name), model))


def rows_of_plugins(settings: Settings) -> Iterator[SettingRow]:
    """Yield the rows of the table `[plugins]`."""
    for name, value in settings.values.get("plugins", {}).items():
        yield (("plugins", name), toml(value), settings.source_of(("plugins", name)))


def hidden_rows(settings: Settings, at: Key) -> Iterator[SettingRow]:
    """Yield keys without values: a key that no loaded class declares may hold a secret.

    So may a `use` further in: any text becomes one when a higher layer lays a table over it.
    """
    installed = [entry.name for entry in catalog().entries]
    for key, value in settings.leaves():
        if key[: len(at)] == at:
            chosen = key[:-1] == at and not miswritten(value)
            named = key[-1] == "use" and (chosen or value in installed)
            shown = toml(masked(text_of(value), whole=True)) if named else HIDDEN
            yield (key, shown, settings.source_of(key))


def plain_settings(rows: Iterable[SettingRow]) -> list[dict[str, Any]]:
    """Return rows as plain data: each key, its value, and the value's source. A value that is not
    shown is the text that says so.
    """
    return [
        {"key": ".".join(key), "value": _plain(value), "source": source}
        for key, value, source in rows
    ]


def _plain(value: str | None) -> Any:
    if value is None or value == HIDDEN:
        return value
    try:
        return tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:  # of a type that TOML lacks
        return value


def source_of(settings: Settings, key: Key, model: BaseModel) -> str:
    """Say where the value of a field was set, or each part of it.

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
