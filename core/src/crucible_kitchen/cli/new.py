"""`crucible new`: a package to start from: an adapter, a workflow, or an environment."""

from __future__ import annotations

import keyword
import re
from pathlib import Path
from typing import Annotated, Any

import typer

from ..errors import ConfigurationError
from ..extent import unfit
from ..messages.spelling import did_you_mean
from ..ports import PORTS
from .added import add_ports
from .console import note
from .rendering import put, rendered

app = typer.Typer(help="Start a package.", rich_markup_mode=None, no_args_is_help=True)

LONGEST = 100
"""Letters that a name may have, so that the names of files and folders have room for it."""


@app.callback()
def new() -> None:
    pass


FOLDER = typer.Option(help="Where to write it; default: a folder of its name.", show_default=False)
AUTHOR = typer.Option(help="Who publishes it: 'Name <mail@example.org>'.", show_default=False)


@app.command()
def adapter(
    name: Annotated[
        str | None,
        typer.Argument(help="How users will name it, such as acme.", show_default=False),
    ] = None,
    port: Annotated[
        list[str] | None,
        typer.Option("--port", help="A port that it serves; may be given several times."),
    ] = None,
    add: Annotated[
        list[str] | None,
        typer.Option(
            "--add",
            metavar="PORT",
            help="Serve this port, too, from the package in the current folder, or in --folder.",
        ),
    ] = None,
    folder: Annotated[Path | None, FOLDER] = None,
    author: Annotated[str, AUTHOR] = "",
) -> None:
    """Write a package that serves ports and passes their conformance suites.

    With --add, write what a port needs into a package that exists: its module, its suite, its
    entry points. A file that is there and differs is replaced only if you say so when asked;
    where there is no terminal to ask on, nothing is written.
    """
    if add:
        if port or author:
            raise ConfigurationError(
                f"--add changes a package that exists, so {'--port' if port else '--author'} "
                "has no place; name every port by --add"
            )
        add_ports(folder or Path(), _checked(add, "--add"), name)
        return
    if name is None:
        raise ConfigurationError("name the adapter, as in `crucible new adapter acme --port ...`")
    _check_name(name)
    _write("adapter", name, folder, author, ports=_checked(port or []))


@app.command()
def workflow(
    name: Annotated[str, typer.Argument(help="How users will name it, such as best-of-n.")],
    folder: Annotated[Path | None, FOLDER] = None,
    author: Annotated[str, AUTHOR] = "",
) -> None:
    """Write a package with a workflow: an algorithm of three methods, and its tests on noops.

    A file that is there and differs is replaced only if you say so when asked; where there is no
    terminal to ask on, nothing is written.
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

    A file that is there and differs is replaced only if you say so when asked; where there is no
    terminal to ask on, nothing is written.
    """
    _check_name(name)
    _write("environment", name, folder, author)


def _write(template: str, name: str, folder: Path | None, author: str, **answers: Any) -> None:
    """Write a package from a template, and say what comes next.

    Args:
        template: a folder of `templates/`; its packages are called crucible-TEMPLATE-NAME.
        name: how users will name it.
        folder: where to write it, if not to a folder of the package's name.
        author: who publishes it, `Name <mail>`.
        answers: what else the template asks for.
    """
    target = folder or Path(f"crucible-{template}-{name}")
    with rendered(template, target, name=name, **_author(author), **answers) as made:
        kept = put(made, target)
    for path in kept:
        note(f"kept {path} as it was")
    note(
        f'wrote {target}; to work on it\n\n    cd {target}\n    pip install -e ".[dev]"\n    pytest'
    )


def _author(author: str) -> dict[str, str]:
    """Return the name and the mail address in `Name <mail>`, either of which may be missing."""
    for _, why in unfit(author):
        raise ConfigurationError(f"--author {why}")
    found = re.fullmatch(
        r"(?P<author>[^<>]*?)\s*(<(?P<email>[^<>@\s]+@[^<>@\s]+)>)?", author.strip()
    )
    if found is None:
        raise ConfigurationError(
            f"--author: {author!r} is not a name and an address; write 'Name <mail@example.org>'"
        )
    return {name: text or "" for name, text in found.groupdict().items()}


def _check_name(name: str) -> None:
    if len(name) > LONGEST:
        raise ConfigurationError(f"{name[:20]!r}... has more than {LONGEST} letters")
    if not re.fullmatch(r"[a-z][a-z0-9]*(-[a-z0-9]+)*", name):
        raise ConfigurationError(
            f"{name!r} cannot be the name of a package; use lower-case letters, digits and single "
            "hyphens, and begin with a letter"
        )


def _checked(ports: list[str], option: str = "--port") -> list[str]:
    known = ", ".join(PORTS)
    if not ports:
        raise ConfigurationError(f"name the ports with {option}: {known}")
    for port in ports:
        if port not in PORTS:
            hint = did_you_mean(port, PORTS) or f"; there are {known}"
            raise ConfigurationError(f"there is no port {port!r}{hint}")
    return [port for port in PORTS if port in ports]
