"""`crucible adapters`: which are installed. This imports little; `show` is in `adapter`."""

from __future__ import annotations

from typing import Annotated

import typer

from ..adapters.cards import Cards, words_of
from ..adapters.discovery import PORT_NAMES, catalog
from .console import JSON, note, records, say_json, table
from .later import group_of

SHOW = {"show": ("adapter:show", "Show what an adapter is, its options and its callbacks.")}

app = typer.Typer(
    help="List the installed adapters, or show one.", cls=group_of(SHOW), rich_markup_mode=None
)


@app.callback(invoke_without_command=True)
def adapters(context: typer.Context, as_json: Annotated[bool, JSON] = False) -> None:
    if context.invoked_subcommand is None:
        list_(as_json)


@app.command("list")
def list_(as_json: Annotated[bool, JSON] = False) -> None:
    """List the installed adapters, without importing any.

    The last column says what the report card that the package brings along holds for: these files,
    this core and this kit, or others.
    """
    found = catalog()
    headings = ("port", "name", "package", "version", "conformance")
    with Cards() as cards:
        rows = [
            (e.port, e.name, e.package, e.version, words_of(cards.of_adapter(e)))
            for e in found.entries
        ]
    if as_json:
        say_json(records(headings, rows))
    elif not rows:
        from ..adapters.known_packages import packages_of

        known = dict.fromkeys(name for port in PORT_NAMES for name in packages_of(port).values())
        short = [name.removeprefix("crucible-adapter-") for name in known]
        note(
            f"no adapter is installed; `crucible install {short[0]}` installs one, "
            f"of {', '.join(short)}"
        )
    else:
        table(headings, rows)
    if many := len(found.problems):
        note(f"{many} package(s) have malformed metadata; `crucible doctor` says which")
