"""What a name means: something that is installed, or `module:name`, `file.py:name`."""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from ..errors import AdapterForbidden, AdapterLoadError, AdapterNotFound, described
from ..messages.spelling import nearest
from . import policy
from .discovery import KINDS, catalog
from .origins import distributions_of


class _Absent(Exception):
    """There is no such file or module, and perhaps one that is spelled like it."""

    def __init__(self, what: str, near: str) -> None:
        super().__init__(f"there is no {what}" + (f"; did you mean {near!r}?" if near else ""))


@dataclass(frozen=True, slots=True)
class Found:
    """What a name means.

    Args:
        value: the object.
        name: the object's name in messages.
        package: the distribution that it comes with, if it is installed.
        version: the distribution's version.
    """

    value: Any
    name: str
    package: str | None = None
    version: str | None = None


def find(group: str, name: str) -> Found:
    """Return what is installed under a name, or what `module:name` or `file.py:name` imports.

    Args:
        group: the entry-point group of installed ones, such as `crucible.workflows`.
        name: the name. A module may lie in the current folder.

    Raises:
        AdapterNotFound: there is none, or there are two.
        AdapterLoadError: it cannot be imported.
    """
    if ":" in name:
        return Found(imported(name, KINDS[group]), name)
    entry = catalog(group).find("", name)
    called = f"{entry}, {entry.entry_point.value},"
    return Found(entry.load(), called, entry.package, entry.version)


def imported(path: str, kind: str) -> Any:
    """Return what `module:name` or `file.py:name` names.

    Args:
        path: the path. A module may lie in the current folder.
        kind: what it should be, for messages.

    Raises:
        AdapterNotFound: there is no such file or module, or it has no such name.
        AdapterLoadError: the module cannot be imported, or comes with a distribution that
            `[plugins]` forbids.
    """
    place, _, name = path.rpartition(":")
    if not place.endswith(".py") and policy.is_in_force():
        for distribution in sorted(distributions_of(place, os.getcwd())):
            if why := policy.refusal(distribution, "", path):
                raise AdapterForbidden(
                    f"the {kind} {path}, of {distribution}, may not be loaded: {why}"
                )
    try:
        names = vars(_module(place))
    except _Absent as absent:
        raise AdapterNotFound(f"the {kind} {path}: {absent}") from None
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        raise AdapterLoadError(
            f"the {kind} {path} cannot be imported: {described(error)}"
        ) from error
    if name not in names:
        near = nearest(name, names)
        hint = f"; did you mean {place}:{near}?" if near else ""
        raise AdapterNotFound(f"there is no {name!r} in {place}{hint}")
    return names[name]


def _module(place: str) -> ModuleType:
    if not place.endswith(".py"):
        sys.path.insert(0, os.getcwd())
        try:
            return importlib.import_module(place)
        except ModuleNotFoundError as error:
            if error.name is None or not f"{place}.".startswith(f"{error.name}."):
                raise  # what the module imports is missing
            near = nearest(place, [file.stem for file in Path().glob("*.py")])
            raise _Absent(f"module {place!r}", near) from None
        finally:
            sys.path.remove(os.getcwd())
    if not Path(place).exists():
        folder = Path(place).parent
        near = nearest(Path(place).name, [file.name for file in folder.glob("*.py")])
        raise _Absent(f"file {place!r}", near and str(folder / near))
    spec = importlib.util.spec_from_file_location(Path(place).stem, place)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where pydantic looks for the names in annotations
    spec.loader.exec_module(module)
    return module
