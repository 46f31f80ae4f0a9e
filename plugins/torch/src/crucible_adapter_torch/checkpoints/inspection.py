"""Whether checkpoints can be saved and loaded: rights, space on the disk, and damage."""

from __future__ import annotations

import shutil
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path

from crucible_kitchen import (
    AdapterError,
    CrucibleWarning,
    InvalidInput,
    Unavailable,
    check_writable,
)

from . import exports, stored
from .folders import listed


def check_storage(needed: Mapping[Path, int]) -> None:
    """Check that each place can be written and has space; leave nothing there.

    Args:
        needed: for each place, the number of bytes to be saved there.

    Raises:
        Unauthorized, InvalidInput: nothing can be saved in one of them.
        Unavailable: a disk has no space for all of it.
    """
    wanted: Counter[int] = Counter()
    for place, size in needed.items():
        check_writable(place)
        there = next(each for each in (place, *place.parents) if each.exists())
        disk, free = there.stat().st_dev, shutil.disk_usage(there).free
        wanted[disk] += size
        if wanted[disk] > free:
            raise Unavailable(
                f"not everything can be saved in {place}: {wanted[disk]:,} bytes are needed on its "
                f"disk, and {free:,} are free; free space there, or set checkpoint_dir to another "
                "folder",
                no_effect=True,
            )


def damaged(folder: Path) -> Iterator[str]:
    """Say of each entry of the folder of checkpoints that cannot be loaded why not."""
    for path in listed(folder):
        name = path.name
        if name.startswith(".") or name == exports.FOLDER:
            continue
        try:
            if path.is_symlink() or not path.is_dir():
                raise InvalidInput(f"{name!r} in {folder} is not a folder")
            stored.read_facts(path)
            for file in stored.TENSORS:
                if not (path / file).is_file():
                    raise InvalidInput(f"checkpoint {name!r} in {folder} has no file {file}")
        except AdapterError as error:
            yield error.reason
        except OSError as error:
            yield f"{name!r} in {folder} cannot be read: {error.strerror}"


def warn_of_damage(folder: Path) -> None:
    """Warn of each entry that `damaged` finds, up to ten, and of how many more there are."""
    found = [*damaged(folder)]
    for reason in found[:10]:
        warnings.warn(reason, CrucibleWarning, stacklevel=3)
    if found[10:]:
        more = f"{len(found) - 10} more in {folder}: damaged, or not a checkpoint"
        warnings.warn(more, CrucibleWarning, stacklevel=3)
