"""The file of settings: which one it is, its text, and its TOML."""

from __future__ import annotations

import json
import os
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import ConfigurationError
from ..extent import DEEPEST, TOO_DEEP, TOO_LARGE
from ..files import open_named
from ..messages.spelling import did_you_mean

LARGEST = 2**20
"""Most bytes a file of settings may have; anything larger is something else."""


def find(path: str | Path | None, environ: Mapping[str, str]) -> Path | None:
    """Return the file to read: the given one, `$CRUCIBLE_CONFIG`, or one in the current folder.

    Raises:
        ConfigurationError: the file that was named does not exist.
    """
    chosen = path or environ.get("CRUCIBLE_CONFIG") or None
    if chosen is None:
        if _exists(Path("crucible.toml")):
            return Path("crucible.toml")
        project = Path("pyproject.toml")
        return project if _exists(project) and read(project) else None
    file = Path(chosen)
    if not _exists(file):
        where = "" if path else " (from $CRUCIBLE_CONFIG)"
        near = did_you_mean(file.name, [other.name for other in file.parent.glob("*.toml")])
        raise ConfigurationError(
            f"there is no file {str(file)!r}{where}{near or '; `crucible init` writes one'}"
        )
    return file


def _exists(file: Path) -> bool:
    """Say whether anything has this name; if it is not a file, reading it fails."""
    try:
        os.stat(file)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except (OSError, ValueError):  # such as a name that is too long
        return True
    return True


def read(file: Path) -> dict[str, Any]:
    """Return the settings in a file: all of it, or `[tool.crucible]` of a `pyproject.toml`.

    Raises:
        ConfigurationError: it cannot be read, or is not what settings may be. The message names
            the file and the reason.
    """
    table = _parse(file)
    if file.name == "pyproject.toml":
        for name in ("tool", "crucible"):
            table = table.get(name, {})
            if not isinstance(table, dict):
                raise ConfigurationError(f"{file}: [tool.crucible] must be a table")
    return dict(table)


def _parse(file: Path) -> dict[str, Any]:
    text = _text(file)
    if _has_a_key_of_many_parts(text):
        raise ConfigurationError(f"{file}: a key in it {TOO_DEEP}")
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigurationError(f"{file} is not valid TOML: {error}") from None
    except ValueError:  # tomllib leaves this one to int()
        raise ConfigurationError(f"{file}: a number in it {TOO_LARGE}") from None
    except RecursionError:
        raise ConfigurationError(f"{file}: a value in it {TOO_DEEP}") from None


# tomllib takes minutes for a key of 100,000 parts: it copies what it has so far at each dot.
_PART = r"""(?:[\w-]++|"(?:[^"\\\n]|\\.)*+"|'[^'\n]*+')"""
_TOKEN = re.compile(
    r'''"""(?:[^\\]|\\.)*?"""|\'{3}.*?\'{3}|\#[^\n]*+'''
    rf"|(?P<deep>{_PART}(?:[ \t]*+\.[ \t]*+{_PART}){{{DEEPEST}}})|{_PART}",
    re.DOTALL,
)


def _has_a_key_of_many_parts(text: str) -> bool:
    return text.count(".") >= DEEPEST and any(found["deep"] for found in _TOKEN.finditer(text))


def _text(file: Path) -> str:
    """Return the text of a file in UTF-8, with or without a byte order mark."""
    try:
        with open_named(file) as opened:
            data = opened.read(LARGEST + 1)
    except OSError as error:
        raise ConfigurationError(f"{file} cannot be read: {error.strerror}") from None
    if len(data) > LARGEST:
        raise ConfigurationError(
            f"{file} has more than {LARGEST:,} bytes, so it cannot be a file of settings"
        )
    # The rule of JSON holds for TOML, too: zeros among the first bytes show the encoding.
    if not (encoding := json.detect_encoding(data)).startswith("utf-8"):
        raise ConfigurationError(f"{file} is {encoding[:6].upper()}; save it as UTF-8")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ConfigurationError(
            f"{file} is not UTF-8: byte {data[error.start]:#04x} in line {line}; save it as UTF-8"
        ) from None
