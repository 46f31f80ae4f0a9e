"""Paths in options, which mean the same for every adapter.

`~` is a home folder, and a relative path begins in the current working directory, wherever the
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

from .errors import explain_os_errors


def expand_home(path: str | Path) -> Path:
    """Return a path with the home folder in place of a leading `~` or `~user`.

    Raises:
        ValueError: the path is empty, or the home folder is not known. A folder that is named
            `~user` would be made in its place.
    """
    text = str(path)
    if not text.strip():
        raise ValueError("must not be empty; the current folder is '.'")
    expanded = os.path.expanduser(text)  # Path's own takes "./~", a folder of that name, for "~"
    if text.startswith("~") and expanded == text:
        raise ValueError(f"{text!r} begins with no home folder; a folder named so is './{text}'")
    return Path(expanded)


def check_writable(folder: Path) -> None:
    """Try whether files can be written to a folder, which need not exist yet.

    A small file is written and synced in it, or in the nearest folder above that exists. Nothing
    is left behind, not even by a kill where the system makes files without a name (Linux does).

    Raises:
        AdapterError: they cannot; see `explain_os_errors`. The message names the folder, and
            `no_effect` is set.
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
            error.filename = str(existing)  # and not a name that tells nobody anything
            raise


def _nearest(folder: Path) -> Path:
    for each in (folder, *folder.parents):
        try:
            is_folder = stat.S_ISDIR(each.stat().st_mode)
        except (FileNotFoundError, NotADirectoryError):
            if each.is_symlink():  # no folder can be made in the place of a link to nothing
                raise
        else:
            if not is_folder:
                raise NotADirectoryError(errno.ENOTDIR, f"{each} is a file")
            return each
    return folder


def _expanded(value: Any) -> Any:
    return expand_home(value) if isinstance(value, str | Path) else value  # pydantic refuses others


LocalPath = Annotated[Path, BeforeValidator(_expanded)]
"""The type of an option that is a file or folder of this machine, a `pathlib.Path`.

    class Options(AdapterOptions):
        folder: LocalPath = Path("blobs")

`~` and `~user` are expanded, defaults included; a relative path stays relative. Empty text, which
`Path` takes for the current folder, is refused.
"""
