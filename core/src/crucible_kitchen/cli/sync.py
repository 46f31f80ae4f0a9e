"""`crucible sync`: an environment as a lock has it."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from ..errors import ConfigurationError
from ..installing.installer import Installer, shown
from ..installing.restoring import Plan, plan
from ..locking import Lock, pylock
from ..locking.environment import Environment
from ..locking.lock import differences
from ..locking.taking import added, as_is
from .console import fail, note, say, table
from .lock import FIND_LINKS

LISTED = 10
"""Requirements that are shown at most."""


def sync(
    file: Annotated[Path, typer.Argument(metavar="[FILE]", help="A pylock.toml.")] = Path(
        pylock.NAME
    ),
    find_links: Annotated[list[Path] | None, FIND_LINKS] = None,
    no_index: Annotated[
        bool, typer.Option("--no-index", help="Ask no index: all must be in files.")
    ] = False,
    python: Annotated[
        str | None,
        typer.Option(
            "--python",
            metavar="PYTHON",
            help="Install into the environment of this interpreter, which may be empty.",
        ),
    ] = None,
    prune: Annotated[
        bool, typer.Option("--prune", help="Uninstall plugins that are not in the lock.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print what would change; change nothing.")
    ] = False,
) -> None:
    """Install what a lock says, into the environment of this command.

    What is there already stays. What is not in the lock stays, too; --prune removes plugins.
    """
    if prune and python is not None:
        raise ConfigurationError("--prune removes plugins from the environment of this command")
    environment = Environment.here() if python is None else Environment.of(python)
    lock = pylock.read(file, environment.version)
    by_name = bool(find_links) or no_index
    now = as_is(lock, environment)
    wanted = plan(lock, now, by_name=by_name, here=python is None)
    _show(wanted, prune)
    pruned = wanted.surplus if prune else ()
    if wanted.lines or pruned:
        if dry_run:
            for each in added(lock, environment):
                note(each)
            return
        _change(Installer.of(environment), wanted, pruned, find_links or [], no_index)
        now = as_is(lock, environment)
    _check(lock, now, environment)


def _change(
    installer: Installer, wanted: Plan, pruned: Sequence[str], folders: list[Path], no_index: bool
) -> None:
    options = [f"--find-links={folder.resolve()}" for folder in folders]
    if no_index or (wanted.lines and wanted.needs_no_index):
        options.append("--no-index")
    options += installer.reinstalling(altered=wanted.altered)
    # One with a hash makes the installer ask for a hash of each in the same file.
    for lines in (wanted.hashed, wanted.plain):
        if lines:
            _install(installer, lines, options)
    if pruned:
        _run(installer, installer.line("uninstall", *pruned))


def _show(wanted: Plan, prune: bool) -> None:
    rows = [(name, before or "-", after) for name, before, after in wanted.changes]
    if prune:
        rows += [(name, "installed", "-") for name in wanted.surplus]
    if rows:
        table(("distribution", "is", "becomes"), rows)
    if wanted.surplus and not prune:
        note(f"not in the lock, and kept: {', '.join(wanted.surplus)}; --prune removes them")


def _install(installer: Installer, lines: Sequence[str], options: Sequence[str]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "requirements.txt"
        file.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
        # The file is gone when someone reads the command.
        asked = [line.partition(" --hash=")[0] for line in lines[:LISTED]]
        more = [f"and {len(lines) - LISTED:,} more"] if len(lines) > LISTED else []
        note("\n    ".join(["in requirements.txt, hashes left out here:", *asked, *more]))
        _run(installer, installer.line("install", "--no-deps", *options, "-r", str(file)))


def _run(installer: Installer, line: Sequence[str]) -> None:
    note(f"$ {shown(line)}")
    if code := installer.run(line):
        fail(
            f"{installer.name} failed, perhaps after a part was installed: `crucible sync "
            "--dry-run` says what is still missing"
        )
        raise typer.Exit(code)


def _check(lock: Lock, now: Lock, environment: Environment) -> None:
    """Fail where what is installed now is not what is locked; else say that it is."""
    wrong = [*differences(lock, now), *added(lock, environment)]
    if wrong:
        fail("what is installed is not what is locked:" + "".join(f"\n  - {w}" for w in wrong))
        raise typer.Exit(1)
    say("everything is installed as it is locked")
