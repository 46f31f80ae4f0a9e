"""`crucible runs`: runs that were, and are: listed, shown, compared, drawn, exported, deleted.

| module | its commands |
| --- | --- |
| `looking` | `list`, `show`, `compare` |
| `files` | `export`, `plot` |
| `deleting` | `delete` |
| `words` | which of a command's words are runs |
"""

from __future__ import annotations

from typing import Any

import typer

from ..later import Lists
from . import deleting, files, looking
from .words import begins_settings


class ListsOfFiles(Lists):
    """A group whose list may be given a FILE and settings without its name."""

    def resolve_command(self, context: Any, arguments: list[str]) -> Any:
        if begins_settings(arguments[0]):
            arguments = ["list", *arguments]
        return super().resolve_command(context, arguments)


app = typer.Typer(
    help="List runs; show, compare, plot, export or delete them.",
    cls=ListsOfFiles,
    rich_markup_mode=None,
)


@app.callback(invoke_without_command=True)
def runs(context: typer.Context) -> None:
    if context.invoked_subcommand is None:
        looking.list_([], None, False)


app.command("list")(looking.list_)
app.command("show")(looking.show)
app.command("compare")(looking.compare)
app.command("plot")(files.plot)
app.command("export")(files.export)
app.command("delete")(deleting.delete)
