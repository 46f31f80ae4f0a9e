"""A key that was set under another name: its values move, and each keeps its source and level."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ..extent import Key
from .merge import Layer, Settings, Source, merge


def moved(settings: Settings, old: Key, new: Key, was: Any, now: Any) -> tuple[Any, Settings]:
    """Merge the values of two names of one key, as if the layers had one name for it.

    What a layer set and a higher one replaced is not known any more. It shows where three layers
    take turns: the lowest and the highest name different adapters by one name of the key, and the
    one between sets options by the other. These are kept, and are unknown keys or fit.

    Args:
        settings: they know the level of each value.
        old: the key of the old name.
        new: the key of today's name, in the same table.
        was: the value at `old`.
        now: the value at `new`.

    Returns:
        The value, and settings whose `sources` are those of its parts, by keys that begin with
        `new`.

    Raises:
        ValueError: one layer sets both names.
    """
    found: dict[int, tuple[Key, dict[str, Any], dict[Key, str]]] = {}
    for at, value in ((old, was), (new, now)):
        for key, leaf in _leaves(value, ()):
            level = settings.level_of((*at, *key))
            name, table, labels = found.setdefault(level, (at, {}, {}))
            if name != at:
                raise ValueError(f"{old[-1]} and {new[-1]} are set in one place")
            _set(table, (_ONE, *key), leaf)
            labels[(_ONE, *key)] = _label(settings.source_of((*at, *key)), at, new)
    levels = sorted(found)
    merged = merge(Layer("", *found[level][1:]) for level in levels)
    made = Settings()
    for (_, *rest), source in merged.sources.items():
        if source:  # not of a table around others, which has no source of its own
            made.sources[(*new, *rest)] = Source(source, levels[merged.level_of((_ONE, *rest))])
    return merged.values[_ONE], made


_ONE = "value"


def move(settings: Settings, old: Key, new: Key, sources: Mapping[Key, str] | None = None) -> None:
    """Give the sources of a key, and of everything inside it, to another name of the key.

    Args:
        settings: they change in place.
        old: the key of the old name.
        new: the key of today's name.
        sources: those of the new name, where both were set.
    """
    known = [key for key in settings.sources if key[: len(old)] == old]
    taken = {key: settings.sources.pop(key) for key in known}
    if sources is None:
        sources = {
            (*new, *key[len(old) :]): Source(_label(source, old, new), getattr(source, "level", -1))
            for key, source in taken.items()
        }
    else:
        for key in [key for key in settings.sources if key[: len(new)] == new]:
            del settings.sources[key]
    settings.sources.update(sources)


def _label(source: str, at: Key, new: Key) -> str:
    """Return a source that says under which name a value was set."""
    named = source.startswith(("environment variable ", "argument "))
    if at == new or (named and source.lower().rstrip("=").endswith(at[-1].lower())):
        return source
    return f"{source}, as {at[-1]!r}"


def _leaves(value: Any, at: Key) -> Iterator[tuple[Key, Any]]:
    if isinstance(value, Mapping) and value:
        for name, item in value.items():
            yield from _leaves(item, (*at, name))
    else:
        yield at, value


def _set(table: dict[str, Any], at: Key, value: Any) -> None:
    for part in at[:-1]:
        table = table.setdefault(part, {})
    table[at[-1]] = value
