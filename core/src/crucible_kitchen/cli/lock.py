"""`crucible lock`: what the kitchen is made of, as a pylock.toml."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from ..errors import ConfigurationError
from ..history import stored
from ..installing import origins
from ..installing.installer import Installer
from ..locking import Lock, pylock, sources, take, unlike
from ..locking.environment import Environment
from ..settings import Settings
from .arguments import ARGUMENTS, PROFILE, opened, read
from .console import note, say

FIND_LINKS: Any = typer.Option(
    "--find-links", "-f", metavar="FOLDER", help="Look for wheels in FOLDER; may be repeated."
)
MANY = 3
"""Names that are listed of what a lock cannot say."""


def lock(
    arguments: Annotated[list[str] | None, ARGUMENTS] = None,
    profile: Annotated[str | None, PROFILE] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE",
            help="Where to write it; by default pylock.toml next to crucible.toml.",
        ),
    ] = None,
    find_links: Annotated[list[Path] | None, FIND_LINKS] = None,
    index: Annotated[
        bool,
        typer.Option("--index", help="Ask the index of pip or uv where the rest comes from."),
    ] = False,
    from_run: Annotated[
        str | None,
        typer.Option("--from-run", metavar="RUN", help="Restore the lock that a run has recorded."),
    ] = None,
    check: Annotated[
        bool, typer.Option("--check", help="Write nothing; say what differs from the lock.")
    ] = False,
) -> None:
    """Write down what the kitchen is made of: a pylock.toml.

    The file has the distributions of everything that the configuration names, in any profile, and
    of all that they require: versions, digests of their files, and where they come from. By default
    that is only what is known here, without a network.
    """
    settings = read(arguments or [], profile)
    if not settings.values:
        raise ConfigurationError(
            "nothing is configured here, so there is nothing to lock; name a crucible.toml"
        )
    file = output or beside(settings)
    if check:
        others = {"--index": index, "--from-run": from_run, "--find-links": find_links}
        if given := [option for option, value in others.items() if value]:
            raise ConfigurationError(f"--check writes nothing: leave out {given[0]}")
        refuse_unlike(file, settings, thorough=True)
        say(f"everything is as {file} says")
        return
    if from_run is not None:
        if output is None and file.exists():
            raise ConfigurationError(
                f"{file} is there already: write the lock of the run to another file, such as "
                "-o pylock.run.toml"
            )
        found = _of_run(settings, from_run)
    else:
        taken = take(settings)
        found = taken.lock
        for each in taken.missing:
            note(f"not locked: {each}")
        for each in taken.local:
            note(f"not locked: {each}, which is in no distribution")
    found = _with_sources(found, find_links or [], index, file)
    pylock.write(found, file)
    say(f"{file}: {len(found.packages)} distributions, {len(found.plugins)} plugins")
    _note_unknown(found)


def beside(settings: Settings) -> Path:
    """Return the path of the lock next to the file of settings."""
    folder = settings.files[0].parent if settings.files else Path()
    return folder / pylock.NAME


def refuse_unlike(file: Path, settings: Settings, *, thorough: bool = False) -> None:
    """Refuse to go on where what is there is not what a lock says.

    Args:
        file: the lock's.
        settings: merged settings.
        thorough: whether the files of all distributions are read.

    Raises:
        ConfigurationError: there is no lock, or something differs; the message says what.
    """
    found = unlike(pylock.read(file), settings, thorough=thorough)
    if found:
        listed = "".join(f"\n  - {each}" for each in found)
        raise ConfigurationError(
            f"what is there is not what {file} says:{listed}\n"
            f"`crucible sync{_named(file)}` installs what is locked; `crucible lock` with the same "
            f"settings{_named(file, ' and -o')} locks what is chosen and installed"
        )


def _of_run(settings: Settings, run_id: str) -> Lock:
    with opened(settings) as kitchen:
        run = stored.get(kitchen, run_id)
        if run.record is None:
            raise ConfigurationError(f"the run {run_id!r}: {run.problem or run.status}")
        try:
            return Lock.of_record(run.record.lock)
        except ValueError:
            why = "has no lock" if run.record.lock is None else "has a damaged lock"
            raise ConfigurationError(f"the record of the run {run_id!r} {why}") from None


def _named(file: Path, before: str = "") -> str:
    """Return the argument that names a lock, where it is not the usual one."""
    return "" if file.name == pylock.NAME else f"{before} {file}"


def _with_sources(found: Lock, folders: list[Path], index: bool, file: Path) -> Lock:
    """Return a lock with what the folders, the file so far, and the index know of its sources."""
    wanted = {n: (p.version, p.digest) for n, p in found.packages.items() if not p.editable}
    found = found.with_sources(sources.in_folders(folders, wanted))
    if file.exists():
        before = pylock.read(file).packages
        found = found.with_sources(
            {
                name: before[name].source
                for name in found.sourceless
                if name in before and wanted[name][1] and before[name].digest == wanted[name][1]
            }
        )
    if index:
        installer = Installer.of(Environment.here())
        found = found.with_sources(origins.find(installer, found, found.sourceless))
    return found


def _note_unknown(found: Lock) -> None:
    if editable := [name for name, one in found.packages.items() if one.editable]:
        note(f"{_some(editable)} in editable form: the files may change, which no lock notices")
    if blank := [n for n, one in found.packages.items() if not one.digest and not one.editable]:
        note(f"the hashes of the files of {_some(blank)} are not known, so only versions count")
    if cut := found.cut:
        note(f"the query in the URL of {_some(cut)} may hold a secret, and is not written")
    if unknown := found.sourceless:
        note(
            f"where {_some(unknown)} came from is not known here: `crucible sync` looks for the "
            "version and compares the files; for other tools add --index, or --find-links FOLDER"
        )


def _some(names: list[str]) -> str:
    more = len(names) - MANY
    return ", ".join(names[:MANY]) + (f" and {more:,} more" if more > 0 else "")
