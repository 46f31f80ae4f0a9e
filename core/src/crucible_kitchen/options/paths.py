"""Paths in options, which mean the same for every adapter.

`~` is the home folder, and a relative path starts in the current working directory, wherever the
setting was written.
"""

from __future__ import annotations

import errno
import os
import stat
import tempfile
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator

from ..errors import explain_os_errors


def expand_home(path: str | Path) -> Path:
    """Return a path with the home folder in place of a leading `~` or `~user`.

    Raises:
        ValueError: the path is empty, or the home folder is not known, in which case libraries
            would create a folder named `~user`.
    """
    text = str(path)
    if not text.strip():
        raise ValueError("must not be empty; the current folder is '.'")
    # Path.expanduser() reads "./~", a folder of that name, as "~".
    expanded = os.path.expanduser(text)
    if text.startswith("~") and expanded == text:
        raise ValueError(
            f"{text!r} does not begin with a home folder; a folder of that name is './{text}'"
        )
    return Path(expanded)


def check_writable(folder: Path) -> None:
    """Check that files can be written to a folder, which need not exist yet.

    A small file is written and synced in it, or in the nearest folder above that exists. Nothing is
    left behind, not even after a kill on systems that have files without a name, such as Linux.

    Raises:
        AdapterError: files cannot be written; see `explain_os_errors`. The message names the
            folder, and `no_effect` is set.
    """
    folder = folder.absolute()
    with explain_os_errors(f"cannot write to the folder {folder}", no_effect=True):
        existing = _nearest(folder)
        try:
            with tempfile.TemporaryFile(prefix=".crucible-", dir=existing) as file:
                file.write(bytes(4096))  # a block, for which the disk must have space
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            error.filename = str(existing)  # not the random name of the temporary file
            raise


def _nearest(folder: Path) -> Path:
    for each in (folder, *folder.parents):
        try:
            is_folder = stat.S_ISDIR(each.stat().st_mode)
        except (FileNotFoundError, NotADirectoryError):
            if each.is_symlink():  # a link to nothing, in whose place no folder can be made
                raise
        else:
            if not is_folder:
                raise NotADirectoryError(errno.ENOTDIR, f"{each} is a file")
            return each
    return folder


def _expanded(value: Any) -> Any:
    # pydantic refuses values of other types.
    return expand_home(value) if isinstance(value, str | Path) else value


LocalPath = Annotated[Path, BeforeValidator(_expanded)]
"""The type of an option that is a file or folder of this machine, a `pathlib.Path`.

    class Options(AdapterOptions):
        folder: LocalPath = Path("blobs")

`~` and `~user` are expanded, in defaults, too; a relative path stays relative. Empty text, which
`Path` reads as the current folder, is refused.
"""
