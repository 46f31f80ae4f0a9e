"""What this process may not do for a while: be root, or write large files."""

from __future__ import annotations

import encodings.utf_16_be  # noqa: F401  an ordinary user may not read the Python of root
import os
import resource
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def not_root() -> Iterator[None]:
    """Work as an ordinary user in this block: root may read and write anything."""
    user = os.geteuid()
    os.seteuid(user or 65534)
    try:
        yield
    finally:
        os.seteuid(user)


def let_others_reach(folder: Path) -> None:
    """Let ordinary users into the folders above a folder, which pytest keeps to itself."""
    temporary = Path(tempfile.gettempdir())
    for above in folder.parents:
        if temporary in above.parents:
            above.chmod(0o755)


@contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    """Let a write beyond `size` bytes of a file fail in this block, as on a full disk."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
