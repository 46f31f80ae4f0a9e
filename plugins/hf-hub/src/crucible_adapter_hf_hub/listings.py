"""What the hub says about the files of a commit, and whether a file on this disk is as it says.

The hub names each file's size, and a hash: of a file in Git LFS the SHA-256, of any other git's
own, the SHA-1 of a header and the content.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias


@dataclass(frozen=True, slots=True)
class Entry:
    """A file of a commit.

    Args:
        size: in bytes.
        kind: which hash `digest` is.
        digest: in lower-case hexadecimal digits.
    """

    size: int
    kind: Literal["git", "sha256"]
    digest: str


Listing: TypeAlias = Mapping[str, Entry]
"""Every file of a commit, by its path."""

# A file changed again within the clock's tick looks unchanged; ticks are far shorter than this.
_SETTLED_NS = 1_000_000_000


class Checker:
    """Compares files with their entries, and remembers those that it found right.

    Reading a large model costs seconds for each gigabyte, so a file is read again only when its
    inode, size or one of its times changed. Safe from any thread.
    """

    def __init__(self) -> None:
        self._right: set[tuple[Any, ...]] = set()

    def is_right(self, path: Path, entry: Entry) -> bool:
        """Say whether the file is there, of the right size and with the right content."""
        try:
            with path.open("rb") as file:
                before = os.fstat(file.fileno())
                if before.st_size != entry.size:
                    return False
                known = (*_identity(before), entry.digest)
                if known in self._right:
                    return True
                content = hashlib.file_digest(file, lambda: _hash(entry))
                after = os.fstat(file.fileno())
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            return False
        if content.hexdigest() != entry.digest:
            return False
        changed = max(after.st_mtime_ns, after.st_ctime_ns)
        if _identity(after) == _identity(before) and time.time_ns() - changed > _SETTLED_NS:
            self._right.add(known)
        return True


def _hash(entry: Entry) -> Any:
    if entry.kind == "sha256":
        return hashlib.sha256()
    return hashlib.sha1(b"blob %d\0" % entry.size, usedforsecurity=False)


def _identity(stat: os.stat_result) -> tuple[int, ...]:
    return (stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns)
