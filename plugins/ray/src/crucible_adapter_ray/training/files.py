"""The files of a checkpoint on a worker's machine, read and written in pieces."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path

from crucible_kitchen import explain_os_errors


def sizes(folder: Path, reference: str) -> Mapping[str, int]:
    """Return the sizes of a checkpoint's files, in bytes, by name."""
    with explain_os_errors(f"checkpoint {reference!r} in {folder} cannot be read"):
        return {file.name: file.stat().st_size for file in sorted((folder / reference).iterdir())}


def read(folder: Path, reference: str, name: str, start: int, size: int) -> bytes:
    """Return `size` bytes of a file from `start`; fewer at its end."""
    path = folder / reference / name
    with explain_os_errors(f"{path} cannot be read"), path.open("rb") as file:
        file.seek(start)
        return file.read(size)


def write(folder: Path, reference: str, name: str, start: int, data: bytes) -> None:
    """Write a piece of a file; with `start` 0, what was there before goes."""
    path = folder / reference / name
    with explain_os_errors(f"{path} cannot be written"):
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("r+b" if start else "wb") as file:
            file.seek(start)
            file.write(data)


def forget(folder: Path, reference: str) -> None:
    """Remove a checkpoint, whole or in part."""
    if Path(reference).name == reference not in ("", ".."):  # it is no path that leads elsewhere
        shutil.rmtree(folder / reference, ignore_errors=True)
