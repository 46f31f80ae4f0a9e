"""Files: those that users name, which may turn out to be pipes, folders or devices; the cache."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from pathlib import Path
from typing import BinaryIO


def cache_folder() -> Path:
    """Return the folder for what can be made again, which need not exist.

    It is `$CRUCIBLE_CACHE`; without that variable `crucible-kitchen` in `$XDG_CACHE_HOME`, by
    default `~/.cache`.

    Raises:
        RuntimeError: there is no home.
    """
    if own := os.environ.get("CRUCIBLE_CACHE"):
        return Path(own).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "crucible-kitchen"


def open_named(path: Path) -> BinaryIO:
    """Open a regular file, or a pipe below `/dev`, for reading.

    Such a pipe is one that a shell opened for the command: `/dev/stdin`, `<(...)`. Any other pipe
    may have no writer, and a device may have no end.

    Raises:
        OSError: it cannot be opened, or is of another kind; `strerror` says which.
    """
    try:
        mode = os.stat(path).st_mode
        if not (stat.S_ISREG(mode) or _is_of_a_shell(path, mode)):
            raise OSError(errno.EINVAL, f"it is {_kind(mode)}, not a file", str(path))
        return os.fdopen(os.open(path, os.O_RDONLY | os.O_CLOEXEC), "rb")
    except ValueError:  # a NUL, or characters that the locale cannot encode
        raise OSError(errno.EINVAL, "no file can have this name", str(path)) from None


def refuse_pipe(path: Path) -> None:
    """Refuse to write to a pipe that no shell opened: it may have no reader, and a write waits.

    Raises:
        OSError: the path is such a pipe.
    """
    with contextlib.suppress(FileNotFoundError):
        mode = os.stat(path).st_mode
        if stat.S_ISFIFO(mode) and not _is_of_a_shell(path, mode):
            raise OSError(errno.EINVAL, "it is a pipe, not a file", str(path))


def _is_of_a_shell(path: Path, mode: int) -> bool:
    return stat.S_ISFIFO(mode) and path.is_relative_to("/dev")


def _kind(mode: int) -> str:
    kinds = {
        stat.S_IFDIR: "a folder",
        stat.S_IFIFO: "a pipe",
        stat.S_IFSOCK: "a socket",
        stat.S_IFCHR: "a device",
        stat.S_IFBLK: "a device",
    }
    return kinds.get(stat.S_IFMT(mode), "something else")
