"""Layers of single assignments: environment variables, and arguments on the command line.

pydantic-settings reads the environment (`variables`). Only the reading is its own:
its merge keeps the options of an adapter that a higher layer replaced, loses the options next to
`X=name`, and ignores misspelt variables (measured, 2.16.3); see `merge` for ours.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from ..adapters import policy
from ..extent import Key
from ..messages.spelling import did_you_mean, nearest
from ..ports import PORTS
from .merge import Layer
from .shell_text import miswritten, value_of
from .tables import SETTABLE, kind_of, no_such

PREFIX = "CRUCIBLE_"
RESERVED = ("CRUCIBLE_CACHE", "CRUCIBLE_CONFIG", "CRUCIBLE_PROFILE")
"""Environment variables that are not settings: where the cache is, and what to read."""

EXAMPLES = {
    "adapters": "adapters.blob_store=noop",
    "workflow": "workflow.epochs=3",
    "observe": "observe.console=true",
    "plugins": "plugins.deny=acme-blobs",
}


class Assignment(NamedTuple):
    """One value as it was written.

    Args:
        source: where it was set, as users know it.
        path: the key, as written.
        text: the value, as written.
    """

    source: str
    path: Key
    text: str


def _is_setting(variable: str) -> bool:
    return variable.upper().startswith(PREFIX) and variable not in RESERVED


def of_environment(environ: Mapping[str, str], mistakes: list[str]) -> Layer:
    """Make the layer of the variables `CRUCIBLE_<TABLE>__<KEY>`; each mistake is noted."""
    found: list[Assignment] = []
    if not any(map(_is_setting, environ)):
        return _layer("environment", found, mistakes)
    from . import variables

    for name, value in variables.read(environ, PREFIX).items():
        if _is_setting(name) and value is not None:
            path = name[len(PREFIX) :].lower().split("__")
            found.append(Assignment(f"environment variable {name}", tuple(path), value))
    return _layer("environment", found, mistakes)


def of_arguments(arguments: Iterable[str], mistakes: list[str]) -> Layer:
    """Make the layer of the arguments `key.path=value`; each mistake is noted."""
    found = []
    before = ""  # the argument before this one, if it names a setting without a value
    for argument in arguments:
        path, equals, value = argument.partition("=")
        if equals and path:
            found.append(Assignment(f"argument {path}=", tuple(path.split(".")), value))
            before = ""
        elif before:  # it is not repeated: it may be a secret
            mistakes.append(
                f"the argument after {before!r}: a setting and its value are joined by =, "
                "without a space"
            )
            before = ""
        else:
            before = argument if argument.partition(".")[0] in SETTABLE else ""
            mistakes.append(
                f"argument {argument!r}: settings are written key=value, "
                "such as workflow.epochs=3 or adapters.training_client=noop"
            )
    return _layer("command line", found, mistakes)


def _layer(name: str, found: Iterable[Assignment], mistakes: list[str]) -> Layer:
    """Make a layer of assignments. A parent is set before its children, in whatever order."""
    table: dict[str, Any] = {}
    labels: dict[Key, str] = {}
    for assignment in sorted(found, key=lambda each: len(each.path)):
        path = _known_path(assignment, mistakes)
        if not path:
            continue
        is_adapter = len(path) == 2 and path[0] == "adapters"
        try:
            inside = _table_at(table, path[:-1], labels, name)
            value = value_of(assignment.text)
            if is_adapter and (why := miswritten(value)):
                raise ValueError(why)
            if path[0] == "plugins":
                mistakes.extend(policy.mistakes(assignment.source, {".".join(path[1:]): value}))
        except ValueError as error:
            mistakes.append(f"{assignment.source}: {error}")
            continue
        inside[path[-1]] = value
        labels[path] = assignment.source
        if is_adapter:
            labels[(*path, "use")] = assignment.source
    return Layer(name, table, labels)


def _table_at(
    table: dict[str, Any], path: Key, labels: dict[Key, str], name: str
) -> dict[str, Any]:
    """Return the table at a path, made where it is missing.

    A string there is the name of an adapter: `X=name` and `X__OPTION=value` are one table.

    Raises:
        ValueError: a list or another value is there.
    """
    for depth, part in enumerate(path, start=1):
        inside = table.setdefault(part, {})
        if isinstance(inside, str):
            at = path[:depth]
            labels[(*at, "use")] = labels.get(at, name)
            table[part] = inside = {"use": inside}
        elif not isinstance(inside, dict):
            raise ValueError(
                f"{'.'.join(path[:depth])} is set to {kind_of(inside)}, not to a table"
            )
        table = inside
    return table


def _known_path(assignment: Assignment, mistakes: list[str]) -> Key:
    """Return the path, a misspelt one as the nearest that is known; () if none is near."""
    source, path, _ = assignment
    first, *rest = path
    if first not in SETTABLE:
        hint = did_you_mean(first, SETTABLE) or f"; {_instead(assignment)}"
        mistakes.append(f"{source}: there is no setting {'.'.join(path)!r}{hint}")
        first = nearest(first, SETTABLE)
    elif not rest or not all(path):
        mistakes.append(f"{source}: write {first}.<key>, such as {EXAMPLES[first]}")
    if first == "adapters" and rest and rest[0] and rest[0] not in PORTS:
        mistakes.append(no_such(source, f"adapters.{rest[0]}", PORTS))
        rest[0] = nearest(rest[0], PORTS)
    return (first, *rest) if first and rest and all(rest) else ()


def _instead(assignment: Assignment) -> str:
    """Say what to write in place of a setting that is in no table."""
    if assignment.path[0] == "profile":
        return "a profile is chosen with --profile NAME, or with $CRUCIBLE_PROFILE"
    # Which settings the workflow has is not known here, so none is promised.
    path = ("workflow", *assignment.path)
    if assignment.source.startswith("argument"):
        whole, starts = ".".join(path), [f"{table}." for table in SETTABLE]
    else:
        whole = PREFIX + "__".join(path).upper()
        starts = [f"{PREFIX}{table.upper()}__" for table in SETTABLE]
    return (
        f"if it is one of the workflow, write {whole}; settings begin with "
        f"{', '.join(starts[:-1])} or {starts[-1]}"
    )
