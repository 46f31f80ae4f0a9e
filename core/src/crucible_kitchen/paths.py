"""Paths in options, which mean the same for every adapter.

`~` is a home folder, and a relative path begins in the current working directory, wherever the
setting was written.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator


def expand_home(path: str | Path) -> Path:
    """Return a path with the home folder in place of a leading `~` or `~user`.

    Raises:
        ValueError: the path is empty, or the home folder is not known. A folder that is named
            `~user` would be made in its place.
    """
    text = str(path)
    if not text.strip():
        raise ValueError("must not be empty; the current folder is '.'")
    expanded = os.path.expanduser(text)  # Path's own takes "./~", a folder of that name, for "~"
    if text.startswith("~") and expanded == text:
        raise ValueError(f"{text!r} begins with no home folder; a folder named so is './{text}'")
    return Path(expanded)


def _expanded(value: Any) -> Any:
    return expand_home(value) if isinstance(value, str | Path) else value  # pydantic refuses others


LocalPath = Annotated[Path, BeforeValidator(_expanded)]
"""The type of an option that is a file or folder of this machine, a `pathlib.Path`.

    class Options(AdapterOptions):
        folder: LocalPath = Path("blobs")

`~` and `~user` are expanded, defaults included; a relative path stays relative. Empty text, which
`Path` takes for the current folder, is refused.
"""
