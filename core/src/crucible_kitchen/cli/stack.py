"""The adapters that are bound for a port, one inside the other, as a tree."""

from __future__ import annotations

from rich.tree import Tree

from ..adapters.discovery import Catalog, catalog
from ..calls.port import Port, ports_in
from ..settings import Key, Settings
from .console import Text, console, say
from .provenance import plain_rows


def show(settings: Settings, port: Port) -> None:
    """Print a bound adapter and those inside it, each with its options and their sources.

    Then print which of the port's optional callbacks the whole serves.
    """
    out = console()
    out.print(_tree(settings, port, ("adapters", port.name), port.name, catalog()))
    optional = [
        name
        for name in port.callbacks()
        if name not in port.mandatory() and name not in ("around", "close")
    ]
    offered = [name for name in optional if port.supports(name)]
    lacking = [name for name in optional if name not in offered]
    say()
    say(f"optional callbacks that it serves: {', '.join(offered) or 'none'}")
    if lacking:
        say(f"optional callbacks that it does not: {', '.join(lacking)}")


def _tree(settings: Settings, port: Port, at: Key, name: str, installed: Catalog) -> Tree:
    entry = installed.find(port.name, port.adapter)
    about = f"  ({entry.package} {entry.version})"
    node = Tree(Text.assemble(f"{name}: ", (port.adapter, "bold"), (about, "dim")))
    for (*_, field), value, source in plain_rows(settings, at, port.options):
        text = f"{field} is not set" if value is None else f"{field} = {value}"
        node.add(Text.assemble(text, (f"  # {source}", "dim")))
    for inner, key in ports_in(port.options, at):
        label = ".".join(key[len(at) :])
        node.children.append(_tree(settings, inner, key, label, installed))
    return node
