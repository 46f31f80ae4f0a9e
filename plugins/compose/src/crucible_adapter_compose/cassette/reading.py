"""Reading a cassette: one that is unfinished, damaged or of something else is refused."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .tape import VERSION, parts_of
from .values import Unreadable

_AGAIN = 'record it again with mode = "record"'


def lines_of(file: Path, port: str) -> Iterator[dict[str, Any]]:
    """Yield the lines of a complete cassette, the first of which is its header.

    Raises:
        ValueError: as `whole` does; or a line is damaged.
    """
    for number, line in enumerate(whole(file, port), 1):
        yield _line(file, number, line)


def whole(file: Path, port: str) -> list[bytes]:
    """Return the lines of a complete cassette but for its end.

    Args:
        file: the cassette.
        port: what it must be of.

    Raises:
        ValueError: there is none, it is unfinished, damaged, of another version or another port.
    """
    try:
        content = file.read_bytes()
    except FileNotFoundError:
        raise ValueError(_missing(file)) from None
    except OSError as error:
        raise ValueError(f"{file} cannot be read: {error.strerror}") from None
    *lines, rest = content.split(b"\n")
    header = _header(file, lines[0] if lines else rest)
    if header.get("cassette") != VERSION:
        raise ValueError(
            f"{file} is a cassette of version {header.get('cassette')}, and this package reads "
            f"version {VERSION}; install the version that recorded it, or delete it and {_AGAIN}"
        )
    if header.get("port") != port:
        raise ValueError(f"{file} is a cassette of a {header.get('port')}, not of a {port}")
    end = _line(file, len(lines), lines[-1]).get("end") if not rest else None
    if not isinstance(end, dict):
        raise ValueError(
            f"{file} is unfinished: its recording was killed, or its end is missing; delete it, "
            f"and {_AGAIN}"
        )
    recorded = b"".join(each + b"\n" for each in lines[:-1])
    digest = end.get("sha256")  # without one, it may be edited
    if end.get("lines") != len(lines) - 1 or (
        digest is not None and digest != hashlib.sha256(recorded).hexdigest()
    ):
        raise ValueError(
            f"{file} is damaged, or was changed since it was recorded: its lines are not "
            f"those that its end counts; restore it, or delete it and "
            f"{_AGAIN}"
        )
    return lines[:-1]


def _missing(file: Path) -> str:
    if parts := parts_of(file):
        return f"{file} does not exist, and the recording {parts[-1].name} is unfinished; {_AGAIN}"
    return f'{file} does not exist; record it with mode = "record" or "once"'


def _header(file: Path, line: bytes) -> dict[str, Any]:
    try:
        found = json.loads(line)
    except ValueError:
        found = None
    if not isinstance(found, dict) or "cassette" not in found:
        raise ValueError(f"{file} is not a cassette: its first line says nothing of one")
    return found


def _line(file: Path, number: int, line: bytes) -> dict[str, Any]:
    try:
        found = json.loads(line.decode())
    except (ValueError, RecursionError) as error:
        raise Unreadable(f"{file} is damaged in line {number}: {error}") from None
    if not isinstance(found, dict):
        raise Unreadable(f"{file} is damaged in line {number}: it is not a table")
    return found
