"""The conformance kit as it is seen from outside: its level and its digest, without pytest."""

from __future__ import annotations

import functools
import hashlib
from pathlib import Path

LEVEL = "1.5"
"""The newest level of the kit. A test that is added raises the minor number, and only warns until
the next major, so that a new core never breaks the CI of an adapter that has not changed."""


@functools.cache
def digest() -> str:
    """Return the SHA-256 of the kit's sources, in hexadecimal digits."""
    folder = Path(__file__).parents[1] / "testing"
    found = hashlib.sha256()
    for path in sorted(folder.rglob("*.py")):
        source = path.read_bytes()
        # The lengths, so that no two kits have the same bytes in a row.
        found.update(f"{path.relative_to(folder).as_posix()} {len(source)}\n".encode())
        found.update(source)
    return found.hexdigest()
