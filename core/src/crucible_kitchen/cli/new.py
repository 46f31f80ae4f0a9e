"""`crucible new`: a package to start from: an adapter, a workflow, or an environment."""

from __future__ import annotations

import keyword
import os
import re
import shutil
import stat
import sys
import tempfile
from pathlib import Path
from typing import Annotated, Any

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


FOLDER = typer.Option(help="Where to write it; default: a folder of its name.", show_default=False)
AUTHOR = typer.Option(help="Who publishes it.")


@app.command()
def adapter(
    name: Annotated[str, typer.Argument(help="How users will name it, such as acme.")],
    port: Annotated[
        list[str] | None,
        typer.Option("--port", help="A port that it serves; may be given several times."),
    ] = None,
    folder: Annotated[Path | None, FOLDER] = None,
    author: Annotated[str, AUTHOR] = "",
) -> None:
    """Write a package that serves ports and passes their conformance suites.

    An existing file that differs is replaced only after asking.
    """
    _check_name(name)
    _write("adapter", name, folder, author, ports=_checked(port or []))


@app.command()
def workflow(
    name: Annotated[str, typer.Argument(help="How users will name it, such as best-of-n.")],
    folder: Annotated[Path | None, FOLDER] = None,
    author: Annotated[str, AUTHOR] = "",
) -> None:
    """Write a package with a workflow: an algorithm of three methods, and its tests on noops.

    An existing file that differs is replaced only after asking.
    """
    _check_name(name)
    if keyword.iskeyword(name) or name == "train":
        raise ConfigurationError(
            f"{name!r} cannot be the name of a function, which a workflow is; choose another"
        )
    _write("workflow", name, folder, author)


@app.command()
def environment(
    name: Annotated[str, typer.Argument(help="How users will name it, such as maze.")],
    folder: Annotated[Path | None, FOLDER] = None,
    author: Annotated[str, AUTHOR] = "",
) -> None:
    """Write a package with an environment that passes its conformance suite.

    An existing file that differs is replaced only after asking.
    """
    _check_name(name)
    _write("environment", name, folder, author)


def _write(template: str, name: str, folder: Path | None, author: str, **answers: Any) -> None:
    """Write a package from a template, and say what comes next.

    Args:
        template: a folder of `templates/`; its packages are called crucible-TEMPLATE-NAME.
        name: how users will name it.
        folder: where to write it, if not to a folder of the package's name.
        author: who publishes it.
        answers: what else the template asks for.
    """
    for _, why in unfit(author):
        raise ConfigurationError(f"--author {why}")
    target = folder or Path(f"crucible-{template}-{name}")
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
            str(TEMPLATES / template),
            made,
            data={"name": name, "author": author, "core_version": _minor(), **answers},
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


def _check_name(name: str) -> None:
    if len(name) > LONGEST:
        raise ConfigurationError(f"{name[:20]!r}... has more than {LONGEST} letters")
    if not re.fullmatch(r"[a-z][a-z0-9]*(-[a-z0-9]+)*", name):
        raise ConfigurationError(
            f"{name!r} cannot be the name of a package; use lower-case letters, digits and single "
            "hyphens, and begin with a letter"
        )


def _checked(ports: list[str]) -> list[str]:
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
