"""Names of blobs, and of files that are being written."""

from __future__ import annotations

import os
import re
import uuid

from crucible_kitchen import InvalidInput

_TEMPORARY = re.compile(r"\.crucible-[0-9a-f]{32}\.tmp")
_START = ".crucible-"


def temporary_name() -> str:
    """Return a name that no blob and no other writer has."""
    return f".crucible-{uuid.uuid4().hex}.tmp"


def is_temporary(name: str) -> bool:
    """Say whether a name is that of an unfinished write."""
    return _TEMPORARY.fullmatch(name) is not None


def parts_of(path: str) -> list[str]:
    """Split a blob's path.

    Raises:
        InvalidInput: it is not relative to the root, would leave it, or is a second spelling of
            a path (`a//b`, `a/./b`): no blob has two names.
    """
    parts = path.split("/")
    for part in parts:
        if part in ("", ".", ".."):
            raise InvalidInput(
                f"blob path {path!r}: must be relative, without empty parts, '.' and '..'"
            )
        if part.startswith(_START) and is_temporary(part):
            raise InvalidInput(f"blob path {path!r}: {part!r} is reserved for unfinished writes")
    if "\0" in path or (os.name == "nt" and re.search(r'[\\:*?"<>|]', path)):
        raise InvalidInput(f"blob path {path!r}: has a character that file names cannot have")
    try:
        path.encode()
    except UnicodeEncodeError:
        raise InvalidInput(f"blob path {path!r}: is not valid Unicode") from None
    return parts


def is_blob(path: str) -> bool:
    """Say whether a listed path is one that blobs may have."""
    try:
        parts_of(path)
    except InvalidInput:
        return False
    return True
