"""What is installed in an environment, and what that requires, from metadata alone."""

from __future__ import annotations

import json
import platform
import re
import subprocess
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import importlib_metadata as metadata
from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name, canonicalize_version

from ..errors import ConfigurationError

_REQUIRES = re.compile(r"^requires-dist:[ \t]*(\S.*?)[ \t]*$", re.IGNORECASE | re.MULTILINE)
_OF_AN_EXTRA = re.compile(r";(?!.* or ).*\bextra *==")
_VERSION = re.compile(r"^version:[ \t]*(\S+)[ \t]*$", re.IGNORECASE | re.MULTILINE)
_ASK = """
import json, platform, sys
print(json.dumps([platform.python_version(), sys.path, sys.prefix]))
"""


@dataclass(frozen=True, slots=True)
class Distribution:
    """An installed distribution.

    Args:
        name: its name, as indexes compare names.
        version: its version.
        folder: its `.dist-info` folder, or its `.egg-info` folder or file.
        requires: what it requires, as its metadata writes it.
    """

    name: str
    version: str
    folder: Path
    requires: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Environment:
    """An environment of Python.

    Args:
        python: its interpreter.
        version: the version of Python.
        path: the folders in which an import looks.
        prefix: its folder; that of a virtual environment has a file `pyvenv.cfg`.
    """

    python: str
    version: str
    path: tuple[str, ...]
    prefix: str

    @classmethod
    def here(cls) -> Environment:
        """Return the one that this process runs in."""
        return cls(sys.executable, platform.python_version(), tuple(sys.path), sys.prefix)

    @classmethod
    def of(cls, python: str) -> Environment:
        """Return that of an interpreter.

        Raises:
            ConfigurationError: it cannot be run.
        """
        try:
            done = subprocess.run(
                [python, "-I", "-c", _ASK], capture_output=True, text=True, timeout=60, check=True
            )
            version, path, prefix = json.loads(done.stdout)
        except (OSError, subprocess.SubprocessError, ValueError) as error:
            why = getattr(error, "strerror", None) or "it is not a Python that runs"
            raise ConfigurationError(f"--python {python}: {why}") from None
        return cls(python, version, tuple(path), prefix)

    def find(self, name: str) -> Distribution | None:
        """Return the distribution of a name, the one that an import finds; None if there is none.

        Of one whose metadata is damaged likewise: nothing can be said of it.
        """
        for found in metadata.Distribution.discover(name=name, path=list(self.path)):
            folder = getattr(found, "_path", None)  # there is no public name
            if folder is None:
                continue
            if Path(folder).suffix == ".egg-info":  # of setuptools, as Debian packages it
                if (old := _of_an_egg(found, Path(folder))) is not None:
                    return old
                continue
            try:
                text = (Path(folder) / "METADATA").read_text(encoding="utf-8")
            except (OSError, UnicodeDecodeError):
                continue
            head = text.partition("\n\n")[0]
            if version := _VERSION.search(head):
                requires = tuple(_REQUIRES.findall(head))
                number = canonicalize_version(version[1], strip_trailing_zero=False)
                return Distribution(canonicalize_name(name), number, Path(folder), requires)
        return None

    def extras_of(self, name: str) -> tuple[str, ...]:
        """Return the extras of a distribution of which all is installed that they need.

        No installer writes down which were asked for.
        """
        one = self.find(name)
        return () if one is None else tuple(self._complete(one, {}))

    def closure(
        self, roots: Mapping[str, Iterable[str]]
    ) -> tuple[dict[str, Distribution], dict[str, str]]:
        """Return distributions and all that they require, and what of that is missing.

        Args:
            roots: names, each with the extras that count.

        Returns:
            The distributions by name, sorted; and for each name that is not installed the name
            of a distribution that requires it, or "".
        """
        return self._closure(roots, {})

    def _closure(
        self,
        roots: Mapping[str, Iterable[str]],
        known: dict[str, Distribution | None],
    ) -> tuple[dict[str, Distribution], dict[str, str]]:
        """Do as `closure`; `known` has what was looked for already."""
        found: dict[str, Distribution] = {}
        missing: dict[str, str] = {}
        done: set[tuple[str, str]] = set()
        todo: list[tuple[str, Iterable[str], str]] = [
            (canonicalize_name(name), extras, "") for name, extras in roots.items()
        ]
        while todo:
            name, extras, by = todo.pop()
            if name not in known:
                known[name] = self.find(name)
            one = known[name]
            if one is None:
                missing.setdefault(name, by)
                continue
            found[name] = one
            for extra in ("", *extras):
                if (name, extra) not in done:
                    done.add((name, extra))
                    todo += [(canonicalize_name(r.name), r.extras, name) for r in _of(one, extra)]
        return dict(sorted(found.items())), missing

    def _complete(self, one: Distribution, known: dict[str, Distribution | None]) -> list[str]:
        """Return the extras of which everything is installed that they add, and what that needs."""
        extras = {
            e for line in one.requires for e in re.findall(r"extra *== *['\"](.+?)['\"]", line)
        }
        plain = {str(r) for r in _of(one, "")}
        complete = []
        for extra in sorted(extras):
            added = [r for r in _of(one, extra) if str(r) not in plain]
            needed: dict[str, set[str]] = {}
            for r in added:
                needed.setdefault(r.name, set()).update(r.extras)
            if added and not self._closure(needed, known)[1]:
                complete.append(extra)
        return complete


def _of_an_egg(found: metadata.Distribution, folder: Path) -> Distribution | None:
    """Return a distribution without METADATA, as the library reads it; None if it is damaged."""
    try:
        name = canonicalize_name(found.metadata["Name"])
        version = canonicalize_version(found.version, strip_trailing_zero=False)
        return Distribution(name, version, folder, tuple(found.requires or ()))
    except Exception:
        return None


def _of(one: Distribution, extra: str) -> list[Requirement]:
    """Return what a distribution requires here, with an extra or, by "", without any."""
    found = []
    for line in one.requires:
        if not extra and _OF_AN_EXTRA.search(line):  # most lines of large packages; parsing is slow
            continue
        try:
            requirement = Requirement(line)
        except InvalidRequirement:
            continue
        if requirement.marker is None or requirement.marker.evaluate({"extra": extra}):
            found.append(requirement)
    return found
