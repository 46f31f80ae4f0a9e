"""Small JSON files, which other programs may have written or replaced."""

from __future__ import annotations

import json
import stat
from pathlib import Path
from typing import Any

LARGEST_JSON = 4 << 20
"""Bytes of the largest file that is read: a file of another program may have any size."""


def read_json(path: Path) -> Any:
    """Read a small JSON file, whatever may be there under its name.

    Raises:
        ValueError: it is not a file, too large, not JSON, or nested too deeply.
        OSError: it is missing, or cannot be read.
    """
    found = path.stat()
    if not stat.S_ISREG(found.st_mode):  # opening a pipe would wait for ever
        raise ValueError("it is not a file")
    if found.st_size > LARGEST_JSON:
        raise ValueError(f"it has {found.st_size} bytes")
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
