"""`crucible workflows`, `environments` and `observers`: what is installed, and its settings."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Annotated, Any

import typer
from pydantic import BaseModel

from ..adapters import finding
from ..adapters.discovery import ENVIRONMENTS, KINDS, OBSERVERS, WORKFLOWS, catalog
from ..configuration import chosen
from ..errors import CrucibleError
from ..observers.installed import options_class as options_of_observer
from ..workflows import registry
from .console import JSON, note, say, say_json, table
from .failures import note_malformed
from .fields import described_fields, doc_of, in_one_line
from .later import Lists
from .styled import Text, console

FOR_CALLERS = ("Args:", "Attributes:", "Raises:", "Returns:", "Yields:")
"""Sections of docstrings that are about calls, which are not shown."""


@dataclass(frozen=True, slots=True)
class _Row:
    name: str
    package: str
    version: str
    description: str
    problem: str | None = None


def commands(group: str, settings: Callable[[Any], type[BaseModel] | None], setting: str) -> Any:
    """Return the commands of an entry-point group: its list, and one entry.

    Args:
        group: the group.
        settings: returns the class of an entry's settings, or None.
        setting: what one of these is called.
    """
    kind = KINDS[group]
    app = typer.Typer(
        help=f"List the installed {kind}s, or show one.", cls=Lists, rich_markup_mode=None
    )

    @app.callback(invoke_without_command=True)
    def main(context: typer.Context, as_json: Annotated[bool, JSON] = False) -> None:
        if context.invoked_subcommand is None:
            _list(group, as_json)

    @app.command("list", help=f"List the installed {kind}s, each of which is imported.")
    def list_(as_json: Annotated[bool, JSON] = False) -> None:
        _list(group, as_json)

    @app.command(help=f"Show what {_a(kind)} is, and its {setting}s.")
    def show(
        name: Annotated[
            str,
            typer.Argument(help="An installed one, or where it is: module:name, file.py:name."),
        ],
        as_json: Annotated[bool, JSON] = False,
    ) -> None:
        found = finding.find(group, name)
        model = settings(found.value)
        if as_json:
            say_json(_plain(found, name, model, setting))
        else:
            _show(found, name, model, setting)

    return app


def _a(kind: str) -> str:
    return f"an {kind}" if kind[0] in "aeio" else f"a {kind}"


def _list(group: str, as_json: bool) -> None:
    found = catalog(group)
    rows = [_row(entry) for entry in found.entries]
    if as_json:
        say_json([asdict(row) for row in rows])
    elif rows:
        headings = ("name", "package", "version", "what it does")
        table(headings, [(r.name, r.package, r.version, r.problem or r.description) for r in rows])
    else:
        note(f"no {KINDS[group]} is installed")
    note_malformed(found)


def _row(entry: Any) -> _Row:
    """Import an entry for its docstring; of one that cannot be imported, say why."""
    about = entry.name, entry.package, entry.version
    try:
        return _Row(*about, description=_first(doc_of(entry.load())))
    except CrucibleError as error:
        return _Row(*about, description="", problem=str(error))


def _first(doc: str) -> str:
    return in_one_line(doc.split("\n\n")[0])


def _plain(
    found: finding.Found, name: str, model: type[BaseModel] | None, setting: str
) -> dict[str, Any]:
    keys = ("name", "type", "default", "meaning")
    fields = [] if model is None else described_fields(model)
    return {
        "name": name,
        "package": found.package,
        "version": found.version,
        "description": doc_of(found.value),
        f"{setting}s": [dict(zip(keys, field, strict=True)) for field in fields],
    }


def _show(found: finding.Found, name: str, model: type[BaseModel] | None, setting: str) -> None:
    out = console()
    out.print(Text(name, style="bold"))
    if found.package is not None:
        out.print(Text(f"{found.package} {found.version}"))
    for paragraph in doc_of(found.value).split("\n\n"):
        if paragraph and not paragraph.startswith(FOR_CALLERS):
            out.print(Text(f"\n{in_one_line(paragraph)}"))
    say()
    if model is not None and model.model_fields:
        table((setting, "type", "default", "meaning"), described_fields(model))
    else:
        say(f"no {setting}s")


workflows = commands(WORKFLOWS, registry.config_class, "setting")
environments = commands(ENVIRONMENTS, chosen.options_class, "option")
observers = commands(OBSERVERS, lambda made: options_of_observer(made, "it"), "option")
