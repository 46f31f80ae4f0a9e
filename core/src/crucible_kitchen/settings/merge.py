"""Layers of settings, merged key by key, with the source of each value."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..extent import Key


@dataclass(frozen=True, slots=True)
class Layer:
    """Values from one place.

    Args:
        name: the place, as users know it.
        table: the values.
        labels: for single keys, a place that is more exact than `name`.
    """

    name: str
    table: Mapping[str, Any] = field(repr=False)  # it may hold secrets
    labels: Mapping[Key, str] = field(default_factory=dict)

    def source(self, key: Key) -> str:
        """Say where a key, or a table or list around it, was set."""
        around = (key[:depth] for depth in range(len(key), 0, -1))
        return next((self.labels[each] for each in around if each in self.labels), self.name)


class Source(str):
    """The place of a value, as users know it, and the level of its layer: higher ones override."""

    __slots__ = ("level",)
    level: int

    def __new__(cls, place: str, level: int = -1) -> Source:
        made = super().__new__(cls, place)
        made.level = level
        return made


@dataclass(frozen=True, slots=True)
class Replaced:
    """An adapter that a higher layer replaced by another; its options do not apply.

    Args:
        at: its key in the settings.
        table: the adapter, as `use`, and its options.
        sources: where these were set, by their keys in the settings.
        by: what replaced it.
        by_source: where that was chosen.
    """

    at: Key
    table: Mapping[str, Any] = field(repr=False)  # it may hold secrets
    sources: Mapping[Key, str]
    by: Any
    by_source: Source


@dataclass(slots=True)
class Settings:
    """The merged values, and the source of each leaf."""

    values: dict[str, Any] = field(default_factory=dict, repr=False)  # they may hold secrets
    sources: dict[Key, str] = field(default_factory=dict)
    files: tuple[Path, ...] = ()
    profile: str | None = None
    profiles: Mapping[str, Mapping[str, Any]] = field(default_factory=dict, repr=False)
    """The tables of the file's profiles, by name, chosen or not."""
    replaced: dict[Key, list[Replaced]] = field(default_factory=dict)
    """The adapters with options that were at a key and replaced, in the order of the layers."""
    mistakes: tuple[str, ...] = ()
    """What is wrong so far. If there are any, the values serve only to find more."""

    def source_of(self, key: Key) -> str:
        """Say where a key, or else the nearest table around it, was set."""
        return source_in(self.sources, key)

    def level_of(self, key: Key) -> int:
        """Return the level of the layer that set a key, or else the nearest table around it."""
        source = self.source_of(key)
        return source.level if isinstance(source, Source) else -1

    def leaves(self) -> Iterator[tuple[Key, Any]]:
        """Yield every key and value that is not a table."""
        yield from _leaves(self.values, ())


def source_in(sources: Mapping[Key, str], key: Key) -> str:
    """Say where a key, or else the nearest table around it, was set."""
    while key and key not in sources:
        key = key[:-1]
    return sources.get(key, "defaults")


def _leaves(value: Any, at: Key) -> Iterator[tuple[Key, Any]]:
    if isinstance(value, Mapping) and (value or not at):
        for name, item in value.items():
            yield from _leaves(item, (*at, name))
    else:
        yield at, value


def merge(layers: Iterable[Layer]) -> Settings:
    """Merge layers, given from the lowest to the highest. No layer is changed.

    Above is a value of the higher layer, below is what lies at its key so far:

    | above | below | merged |
    | --- | --- | --- |
    | a value | anything | the value |
    | an adapter's name | a table that describes an adapter | as the table `{ use = name }` |
    | a table | a table | merged key by key |
    | options without `use` | an adapter's name | the name, with these options |
    | a table | another adapter's table, or a value | the table |
    | `observe.<name> = true` | a table | the table: it is switched on already |
    """
    settings = Settings()
    for level, layer in enumerate(layers):
        _lay(settings, layer, level, settings.values, layer.table, ())
    return settings


def _lay(
    settings: Settings,
    layer: Layer,
    level: int,
    below: dict[str, Any],
    above: Mapping[str, Any],
    at: Key,
) -> None:
    """Lay a table of a layer over the table below it, which changes in place."""
    for name, value in above.items():
        key = (*at, name)
        if _is_bare_name(value, key, below.get(name)):
            value = {"use": value}
        if isinstance(below.get(name), dict) and _switches_on(value, key):
            continue
        if isinstance(value, Mapping):
            source = Source(layer.source(key), level)
            chosen = Source(layer.source((*key, "use")), level)
            table = _table_below(settings, source, chosen, below, value, key)
            settings.sources[key] = source
            _lay(settings, layer, level, table, value, key)
        else:
            if isinstance(below.get(name), dict):
                _forget(settings, key)
            below[name] = value
            settings.sources[key] = Source(layer.source(key), level)


def _is_bare_name(value: Any, key: Key, below: Any) -> bool:
    """Say whether a value is short for the table `{ use = value }`.

    It is at `adapters.<port>`; for adapters inside options, the table below shows that it is.
    """
    if isinstance(value, Mapping):
        return False
    if len(key) == 2 and key[0] == "adapters":
        return True
    return isinstance(value, str) and isinstance(below, dict) and "use" in below


def _switches_on(value: Any, key: Key) -> bool:
    """Say whether a value switches an observer on, with the options that it has."""
    return len(key) == 2 and key[0] == "observe" and str(value).lower() == "true"


def _table_below(
    settings: Settings,
    source: Source,
    chosen: Source,
    below: dict[str, Any],
    above: Mapping[str, Any],
    key: Key,
) -> dict[str, Any]:
    """Return the table that `above` is laid over; it is in its place in `below`.

    Args:
        settings: what is merged so far.
        source: the place of `above`.
        chosen: the place of its `use`.
        below: the table around the place.
        above: a table of the higher layer.
        key: where it is in the settings.
    """
    name = key[-1]
    old = below.get(name)
    if isinstance(old, str) and "use" not in above:  # the name of an adapter, and now its options
        below[name] = {"use": old}
        settings.sources[(*key, "use")] = settings.sources.pop(key, source)
    elif not isinstance(old, dict) or _names_another(above, old):
        if isinstance(old, dict) and len(old) > 1:
            sources = {k: v for k, v in settings.sources.items() if k[: len(key)] == key}
            gone = Replaced(key, old, sources, above["use"], chosen)
            settings.replaced.setdefault(key, []).append(gone)
        if old is not None:
            _forget(settings, key)
        below[name] = {}
    table: dict[str, Any] = below[name]
    return table


def _names_another(above: Mapping[str, Any], below: Mapping[str, Any]) -> bool:
    """Say whether two tables name different adapters, whose options have nothing in common."""
    return "use" in above and "use" in below and bool(above["use"] != below["use"])


def _forget(settings: Settings, key: Key) -> None:
    """Forget the sources of a key and of everything inside it."""
    for known in [known for known in settings.sources if known[: len(key)] == key]:
        del settings.sources[known]
