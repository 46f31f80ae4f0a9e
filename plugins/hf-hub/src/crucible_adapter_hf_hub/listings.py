"""The hub's listing of a commit, and the comparison of files on this disk with it.

A listing is untrusted: names become paths, and hashes names of files, so each is checked first.

The hub lists each file's size and a hash: for a file in Git LFS the SHA-256, for any other git's
own, the SHA-1 of a header and the content.
"""

from __future__ import annotations

import hashlib
import itertools
import os
import re
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

from crucible_kitchen import InvalidInput

from .names import check_path


@dataclass(frozen=True, slots=True)
class Entry:
    """A file of a commit.

    Args:
        size: in bytes.
        kind: the kind of hash of `digest`.
        digest: in lower-case hexadecimal digits.
    """

    size: int
    kind: Literal["git", "sha256"]
    digest: str


Listing: TypeAlias = Mapping[str, Entry]
"""Every file of a commit, by its path."""

_HEX: Mapping[str, re.Pattern[str]] = {
    "git": re.compile("[0-9a-f]{40}"),
    "sha256": re.compile("[0-9a-f]{64}"),
}
_LARGEST = 2**63 - 1


class BadListing(ValueError):
    """The listing has an entry that no commit can have."""


def entry_of(size: object, kind: object, digest: object) -> Entry:
    """Return an entry of untrusted values.

    Raises:
        BadListing: a value is not a size, or not a hash of its kind.
    """
    if type(size) is not int or not 0 <= size <= _LARGEST:
        raise BadListing(f"the size {_cut(size)}")
    if kind not in ("git", "sha256") or not isinstance(digest, str):
        raise BadListing(f"the hash {_cut(digest)} of kind {_cut(kind)}")
    if not _HEX[kind].fullmatch(digest):
        raise BadListing(f"{_cut(digest)}, which is not a hash of kind {kind}")
    return Entry(size, kind, digest)


def listing_of(entries: Iterable[tuple[object, Entry]]) -> Listing:
    """Return the listing of these files.

    Raises:
        BadListing: a name is not a path inside the repository, is listed twice, or is also that of
            a folder.
    """
    listing: dict[str, Entry] = {}
    for path, entry in entries:
        if not isinstance(path, str):
            raise BadListing(f"the name {_cut(path)}")
        try:
            check_path(path, "file")
        except InvalidInput as error:
            raise BadListing(f"a bad name, {error}") from None
        if path in listing:
            raise BadListing(f"{path!r} twice")
        listing[path] = entry
    # The content of a folder sorts right after it, so only neighbours need to be compared.
    for before, after in itertools.pairwise(sorted(f"{path}/" for path in listing)):
        if after.startswith(before):
            raise BadListing(f"{before[:-1]!r} as a file and as a folder")
    return listing


def _cut(value: object) -> str:
    try:
        return f"{value!r:.80}"
    except ValueError:  # an integer of more digits than Python prints
        return f"an {type(value).__name__} of many digits"


_SETTLED_NS = 1_000_000_000
"""Age of a file from which it is trusted to be unchanged: changes within one tick of the file
system's clock look the same, and ticks are far shorter."""


class Checker:
    """Compares files with their entries, and remembers those that match.

    Reading a large model costs seconds for each gigabyte, so a file is read again only when its
    inode, size or one of its times changed. Safe from any thread.
    """

    def __init__(self) -> None:
        self._right: set[tuple[Any, ...]] = set()

    def is_right(self, path: Path, entry: Entry) -> bool:
        """Say whether the file exists with the listed size and content."""
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
