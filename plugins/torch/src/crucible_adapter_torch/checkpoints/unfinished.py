"""Folders that are being written or deleted, and those whose process was killed meanwhile.

Next to a hidden folder `.partial-<unique>` that is being written lies `.partial-<unique>.json`. It
holds the label, and its writer has locked it; the kernel frees the lock of a process that ends,
however it ends. A folder that is being deleted has no such file: any process that finds it may
continue deleting.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import time
import uuid
from collections.abc import Iterator
from io import FileIO
from pathlib import Path

from crucible_kitchen import Unavailable

from .facts import read_json

try:
    import fcntl
except ImportError:  # Windows, where only the holder of the run can say that a writer is dead
    fcntl = None  # type: ignore[assignment]

PARTIAL = ".partial-"


@contextlib.contextmanager
def claimed(parent: Path, label: str) -> Iterator[Path]:
    """Yield the path of a folder to make, fill and rename. At the end that path does not exist.

    Args:
        parent: where to make it; made if missing.
        label: of what is being written.

    Raises:
        OSError: nothing can be written there.
    """
    file = _claim(parent, label)
    lock = Path(str(file.name))
    partial = lock.with_suffix("")
    try:
        yield partial
    finally:
        shutil.rmtree(partial, ignore_errors=True)
        file.close()
        if not os.path.lexists(partial):  # or it could not be found by its label
            lock.unlink(missing_ok=True)


def left(parent: Path, prefix: str) -> Iterator[Path]:
    """Find what was left unfinished in a folder: a folder, a lock next to it, or both.

    Args:
        parent: where to look; it may be missing.
        prefix: everything whose label starts with this counts as left, locked or not. Without a
            prefix, only what is not locked.

    Yields:
        The path of the partial folder. Until the next one, no other process can find it left.
    """
    found = {name.removesuffix(".json") for name in listed(parent) if name.startswith(PARTIAL)}
    for partial in sorted(parent / name for name in found):
        with contextlib.ExitStack() as stack:
            lock = _lock_of(partial)
            is_free = _try_lock(lock, stack)
            label = _label(lock)
            if label.startswith(prefix) if prefix and label is not None else is_free:
                yield partial


def remove(partial: Path) -> None:
    """Remove what `left` found.

    Raises:
        OSError: it cannot be removed, or not all of it.
    """
    _remove_tree(partial)
    _lock_of(partial).unlink(missing_ok=True)


def remove_whole(folder: Path) -> None:
    """Remove a folder. It vanishes at once, not file by file.

    Raises:
        OSError: it is missing, or cannot be removed.
    """
    _remove_tree(folder.rename(folder.parent / _new_name()))


def _remove_tree(path: Path) -> None:
    with contextlib.suppress(FileNotFoundError):  # another process is removing it, too
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


def listed(folder: Path) -> list[str]:
    """Return the names in a folder, sorted; nothing if it is missing."""
    try:
        return sorted(os.listdir(folder))
    except FileNotFoundError:
        return []


def _claim(parent: Path, label: str) -> FileIO:
    """Make the file with the label, and lock it."""
    for _ in range(100):
        lock = _lock_of(parent / _new_name())
        try:
            parent.mkdir(parents=True, exist_ok=True)
            file = lock.open("xb", buffering=0)  # closing it writes nothing, and cannot fail
        except FileNotFoundError:  # another process has just removed the empty folder
            continue
        with contextlib.suppress(OSError):  # without locks, nothing ever counts as left
            if fcntl:
                fcntl.flock(file, fcntl.LOCK_EX)
        if os.fstat(file.fileno()).st_nlink:
            try:
                file.write(json.dumps({"label": label}).encode())
            except OSError:
                file.close()
                lock.unlink(missing_ok=True)
                raise
            return file
        file.close()  # taken for left between being made and being locked
    raise Unavailable(f"{parent} vanishes as soon as it is made", no_effect=True)


def _new_name() -> str:
    return f"{PARTIAL}{time.time_ns():020d}-{uuid.uuid4().hex[:8]}"


def _lock_of(partial: Path) -> Path:
    return partial.with_name(f"{partial.name}.json")


def _try_lock(lock: Path, stack: contextlib.ExitStack) -> bool:
    """Lock this file until the stack is closed; return False if another process has locked it."""
    if not fcntl:
        return not lock.exists()
    try:
        descriptor = os.open(lock, os.O_RDWR | os.O_NONBLOCK)  # NFS locks only what may be written
    except FileNotFoundError:
        return True
    except OSError:
        return False
    stack.callback(os.close, descriptor)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _label(lock: Path) -> str | None:
    try:
        found = read_json(lock)
    except (OSError, ValueError):
        return None
    label = found.get("label") if isinstance(found, dict) else None
    return label if isinstance(label, str) else None
