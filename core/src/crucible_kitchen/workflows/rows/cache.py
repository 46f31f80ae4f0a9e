"""Rendered rows that are kept, so that the next start of the same rows is instant.

A file for each set of rows, named by a digest of everything that the rendering depends on, in the
folder `$CRUCIBLE_CACHE/rendered`; without that variable, in `crucible-kitchen/rendered` of
`$XDG_CACHE_HOME`, by default `~/.cache`. A file appears whole or not at all, so any number of
processes may use the folder. A damaged file is made again. Beyond `LARGEST` bytes, files that were
not used for a week are removed, those not used for the longest time first.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any, TypeAlias

from ...errors import Unavailable, explain_os_errors
from ...files import cache_folder
from .sequences import Sequences, Writer, read

LARGEST = 10 * 2**30
"""Bytes that the files in the folder may have together."""

_SUFFIX, _UNFINISHED = ".rows", ".part"
_ABANDONED = 24 * 3600.0  # seconds since an unfinished file was last written to
_IN_USE = 7 * 24 * 3600.0  # seconds since its last use for which no file is removed

Fill: TypeAlias = Callable[[Writer], Mapping[str, Any]]
"""Writes sequences, and returns what is kept with them."""


def folder() -> Path:
    """Return the folder of rendered rows, which need not exist."""
    return cache_folder() / "rendered"


def kept(key: str, fill: Fill) -> Sequences:
    """Return the sequences of a key from the folder; if it has none, those that `fill` writes.

    Args:
        key: a digest of everything that the sequences depend on.
        fill: makes them.
    """
    path = folder() / f"{key}{_SUFFIX}"
    if (found := _found(path)) is not None:
        with contextlib.suppress(OSError):  # of a folder that may only be read
            os.utime(path)
        return found
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        unfinished = tempfile.NamedTemporaryFile(  # noqa: SIM115
            dir=path.parent, suffix=_UNFINISHED, delete=False
        )
    except OSError:  # a home that cannot be written to
        return unkept(fill)
    made = Path(unfinished.name)
    try:
        with unfinished:
            sequences = _filled(unfinished, fill, path.parent)
    except Unavailable:  # no space; where temporary files are there may be some
        made.unlink(missing_ok=True)
        return unkept(fill)
    except BaseException:
        made.unlink(missing_ok=True)
        raise
    # The sequences are complete and mapped, whatever becomes of the folder. A file that another
    # process made meanwhile stays: it may be mapped on a machine that would lose it.
    with contextlib.suppress(OSError):
        if _found(path) is None:
            made.replace(path)
        else:
            made.unlink()
        _make_room(path)
    return sequences


def _found(path: Path) -> Sequences | None:
    # Whatever is wrong with the file, the rows can be rendered again.
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError), path.open("rb") as file:
        return read(file)
    return None


def unkept(fill: Fill) -> Sequences:
    """Return the sequences that `fill` writes, in a file that vanishes with the process."""
    with tempfile.TemporaryFile() as file:
        return _filled(file, fill, Path(tempfile.gettempdir()))


def _filled(file: IO[bytes], fill: Fill, where: Path) -> Sequences:
    with explain_os_errors(f"cannot write rendered rows to {where}"):
        writer = Writer(file)
        about = fill(writer)
        return writer.finish(about)


def _make_room(newest: Path) -> None:
    """Remove what killed processes left, and the oldest files beyond `LARGEST` bytes."""
    files = sorted(_files(newest.parent), key=lambda file: file[1], reverse=True)
    total = 0
    for path, used, size in files:
        total += size
        abandoned = path.suffix == _UNFINISHED and time.time() - used > _ABANDONED
        # On a network file system another machine may have a file mapped, and would lose it.
        unused = time.time() - used > _IN_USE and path.suffix == _SUFFIX
        if abandoned or (total > LARGEST and path != newest and unused):
            with contextlib.suppress(OSError):
                path.unlink()


def _files(where: Path) -> Iterator[tuple[Path, float, int]]:
    for path in where.iterdir():
        if path.suffix in (_SUFFIX, _UNFINISHED):
            with contextlib.suppress(OSError):  # removed by another process
                about = path.stat()
                yield path, about.st_mtime, about.st_size
