"""`crucible adapters show`: what an adapter offers, or which adapter serves a port."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import asdict
from typing import Annotated, Any

import typer

from ..adapters.binding import marked, options_class
from ..adapters.cards import Cards
from ..adapters.discovery import Catalog, Installed, catalog
from ..adapters.installed_card import InstalledCard, words_of
from ..adapters.known_packages import packages_of
from ..calls.port import Port
from ..errors import AdapterNotFound, ConfigurationError
from ..messages.spelling import did_you_mean
from ..ports import PORTS
from . import stack
from .arguments import ARGUMENTS, PROFILE, opened, read
from .console import JSON, fail, records, say, say_json, table
from .fields import described_fields, doc_of, in_one_line, tried
from .styled import Text, console


def show(
    name: Annotated[
        str,
        typer.Argument(help="<port>.<name>, <name> for all of its ports, or <port>."),
    ],
    arguments: Annotated[list[str] | None, ARGUMENTS] = None,
    profile: Annotated[str | None, PROFILE] = None,
    as_json: Annotated[bool, JSON] = False,
) -> None:
    """Show what an adapter is, its options and its callbacks.

    For a port, show what is configured: the adapter and those inside it as a tree, with the options
    of each and where they were set. Secrets are masked. Only a port takes a FILE and settings.
    """
    if name in PORTS:
        settings = read(arguments or [], profile)
        with opened(settings) as kitchen:
            port = kitchen.port(PORTS[name])
            if as_json:
                say_json(stack.described(settings, port))
            else:
                stack.show(settings, port)
        return
    if given := [*(arguments or []), *([profile] if profile else [])]:
        raise ConfigurationError(
            f"only a port takes {given[0]!r}, as in `crucible adapters show blob_store "
            f"{given[0]}`; {name!r} is not one of {', '.join(PORTS)}"
        )
    entries = _matching(name)
    loaded = [_loaded(entry) for entry in entries]
    failures = [each for each in loaded if isinstance(each, ConfigurationError)]
    if len(entries) == 1 and failures:
        raise failures[0]
    found = [*zip(entries, loaded, strict=True)]
    if as_json:
        say_json([_described(entry, adapter) for entry, adapter in found])
    else:
        _show_all([each for each in found if not isinstance(each[1], ConfigurationError)])
    for failure in failures:
        fail(str(failure))
    if failures:
        raise typer.Exit(2)


def _loaded(entry: Installed) -> Any:
    """Return an adapter, or why it cannot be had: those of other ports are shown all the same."""
    try:
        adapter = entry.load()
        options_class(adapter, entry.name)
    except ConfigurationError as error:
        return error
    return adapter


def _show_all(found: Iterable[tuple[Installed, Any]]) -> None:
    shown: list[tuple[str | None, list[str]]] = []
    alike: list[str] = []
    for entry, adapter in found:
        about = (doc_of(adapter), [*options_class(adapter, entry.name).model_fields])
        if about in shown and "around" in _callbacks_of(adapter):  # it handles every callback alike
            alike.append(f"{entry.port}.{entry.name}")
            continue
        if shown:
            say()
        shown.append(about)
        _show(entry, adapter)
    if alike:
        say(f"\nThe same wrapper for other ports: {', '.join(alike)}")


def _matching(name: str) -> list[Installed]:
    found = catalog()
    port, _, rest = name.partition(".")
    if rest in PORTS and port not in PORTS:  # the wrong way round
        raise AdapterNotFound(f"an adapter is <port>.<name>; did you mean {f'{rest}.{port}'!r}?")
    if port in PORTS and rest:
        return [found.find(port, rest)]
    package, slash, short = name.rpartition("/")
    matching = [e for e in found.entries if e.name == short and (not slash or e.package == package)]
    if not matching:
        raise AdapterNotFound(f"no adapter named {name!r} is installed{_hint(name, found)}")
    return matching


def _hint(name: str, found: Catalog) -> str:
    """Return the end of a message about a name that no installed adapter has."""
    packages = {name: package for port in PORTS for name, package in packages_of(port).items()}
    if name in packages:
        return f"; to get it: pip install {packages[name]}"
    known = {n for e in found.entries for n in (e.name, f"{e.port}.{e.name}")}
    hint = did_you_mean(name, sorted({*known, *PORTS, *packages}))
    return hint or "; `crucible adapters` lists what is"


OPTION = ("option", "type", "default", "meaning")
CALLBACK = ("callback", "offered", "what it does")


def _described(entry: Installed, adapter: Any) -> dict[str, Any]:
    about = {
        "port": entry.port,
        "name": entry.name,
        "package": entry.package,
        "version": entry.version,
        "entry_point": entry.entry_point.value,
    }
    if isinstance(adapter, ConfigurationError):
        return {**about, "problem": str(adapter)}
    options = options_class(adapter, entry.name)
    composes = "inner" in options.model_fields
    return {
        **about,
        "conformance": words_of(cards := Cards().of_adapter(entry)),
        "cards": [_fields(card) for card in cards],
        "description": doc_of(adapter),
        "options": records(OPTION, described_fields(options)),
        "callbacks": records(CALLBACK, _callbacks(PORTS[entry.port], adapter, composes)),
    }


def _show(entry: Installed, adapter: Any) -> None:
    port = PORTS[entry.port]
    options = options_class(adapter, entry.name)
    out = console()
    out.print(Text(f"{entry.port}.{entry.name}", style="bold"))
    out.print(Text(f"{entry.package} {entry.version}, {entry.entry_point.value}"))
    cards = Cards().of_adapter(entry)
    for card in cards:
        out.print(Text(_in_words(card)))
    if not cards:
        out.print(Text("not checked: the package brings no report card"))
    for paragraph in doc_of(adapter).split("\n\n"):
        out.print(Text(f"\n{in_one_line(paragraph)}"))
    say()
    if options.model_fields:
        table(OPTION, described_fields(options))
    else:
        say("no options")
    say()
    composes = "inner" in options.model_fields
    table(CALLBACK, _callbacks(port, adapter, composes))


def _in_words(card: InstalledCard) -> str:
    """Return what a card says, and why that is not all."""
    on = f" on {card.variant}" if card.variant else ""
    if card.problem:
        return f"{card.words}: {card.file}: {card.problem}"
    changed = f" ({card.changed})" if card.changed else ""
    kit = f"crucible-kitchen {card.core}, kit level {card.kit}"
    return f"{card.words}{on}{changed}: {card.summary}; {kit}"


def _fields(card: InstalledCard) -> dict[str, Any]:
    return {"state": card.state, **asdict(card)}


def _callbacks(port: type[Port], adapter: Any, composes: bool) -> list[tuple[str, str, str]]:
    implemented = _callbacks_of(adapter)
    rows = []
    for name, spec in port.callbacks().items():
        offered = "yes" if name in implemented else "no"
        if offered == "no" and composes and name not in ("around", "close"):
            offered = "yes" if name in port.mandatory() else "if inner"
        rows.append((name, offered, _summary(spec)))
    rows += [
        (name, "helper", _summary(value))
        for name, value in _members(adapter)
        if tried(getattr, value, "crucible_helper") is True
    ]
    return rows


def _summary(function: Any) -> str:
    return in_one_line(doc_of(function).split("\n\n")[0])


def _callbacks_of(adapter: Any) -> dict[str, Any]:
    return tried(marked, adapter) or {}


def _members(adapter: Any) -> Iterator[tuple[str, Any]]:
    for name in tried(dir, adapter) or ():
        yield name, tried(getattr, adapter, name)
