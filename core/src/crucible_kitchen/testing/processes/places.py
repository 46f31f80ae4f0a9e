"""Texts that may be paths of this machine."""

from __future__ import annotations

import os


def absolute(text: str) -> str:
    """Return the absolute path of a file or folder that is there; any other text as it is, such
    as the id of a repository.
    """
    return os.path.abspath(text) if os.path.exists(text) else text
