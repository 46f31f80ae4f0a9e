"""Which plugins the settings name. Nothing is imported.

Which option of an adapter holds another adapter is known to its `Options` alone. Where these would
have to be imported, every text counts that is the name of an installed plugin: at worst a lock then
has a distribution more than it needs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from ..adapters.discovery import (
    ADAPTERS,
    ENVIRONMENTS,
    OBSERVERS,
    WORKFLOWS,
    Catalog,
    Installed,
    canonical,
    catalog,
)
from ..errors import AdapterNotFound, ConfigurationError
from ..settings import Settings

BUILT_IN_OBSERVERS = ("console", "jsonl", "otel")
"""Keys of `[observe]` that are the core's: the fields of `ObserveConfig`."""


@dataclass(slots=True)
class Named:
    """What settings name.

    Args:
        entries: the installed plugins, by what they are called: `<port>.<name>`, `workflow <name>`
            and so on.
        local: what is imported from a module or file, and so belongs to no distribution.
        missing: what a profile that is not chosen names, or options, and is not installed.
        otel: whether events go to OpenTelemetry, which is an extra of the core.
    """

    entries: dict[str, Installed] = field(default_factory=dict)
    local: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    otel: bool = False


def named(settings: Settings, *, profiles: bool = True) -> Named:
    """Return the plugins that the settings name.

    Args:
        settings: merged settings.
        profiles: whether those of profiles count that are not chosen.

    Raises:
        ConfigurationError: plugins that are chosen are not installed; the message names them all.
    """
    found = Named()
    mistakes = [str(error) for error in _collect(settings.values, found)]
    if mistakes:
        raise ConfigurationError(*dict.fromkeys(mistakes))
    for profile, table in settings.profiles.items() if profiles else ():
        if profile != settings.profile:
            before = len(found.missing)
            missing = [*map(str, _collect(table, found)), *found.missing[before:]]
            found.missing[before:] = [f"[profile.{profile}] {each}" for each in missing]
    return found


def _collect(tables: Mapping[str, Any], found: Named) -> Iterator[AdapterNotFound]:
    """Add what some tables name; yield an error for each that is not installed."""
    adapters = tables.get("adapters", {})
    for port, value in adapters.items() if isinstance(adapters, Mapping) else ():
        use, options = _parts(value)
        if isinstance(use, str) and use:
            yield from _find(catalog(ADAPTERS), port, use, found)
        _add_all(value, (ADAPTERS,), found, port)
        _note_unknown(options, f"adapters.{port}", (ADAPTERS,), found)
    workflow = tables.get("workflow", {})
    if isinstance(workflow, Mapping):
        use, others = _parts(workflow)
        if isinstance(use, str) and use:
            yield from _find(catalog(WORKFLOWS), "", use, found)
        _add_all(others, (ADAPTERS, ENVIRONMENTS), found)
        if isinstance(name := others.get("environment"), str) and name:
            others = {**others, "environment": {"use": name}}
        _note_unknown(others, "workflow", (ADAPTERS, ENVIRONMENTS), found)
    observe = tables.get("observe", {})
    for name, value in observe.items() if isinstance(observe, Mapping) else ():
        if str(value).lower() == "false":
            continue
        if name == "otel":
            found.otel = True
        elif name not in BUILT_IN_OBSERVERS:
            yield from _find(catalog(OBSERVERS), "", name, found)


def _parts(value: Any) -> tuple[Any, Mapping[str, Any]]:
    """Return what a plugin is chosen by, and its options."""
    if not isinstance(value, Mapping):
        return value, {}
    return value.get("use"), {key: each for key, each in value.items() if key != "use"}


def _find(installed: Catalog, port: str, use: str, found: Named) -> Iterator[AdapterNotFound]:
    if ":" in use and not port:
        found.local.append(use)
        return
    try:
        entry = installed.find(port, use)
    except AdapterNotFound as error:
        yield error
    else:
        found.entries[called(entry)] = entry


def _add_all(value: Any, groups: tuple[str, ...], found: Named, port: str = "") -> None:
    """Add the installed plugins of these groups that texts somewhere in a value name.

    Where a package gives the name for several ports, the entry of `port` stands for all of them.
    """
    texts = {_canonical(text) for text in _texts(value)}
    for group in groups:
        chosen: dict[tuple[str, str], Installed] = {}
        for entry in catalog(group).entries:
            if not texts.isdisjoint(_names(entry)):
                key = (entry.package, entry.name)
                if key not in chosen or entry.port == port:
                    chosen[key] = entry
        found.entries |= {called(entry): entry for entry in chosen.values()}


def _note_unknown(value: Any, at: str, groups: tuple[str, ...], found: Named) -> None:
    """Note what tables inside a value choose, by `use`, and no package provides.

    It is no mistake here: what a table means is known to the plugin that it is for.
    """
    if isinstance(value, list | tuple):
        value = {str(place): each for place, each in enumerate(value)}
    if not isinstance(value, Mapping):
        return
    use, others = _parts(value)
    if isinstance(use, str) and use:
        if ":" in use:
            found.local.append(use)
        elif not any(_canonical(use) in _names(e) for g in groups for e in catalog(g).entries):
            found.missing.append(f"{at} names {use!r}, which is not installed")
    for key, each in others.items():
        _note_unknown(each, f"{at}.{key}", groups, found)


def _names(entry: Installed) -> tuple[str, str]:
    """Return what names an installed plugin."""
    return entry.name, f"{canonical(entry.package)}/{entry.name}"


def _canonical(use: str) -> str:
    """Return `package/name` with the package as indexes compare it."""
    package, slash, name = use.rpartition("/")
    return f"{canonical(package)}{slash}{name}"


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for each in value.values():
            yield from _texts(each)
    elif isinstance(value, list | tuple):
        for each in value:
            yield from _texts(each)


def called(entry: Installed) -> str:
    """Return what a plugin is called in a lock."""
    kinds = {WORKFLOWS: "workflow", ENVIRONMENTS: "environment", OBSERVERS: "observer"}
    if entry.port:
        return f"{entry.port}.{entry.name}"
    return f"{kinds[entry.entry_point.group]} {entry.name}"
