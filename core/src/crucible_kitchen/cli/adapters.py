"""`crucible adapters`: which are installed. This imports little; `show` is in `adapter`."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from ..adapters import policy
from ..adapters.cards import Cards
from ..adapters.discovery import PORT_NAMES, Installed, catalog
from ..adapters.installed_card import words_of
from ..errors import CrucibleError
from .console import JSON, note, records, say_json, table
from .failures import note_malformed
from .later import group_of

FILES = ("crucible.toml", "pyproject.toml")
"""Where settings are in the current folder. A file that `$CRUCIBLE_CONFIG` names overrides both."""

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
    this core and this kit, or others; or that the table [plugins] forbids the adapter.
    """
    found = catalog()
    headings = ("port", "name", "package", "version", "conformance")
    with Cards() as cards:
        rows = [
            (e.port, e.name, e.package, e.version, words_of(cards.of_adapter(e)))
            for e in found.entries
        ]
    forbidden = _forbidden(found.entries)
    if as_json:
        listed = zip(records(headings, rows), forbidden, strict=True)
        say_json([{**record, "forbidden": why or None} for record, why in listed])
    elif not rows:
        from ..adapters.known_packages import packages_of

        known = dict.fromkeys(name for port in PORT_NAMES for name in packages_of(port).values())
        short = [name.removeprefix("crucible-adapter-") for name in known]
        note(
            f"no adapter is installed; `crucible install {short[0]}` installs one, "
            f"of {', '.join(short)}"
        )
    else:
        said = zip(rows, forbidden, strict=True)
        table(headings, [(*r[:-1], "forbidden by [plugins]") if why else r for r, why in said])
    note_malformed(found)


def _forbidden(entries: Sequence[Installed]) -> list[str]:
    """Return of each adapter what forbids it; "" if nothing does.

    Reading settings imports much that the list does not need, so it is left where none of them
    can have the table.
    """
    if _may_have_policy():
        try:
            return [policy.refusal(e.package, e.port, e.name) for e in entries]
        except CrucibleError as error:
            note(f"warning: what [plugins] forbids is not known: {error}")
    return [""] * len(entries)


def _may_have_policy() -> bool:
    if any(name.upper().startswith("CRUCIBLE_PLUGINS") for name in os.environ):
        return True
    chosen = os.environ.get("CRUCIBLE_CONFIG")
    try:
        if chosen:  # perhaps a pipe, which can be read only once
            return not os.path.isfile(chosen) or _mentions_plugins(chosen)
        return any(map(_mentions_plugins, filter(os.path.exists, FILES)))
    except (OSError, ValueError):
        return True  # what is wrong is said where the settings are read


def _mentions_plugins(file: str) -> bool:
    text = Path(file).read_text(encoding="utf-8")
    if "plugins" not in text:
        return False
    # The settings of other tools in a pyproject.toml mention plugins of their own.
    return file != "pyproject.toml" or "crucible" in tomllib.loads(text).get("tool", {})
