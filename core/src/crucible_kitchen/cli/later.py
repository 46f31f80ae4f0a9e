"""Commands that are imported when they are used: a help, or another command, needs only the names.

What all of them import takes three times as long as a list of what is installed.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup


class Later(TyperCommand):
    """A command, or a group of commands, of a module that is not imported yet.

    Args:
        name: the command's name.
        place: `module:name` in the package of the command; the name is that of a function, or of
            a `Typer` with several.
        summary: what the list of commands says of it: the first paragraph of its help.
    """

    def __init__(self, name: str, place: str, summary: str) -> None:
        super().__init__(name, help=summary, rich_markup_mode=None)
        self._place = place

    def load(self) -> Any:
        """Import it; return the command."""
        module, _, name = self._place.partition(":")
        found = getattr(import_module(f".{module}", __package__), name)
        if isinstance(found, typer.Typer):
            made: Any = typer.main.get_group(found)
        else:
            alone = typer.Typer(add_completion=False, rich_markup_mode=None)
            alone.command(self.name)(found)
            made = typer.main.get_command(alone)
        made.name = self.name
        return made

    def make_context(self, *about: Any, **more: Any) -> Any:
        # The group runs the command of the context that it gets, which is that of the other.
        return self.load().make_context(*about, **more)


class Lists(TyperGroup):
    """A group that lists what there is, and may have a command `show`, which people leave out."""

    def resolve_command(self, context: Any, arguments: list[str]) -> Any:
        try:
            return super().resolve_command(context, arguments)
        except Exception as error:
            # Typer names the class of usage errors differently in some versions.
            said = getattr(error, "message", None)
            if "show" in self.commands and isinstance(said, str) and "Did you mean" not in said:
                how = f"{context.command_path} show {arguments[0]}"
                error.message = f"{said.rstrip('.')}; `{how}` shows one"  # type: ignore[attr-defined]
            raise


def group_of(commands: Mapping[str, tuple[str, str]]) -> type[TyperGroup]:
    """Return the class of a group that also has these commands: place and summary of each name."""

    class Group(Lists):
        def __init__(self, **about: Any) -> None:
            super().__init__(**about)
            for name, (place, summary) in commands.items():
                self.add_command(Later(name, place, summary))

    return Group
