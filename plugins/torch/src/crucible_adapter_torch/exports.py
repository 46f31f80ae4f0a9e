"""Weights that were saved with a name: folders that Transformers, or any other program, can load.

They lie in the folder `sampler` next to the checkpoints.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path

from .facts import read_json
from .folders import is_name, listed

FOLDER = "sampler"
NAME = "crucible.json"
"""The file that holds the name of saved weights. Transformers ignores it."""


def exports_in(checkpoint_dir: Path) -> Path:
    """Return the folder of the saved weights."""
    return checkpoint_dir / FOLDER


def write_name(folder: Path, name: str) -> None:
    """Record in a folder of weights the name that they are saved with."""
    (folder / NAME).write_text(json.dumps({"name": name}), encoding="utf-8")


def reference_of(folder: Path) -> str:
    """Return the reference of the weights in a folder, which any process can load."""
    return str(folder.absolute())


def find_all(checkpoint_dir: Path) -> Iterator[tuple[Path, str]]:
    """Yield the folders of saved weights and their names. Older versions did not record it."""
    for path in listed(exports_in(checkpoint_dir)):
        with contextlib.suppress(OSError, ValueError):
            if is_name(path.name) and not path.is_symlink():
                found = read_json(path / NAME)
                if isinstance(found, dict) and isinstance(found.get("name"), str):
                    yield path, found["name"]
