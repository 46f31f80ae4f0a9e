"""Remove what killed processes left among the checkpoints and the saved weights."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from pathlib import Path, PurePath

from crucible_kitchen import CrucibleWarning

from . import exports, stored, unfinished
from .folders import translated


def clean(folder: Path, prefix: str, keep: Sequence[str], dry_run: bool) -> list[str]:
    """Remove what killed processes left; see `AdapterSpec.clean`.

    Args:
        folder: of the checkpoints.
        prefix: of the labels to look at; without one, only unfinished folders are removed.
        keep: references that stay.
        dry_run: remove nothing.

    Returns:
        The references of what was complete, and the paths of what was not.
    """
    kept = {PurePath(reference).name for reference in keep}
    removed = []

    def remove(path: Path, name: str, how: Callable[[Path], None]) -> None:
        try:
            if not dry_run:
                how(path)
            removed.append(name)
        except OSError as error:
            warnings.warn(
                f"{str(path)!r} was left behind, and cannot be removed: {error.strerror or error}",
                CrucibleWarning,
                stacklevel=3,
            )

    if prefix:
        whole = [(path, path.name, label) for path, label in stored.find_all(folder)]
        saved = [
            (path, exports.reference_of(path), name) for path, name in exports.find_all(folder)
        ]
        for path, reference, label in (*whole, *saved):
            if label.startswith(prefix) and path.name not in kept:
                remove(path, reference, unfinished.remove_whole)
    for parent in (folder, exports.exports_in(folder)):
        with translated(f"{parent} cannot be read"):
            for path in unfinished.left(parent, prefix):
                remove(path, str(path), unfinished.remove)
    return removed
