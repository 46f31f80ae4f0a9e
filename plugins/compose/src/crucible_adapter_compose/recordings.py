"""Which files the cassettes of a stack of adapters record to."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from crucible_kitchen import PORTS

_PORTS = tuple(PORTS.values())


def check_apart(ports: Iterable[Any], *files: Path) -> None:
    """Refuse two recordings in one file.

    Args:
        ports: adapters, which are bound, and may wrap others.
        files: what is recorded besides.

    Raises:
        ValueError: names the file.
    """
    found = Counter([*(file.resolve() for file in files), *_files_of(ports)])
    if twice := [str(file) for file, count in found.items() if count > 1]:
        raise ValueError(
            f"two cassettes would both record to {twice[0]}; give each a file of its own"
        )


def _files_of(ports: Iterable[Any]) -> Iterator[Path]:
    for port in ports:
        if (file := getattr(port.options, "records_to", None)) is not None:
            yield file.resolve()
        for _, option in port.options:
            inside = option if isinstance(option, list | tuple) else [option]
            yield from _files_of(each for each in inside if isinstance(each, _PORTS))
