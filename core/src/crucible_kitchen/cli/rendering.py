"""Packages made from templates: what a template says, and putting it where files may be already."""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
import sys
import tempfile
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import typer

from ..errors import ConfigurationError
from ..messages.printable import printable
from ..version import __version__

TEMPLATES = Path(__file__).parents[1] / "templates"


@contextlib.contextmanager
def rendered(template: str, target: Path, **answers: Any) -> Iterator[Path]:
    """Write a template to a temporary folder, and return that.

    Args:
        template: a folder of `templates/`.
        target: where it is going to be put.
        answers: what the template asks for.

    Raises:
        ConfigurationError: copier is not installed; nothing can be written to `target`, now or
            within the context.
    """
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
            data={"core_version": _minor(), **answers},
            defaults=True,
            quiet=True,
        )
        try:
            yield Path(made)
        except OSError as error:
            raise ConfigurationError(f"{target} cannot be written: {error.strerror}") from error


def put(made: Path, target: Path, only: Collection[Path] | None = None) -> list[Path]:
    """Copy files that were made to their place.

    Args:
        made: the folder in which they were made.
        target: the folder to copy them to.
        only: some of them, by paths relative to `made`; None is all.

    Returns:
        The existing ones that a person wanted to keep.

    Raises:
        ConfigurationError: files would be replaced, and there is no terminal to ask on.
    """
    files = files_in(made) if only is None else sorted(only)
    for path in files:
        if (target / path).exists() and not (target / path).is_file():
            raise ConfigurationError(f"{target / path} exists and is not a file")
    others = [
        path
        for path in files
        if (target / path).exists() and (target / path).read_bytes() != (made / path).read_bytes()
    ]
    if others and not sys.stdin.isatty():
        where = "the current folder" if target == Path() else target
        raise ConfigurationError(
            f"{where} has its own {', '.join(map(str, others))}; "
            "choose another folder with --folder, or run this on a terminal, where it asks before "
            "it replaces a file"
        )
    kept = [path for path in others if not _may_replace(target / path)]
    for path in files:
        if path not in kept:
            (target / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(made / path, target / path)
    return [target / path for path in kept]


def files_in(folder: Path) -> list[Path]:
    """Return the files below a folder, sorted, by paths relative to it."""
    return [path.relative_to(folder) for path in sorted(folder.rglob("*")) if path.is_file()]


def _may_replace(path: Path) -> bool:
    # Not copier's own question, which takes Enter for yes.
    return typer.confirm(f"{printable(str(path))} exists and differs. Replace it?", default=False)


def _minor() -> str:
    """Return the first version of this line of the core."""
    return ".".join(__version__.split(".")[:2])
