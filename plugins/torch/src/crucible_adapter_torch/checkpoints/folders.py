"""Folders that appear under their name complete, or not at all.

What killed processes leave of them is hidden; see `unfinished`.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

from crucible_kitchen import AdapterError, explain_os_errors

from . import unfinished


@contextlib.contextmanager
def new_folder(parent: Path, label: str) -> Iterator[tuple[Path, Path]]:
    """Yield a folder to fill, and the unique path that it gets, at once and durably, at the end.

    If the block fails nothing remains. What a kill leaves is found by `cleaning.clean`.

    Raises:
        Unauthorized: the folder may not be written.
        InvalidInput: there can be no such folder.
        NotFound: it has just been removed.
        Unavailable: the disk is full, or fails.
    """
    # Percent-encoded, so that any label is a file name; cut, because a name has 255 bytes.
    encoded = quote(label, safe=" ", errors="surrogatepass").replace(".", "%2E")[:100]
    with (
        translated(f"nothing was saved in {parent} (see the option checkpoint_dir)"),
        unfinished.claimed(parent, label) as partial,
    ):
        final = parent / f"{encoded}-{partial.name.removeprefix(unfinished.PARTIAL)}"
        partial.mkdir()
        yield partial, final
        for path in (*partial.iterdir(), partial):
            sync(path)
        partial.rename(final)
        try:
            sync(parent)
        except OSError:
            unfinished.remove_whole(final)
            raise


def is_name(text: str) -> bool:
    """Whether this can be the name of a complete folder: one part of a path, not hidden."""
    return Path(text).name == text and not text.startswith(".")


def listed(folder: Path) -> list[Path]:
    """Return what is in a folder, sorted by name; nothing if it is missing.

    Raises:
        Unauthorized, Unavailable: the file system refuses.
    """
    with translated(f"{folder} cannot be read"):
        return [folder / name for name in unfinished.listed(folder)]


def sync(path: Path) -> None:
    """Wait until a file or folder is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def translated(what: str) -> Iterator[None]:
    """Turn what the operating system refuses into the errors of the contract.

    Libraries written in Rust, such as safetensors and tokenizers, raise their own errors for it.

    Args:
        what: begins the message: what could not be done.
    """
    with explain_os_errors(what, no_effect=True):
        try:
            yield
        except (AdapterError, OSError):
            raise
        except Exception as error:
            if found := re.search(r"\(os error (\d+)\)", str(error)):
                raise OSError(int(found[1]), os.strerror(int(found[1]))) from error
            raise
