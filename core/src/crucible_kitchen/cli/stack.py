"""The adapters that are bound for a port, one inside the other, as a tree."""

from __future__ import annotations

from typing import Any

from rich.tree import Tree

from ..adapters.discovery import Catalog, catalog
from ..calls.port import Port, ports_in
from ..errors import AdapterNotFound
from ..settings import Key, Settings
from .console import say
from .provenance import plain_rows, plain_settings, rows_of_port
from .styled import Text, console


def show(settings: Settings, port: Port) -> None:
    """Print a bound adapter and those inside it, each with its options and their sources.

    Then print which of the port's optional callbacks the whole serves.
    """
    out = console()
    out.print(_tree(settings, port, ("adapters", port.name), port.name, catalog()))
    offered, lacking = _optional(port)
    say()
    say(f"optional callbacks that it serves: {', '.join(offered) or 'none'}")
    if lacking:
        say(f"optional callbacks that it does not: {', '.join(lacking)}")


def described(settings: Settings, port: Port) -> dict[str, Any]:
    """Return what `show` prints as plain data."""
    offered, lacking = _optional(port)
    rows = rows_of_port(settings, ("adapters", port.name), port)
    return {
        "port": port.name,
        "settings": plain_settings(rows),
        "serves": offered,
        "does_not_serve": lacking,
    }


def _optional(port: Port) -> tuple[list[str], list[str]]:
    """Return the optional callbacks that a port serves, and those that it does not."""
    optional = [
        name
        for name in port.callbacks()
        if name not in port.mandatory() and name not in ("around", "close")
    ]
    offered = [name for name in optional if port.supports(name)]
    return offered, [name for name in optional if name not in offered]


def _tree(settings: Settings, port: Port, at: Key, name: str, installed: Catalog) -> Tree:
    try:
        entry = installed.find(port.name, port.adapter)
        about = f"  ({entry.package} {entry.version})"
    except AdapterNotFound:  # an object that an adapter put in the place of its `inner`
        about = ""
    node = Tree(Text.assemble(f"{name}: ", (port.adapter, "bold"), (about, "dim")))
    for (*_, field), value, source in plain_rows(settings, at, port.options):
        text = f"{field} is not set" if value is None else f"{field} = {value}"
        node.add(Text.assemble(text, (f"  # {source}", "dim")))
    for inner, key in ports_in(port.options, at):
        label = ".".join(key[len(at) :])
        node.children.append(_tree(settings, inner, key, label, installed))
    return node
