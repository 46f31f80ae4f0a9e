"""Which plugins the wheels in folders bring, from their entry points. Nothing is imported."""

from __future__ import annotations

import configparser
import zipfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from packaging.utils import InvalidWheelFilename, parse_wheel_filename
from packaging.version import Version

from ..adapters.discovery import GROUPS
from ..errors import ConfigurationError


@dataclass(frozen=True, slots=True)
class Offer:
    """A wheel with plugins.

    Args:
        distribution: its distribution, as indexes compare names.
        version: its version.
        points: its plugins, each as group and name of an entry point.
    """

    distribution: str
    version: Version
    points: tuple[tuple[str, str], ...]


def offered(folders: Iterable[Path]) -> Iterator[Offer]:
    """Yield the wheels in folders that have plugins.

    Raises:
        ConfigurationError: a folder cannot be read.
    """
    for folder in folders:
        try:
            files = sorted(folder.iterdir())
        except OSError as error:
            raise ConfigurationError(f"--find-links {folder}: {error.strerror}") from None
        for file in files:
            try:
                name, version, _, _ = parse_wheel_filename(file.name)
            except InvalidWheelFilename:
                continue
            if points := _points(file):
                yield Offer(name, version, points)


def _points(file: Path) -> tuple[tuple[str, str], ...]:
    parser = configparser.ConfigParser(delimiters=("=",), interpolation=None)
    parser.optionxform = str  # type: ignore[method-assign,assignment]
    try:
        with zipfile.ZipFile(file) as wheel:
            inside = (n for n in wheel.namelist() if n.endswith(".dist-info/entry_points.txt"))
            parser.read_string("".join(wheel.read(name).decode() for name in inside))
    except (OSError, ValueError, zipfile.BadZipFile, configparser.Error):
        return ()  # an installer says what is wrong with it
    return tuple((g, name) for g in GROUPS if parser.has_section(g) for name in parser.options(g))
