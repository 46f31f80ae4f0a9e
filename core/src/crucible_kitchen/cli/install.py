"""`crucible install`, `uninstall` and `upgrade`: plugins, with pip or uv."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from ..adapters import policy
from ..adapters.discovery import GROUPS, catalog
from ..errors import ConfigurationError
from ..installing import names as meant
from ..installing.installer import Installer, shown
from ..locking.environment import Environment
from ..locking.plugins import called
from .console import note, say, without_secrets
from .lock import FIND_LINKS

NAMES: Any = typer.Argument(
    metavar="NAME",
    help="Adapters, environments and observers, such as fsspec or blob_store.fsspec; or their "
    "distributions.",
    show_default=False,
)
NO_INDEX: Any = typer.Option("--no-index", help="Ask no index: all must be in files.")
DRY_RUN: Any = typer.Option("--dry-run", help="Print what would be run, and stop.")


def install(
    names: Annotated[list[str], NAMES],
    find_links: Annotated[list[Path] | None, FIND_LINKS] = None,
    no_index: Annotated[bool, NO_INDEX] = False,
    dry_run: Annotated[bool, DRY_RUN] = False,
) -> None:
    """Install plugins, with pip or uv.

    They go into the environment of this command: with uv if uv made it, else with pip. The index is
    that of pip or uv: PIP_INDEX_URL, UV_INDEX_URL and their files of settings apply.
    """
    options = _options(find_links, no_index)
    _run("install", [*options, *meant.to_install(names, find_links or [])], dry_run)


def upgrade(
    names: Annotated[list[str], NAMES],
    find_links: Annotated[list[Path] | None, FIND_LINKS] = None,
    no_index: Annotated[bool, NO_INDEX] = False,
    dry_run: Annotated[bool, DRY_RUN] = False,
) -> None:
    """Upgrade plugins to their newest releases.

    If a release needs a newer core, the core is upgraded with it.
    """
    options = _options(find_links, no_index)
    _run("install", ["--upgrade", *options, *meant.to_upgrade(names)], dry_run)


def uninstall(
    names: Annotated[list[str], NAMES], dry_run: Annotated[bool, DRY_RUN] = False
) -> None:
    """Uninstall plugins.

    What they required stays.
    """
    _run("uninstall", meant.installed(names), dry_run)


def _options(find_links: list[Path] | None, no_index: bool) -> list[str]:
    options = [f"--find-links={folder.resolve()}" for folder in find_links or []]
    return [*options, "--no-index"] if no_index else options


def _run(subcommand: str, arguments: Sequence[str], dry_run: bool) -> None:
    installer = Installer.of(Environment.here())
    line = installer.line(subcommand, *arguments)
    if dry_run:
        say(without_secrets(shown(line)))
        return
    note(f"$ {shown(line)}")
    before = _plugins()
    if code := installer.run(line):
        raise typer.Exit(code)
    after, forbidden = _plugins(), _forbidden()
    for plugin, about in after.items():
        if before.get(plugin) != about:
            say(f"{plugin} ({about})")
            if why := forbidden.get(plugin):
                note(f"{plugin} may not be loaded: {why}")
    for plugin in sorted(before.keys() - after.keys()):
        say(f"{plugin} is gone")
    if before == after:
        note("no plugin was added, changed or removed")


def _forbidden() -> dict[str, str]:
    """Return why each installed plugin may not be loaded that may not."""
    found: dict[str, str] = {}
    with contextlib.suppress(ConfigurationError):  # in settings that have nothing to do with it
        for entry in (entry for group in GROUPS for entry in catalog(group).entries):
            if why := policy.refusal(entry.package, entry.port, entry.name):
                found[called(entry)] = why
    return found


def _plugins() -> dict[str, str]:
    """Return the distribution and version of each installed plugin."""
    return {
        called(entry): f"{entry.package} {entry.version}"
        for group in GROUPS
        for entry in catalog(group).entries
    }
