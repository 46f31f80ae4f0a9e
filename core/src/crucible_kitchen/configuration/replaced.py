"""Options that a failing call may lack because their adapter was replaced by another."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ..settings import Key, Settings


def without_option(settings: Settings, at: Key) -> str:
    """Say that an adapter lacks an option which the one that it replaced has; "" if that has none.

    Args:
        settings: where each value came from.
        at: the option's key in the settings.
    """
    for depth in range(len(at) - 1, 0, -1):
        if (replaced := settings.replaced.get(at[:depth])) is not None:
            known: Any = replaced.options
            for name in at[depth:]:
                known = known.get(name, _ABSENT) if isinstance(known, Mapping) else _ABSENT
            return "" if known is _ABSENT else _explained(settings, at[:depth], at)
    return ""


def named_in(text: str, settings: Settings, port: str) -> str:
    """Say the same of an option that a message names between quotes; "" if it names none.

    Args:
        text: the message of an error of an adapter.
        settings: where each value came from.
        port: that of the adapter.
    """
    key = ("adapters", port)
    if (replaced := settings.replaced.get(key)) is not None:
        for option in _named(replaced.options, key):
            if repr(option[-1]) in text:
                return _explained(settings, key, option)
    return ""


_ABSENT = object()


def _named(table: Mapping[str, Any], at: Key) -> Iterator[Key]:
    """Yield the keys of everything that an option's table gives a name."""
    for name, value in table.items():
        if isinstance(value, Mapping):
            yield from ((*at, name, each) for each in value)


def _explained(settings: Settings, adapter: Key, option: Key) -> str:
    replaced = settings.replaced[adapter]
    return (
        f"{'.'.join(option)} is set for {replaced.use!r} ({replaced.source}), which "
        f"{replaced.by!r} ({replaced.by_source}) replaced together with its options: set it for "
        f'{replaced.by!r}, too, or write use = "{replaced.by}" there'
    )
