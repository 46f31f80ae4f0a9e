"""`crucible new`: a package to start an adapter from."""

from __future__ import annotations

import os
import re
import shutil
import stat
import sys
import tempfile
from pathlib import Path
from typing import Annotated

import typer

from ..errors import ConfigurationError
from ..extent import unfit
from ..messages.printable import printable
from ..ports import PORTS
from ..version import __version__
from .console import note

app = typer.Typer(help="Start a package.", rich_markup_mode=None, no_args_is_help=True)

LONGEST = 100
"""Letters that a name may have, so that the names of files and folders have room for it."""

TEMPLATES = Path(__file__).parents[1] / "templates"


@app.callback()
def new() -> None:
    pass


@app.command()
def adapter(
    name: Annotated[str, typer.Argument(help="How users will name it, such as acme.")],
    port: Annotated[
        list[str] | None,
        typer.Option("--port", help="A port that it serves; may be given several times."),
    ] = None,
    folder: Annotated[
        Path | None,
        typer.Option(help="Where to write it; default: crucible-adapter-NAME.", show_default=False),
    ] = None,
    author: Annotated[str, typer.Option(help="Who publishes it.")] = "",
) -> None:
    """Write a package that serves ports and passes their conformance suites.

    An existing file that differs is replaced only after asking.
    """
    ports = _checked(name, port or [])
    for _, why in unfit(author):
        raise ConfigurationError(f"--author {why}")
    target = folder or Path(f"crucible-adapter-{name}")
    try:
        if not stat.S_ISDIR(os.stat(target).st_mode):
            raise ConfigurationError(
                f"{target} exists and is not a folder; choose another with --folder"
            )
    except FileNotFoundError:
        pass
    except OSError as error:
        raise ConfigurationError(f"{target} cannot be written: {error.strerror}") from None
    try:
        import copier
    except ImportError as error:
        raise ConfigurationError(
            "`crucible new` needs copier: pip install 'crucible-kitchen[new]'"
        ) from error
    with tempfile.TemporaryDirectory() as made:
        copier.run_copy(
            str(TEMPLATES / "adapter"),
            made,
            data={"name": name, "ports": ports, "author": author, "core_version": _minor()},
            defaults=True,
            quiet=True,
        )
        try:
            kept = _put(Path(made), target)
        except OSError as error:
            raise ConfigurationError(f"{target} cannot be written: {error.strerror}") from error
    for path in kept:
        note(f"kept {path} as it was")
    note(
        f'wrote {target}; to work on it\n\n    cd {target}\n    pip install -e ".[dev]"\n    pytest'
    )


def _put(made: Path, target: Path) -> list[Path]:
    """Copy the files that were made to their place; return the existing ones that are kept.

    Raises:
        ConfigurationError: files would be replaced, and there is no terminal to ask on.
    """
    files = [path.relative_to(made) for path in sorted(made.rglob("*")) if path.is_file()]
    for path in files:
        if (target / path).exists() and not (target / path).is_file():
            raise ConfigurationError(f"{target / path} exists and is not a file")
    others = [
        path
        for path in files
        if (target / path).exists() and (target / path).read_bytes() != (made / path).read_bytes()
    ]
    if others and not sys.stdin.isatty():
        raise ConfigurationError(
            f"{target} has its own {', '.join(map(str, others))}; "
            "choose another folder with --folder"
        )
    kept = [path for path in others if not _may_replace(target / path)]
    for path in files:
        if path not in kept:
            (target / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(made / path, target / path)
    return [target / path for path in kept]


def _may_replace(path: Path) -> bool:
    # Not copier's own question, which takes Enter for yes.
    return typer.confirm(f"{printable(str(path))} exists and differs. Replace it?", default=False)


def _checked(name: str, ports: list[str]) -> list[str]:
    if len(name) > LONGEST:
        raise ConfigurationError(f"{name[:20]!r}... has more than {LONGEST} letters")
    if not re.fullmatch(r"[a-z][a-z0-9]*(-[a-z0-9]+)*", name):
        raise ConfigurationError(
            f"{name!r} cannot be the name of a package; use lower-case letters, digits and single "
            "hyphens, and begin with a letter"
        )
    known = ", ".join(PORTS)
    if not ports:
        raise ConfigurationError(f"name the ports with --port: {known}")
    for port in ports:
        if port not in PORTS:
            raise ConfigurationError(f"there is no port {port!r}; there are {known}")
    return [port for port in PORTS if port in ports]


def _minor() -> str:
    """Return the first version of this line of the core."""
    return ".".join(__version__.split(".")[:2])
