"""Names of repositories, revisions and files, checked before they are used."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass

from crucible_kitchen import InvalidInput

_COMMIT = re.compile(r"[0-9a-f]{40}")
_TYPES = ("model", "dataset", "space")


@dataclass(frozen=True, slots=True)
class Repo:
    """A repository at a revision: a branch, a tag or a commit."""

    repo_id: str
    repo_type: str
    revision: str

    def __str__(self) -> str:
        return f"{self.repo_type} {self.repo_id!r}, revision {self.revision!r}"


def is_commit(revision: object) -> bool:
    """Say whether a revision is a full commit id, which always names the same content."""
    return isinstance(revision, str) and _COMMIT.fullmatch(revision) is not None


def repository(repo_id: str, repo_type: str, revision: str) -> Repo:
    """Return the repository of these names.

    Raises:
        InvalidInput: a name that no repository or revision can have. Names become parts of paths.
    """
    from huggingface_hub.utils import HFValidationError, validate_repo_id

    if repo_type not in _TYPES:
        raise InvalidInput(f"repo_type must be one of {', '.join(_TYPES)}, not {repo_type!r}")
    try:
        validate_repo_id(repo_id)
    except HFValidationError as error:
        raise InvalidInput(f"{repo_id!r} is not the id of a repository: {error}") from None
    check_path(revision, "revision")
    return Repo(repo_id, repo_type, revision)


_LONGEST_NAME, _LONGEST_PATH = 255, 1024
"""Limits in bytes; that of a name is the one of file systems."""


def check_path(path: str, what: str) -> None:
    """Raise `InvalidInput` for a path that is absolute, could leave its folder, or that no file can
    have.
    """
    parts = path.split("/")
    if any(part in ("", ".", "..") for part in parts):
        reason = "must be relative, without empty parts, '.' and '..'"
    elif "\\" in path or not _portable(path) or any(map(_CONTROL.__contains__, path)):
        reason = "holds a backslash or a control character, which names may not have"
    elif _length(path) > _LONGEST_PATH or max(map(_length, parts)) > _LONGEST_NAME:
        reason = f"is longer than a path can be ({_LONGEST_PATH} bytes, {_LONGEST_NAME} a part)"
    else:
        return
    raise InvalidInput(f"{what} {path[:200]!r}: {reason}")


_CONTROL = frozenset(map(chr, [*range(32), *range(127, 160)]))


def _length(path: str) -> int:
    try:
        return len(path.encode())
    except UnicodeEncodeError:  # half of a character
        return _LONGEST_PATH + 1


def check_patterns(patterns: Sequence[str] | str | None, what: str) -> None:
    """Raise `InvalidInput` for a pattern that matches files outside the repository."""
    for pattern in [patterns] if isinstance(patterns, str) else patterns or ():
        if pattern.startswith("/") or ".." in pattern.split("/") or not _portable(pattern):
            raise InvalidInput(f"{what} {pattern!r}: leaves the repository; write 'folder/*.json'")


def _portable(path: str) -> bool:
    return os.name != "nt" or not any(character in path for character in "\\:")
