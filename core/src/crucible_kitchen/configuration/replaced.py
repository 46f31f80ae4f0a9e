"""Options that an adapter, or a workflow, may lack because they went with one that was replaced."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import BaseModel

from ..adapters.binding import label_of
from ..options.renamed import renames
from ..settings import Key, Settings
from ..settings.merge import Replaced, source_in


def without_option(settings: Settings, at: Key) -> str:
    """Say that a missing option is one that was replaced together with its adapter; "" if not.

    Args:
        settings: where each value came from.
        at: the option's key in the settings.
    """
    adapter = next((at[:n] for n in range(len(at) - 1, 0, -1) if _use(settings, at[:n])), ())
    for gone, was in _gone(settings, adapter):
        if _at(gone.table, (*was, *at[len(adapter) :])) is not None:
            return _explained(settings, adapter, at[len(adapter) :], gone, was)
    return ""


def named_in(text: str, settings: Settings, adapter: Key, options: type[BaseModel]) -> str:
    """Say the same of an option that a message names between quotes; "" if it names none.

    Options that the adapter has no name for, or has set, are not missing.

    Args:
        text: the message of an error of an adapter.
        settings: where each value came from.
        adapter: its key in the settings.
        options: the class of its options.
    """
    for gone, was in _gone(settings, adapter):
        for name, value in _at(gone.table, was).items():
            today = renames(options).get(name, name)
            if today not in options.model_fields or not isinstance(value, Mapping):
                continue
            for each in value:
                unset = _at(settings.values, (*adapter, today, each)) is None
                if unset and repr(each) in text:
                    return _explained(settings, adapter, (name, each), gone, was)
    return ""


def _gone(settings: Settings, adapter: Key) -> Iterator[tuple[Replaced, Key]]:
    """Yield what was replaced and could have been meant for an adapter, the nearest and last first.

    That is what was at its place, and what has its name and was around or inside its place: a
    layer may wrap the adapter of a lower one, or use what was wrapped.

    Yields:
        What was replaced, where the adapter was `adapter` or something around it, and the key of
        the one that was meant in its table.
    """
    use = _use(settings, adapter)
    for depth in range(len(adapter), 0, -1):
        for gone in reversed(settings.replaced.get(adapter[:depth], ())):
            for was in _adapters(gone.table, ()):
                if was == adapter[depth:] or _name(_at(gone.table, was)["use"]) == use:
                    yield gone, was


def _adapters(table: Mapping[str, Any], at: Key) -> Iterator[Key]:
    """Yield the keys of an adapter's table, `()`, and of those inside it."""
    if "use" in table:
        yield at
    for name, value in table.items():
        if isinstance(value, Mapping):
            yield from _adapters(value, (*at, name))


def _at(table: Any, key: Key) -> Any:
    """Return what is at a key of a table; None if nothing is."""
    for name in key:
        table = table.get(name) if isinstance(table, Mapping) else None
    return table


def _use(settings: Settings, adapter: Key) -> str:
    """Return the name of what is chosen at a key; "" if nothing is."""
    value = _at(settings.values, adapter)
    use = value.get("use") if isinstance(value, Mapping) else value
    return _name(use) if adapter and use is not None else ""


def _name(use: Any) -> str:
    return use if isinstance(use, str) else label_of(use)


def _explained(settings: Settings, adapter: Key, option: Key, gone: Replaced, was: Key) -> str:
    """Say where an option was set, what replaced it, and what to do.

    Args:
        settings: where each value came from.
        adapter: the key of the adapter that lacks it.
        option: its key in that adapter's table.
        gone: what was replaced.
        was: the key of the adapter that it was meant for, in what was replaced.
    """
    use = _use(settings, adapter)
    key = (*gone.at, *was, *option)
    inside = f" inside {_name(gone.table['use'])!r}" if was else ""
    said = (
        f"{'.'.join(key)} is set for {_name(_at(gone.table, was)['use'])!r}{inside} "
        f"({source_in(gone.sources, key)}), which {_name(gone.by)!r} "
        f"({gone.by_source}) replaced together with its options: set "
    )
    chosen = (*adapter, "use")
    if gone.at == adapter and not was and gone.by_source.level == settings.level_of(chosen):
        return f'{said}it for {use!r}, too, or write use = "{use}" there'
    here = ".".join((*adapter, *option))
    return f"{said}{here} where {use!r} is chosen ({settings.source_of(chosen)})"
