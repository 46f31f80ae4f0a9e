"""The tables and ports that settings may name; a misspelt one is read as the nearest.

Each mistake is noted in the list `mistakes`, with its place, such as a file.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from ..adapters import policy
from ..messages.spelling import did_you_mean, listed, nearest
from ..ports import PORTS

SETTABLE = ("adapters", "workflow", "observe", "plugins")
"""The tables that every layer can set."""

TABLES = (*SETTABLE, "profile")
"""The tables at the top of `crucible.toml`."""


def profiles(place: str, given: Any, mistakes: list[str]) -> Mapping[str, Any]:
    """Return the profiles of a file by name, each checked."""
    if not isinstance(given, Mapping):
        mistakes.append(f"{place}: profile must be a table of profiles")
        return {}
    found = {}
    for profile, inside in given.items():
        if not isinstance(inside, Mapping):
            mistakes.append(f"{place}: profile.{profile} must be a table")
        else:
            found[profile] = checked(f"{place} [profile.{profile}]", inside, mistakes)
    return found


def checked(place: str, table: Mapping[str, Any], mistakes: list[str]) -> dict[str, Any]:
    """Check the two levels that have fixed keys: the tables, and the ports."""
    found: dict[str, Any] = {}
    for name, value in _respelt(place, "", table, SETTABLE, TABLES, mistakes):
        if not isinstance(value, Mapping):
            mistakes.append(f"{place}: {name} must be a table, not {kind_of(value)}")
        elif name == "adapters":
            found[name] = dict(_respelt(place, "adapters.", value, PORTS, PORTS, mistakes))
        else:
            if name == "plugins":
                mistakes.extend(policy.mistakes(place, value))
            found[name] = value
    return found


def _respelt(
    place: str,
    within: str,
    table: Mapping[str, Any],
    known: Iterable[str],
    named: Iterable[str],
    mistakes: list[str],
) -> Iterator[tuple[str, Any]]:
    """Yield the known keys, and each misspelt one as the known key that is nearest.

    Args:
        place: where the table is.
        within: the path of the table, with a dot at its end.
        table: the keys and values.
        known: keys that are read.
        named: keys that a message may name.
        mistakes: gets a line for each unknown key.
    """
    for name, value in table.items():
        if name in known:
            yield name, value
            continue
        mistakes.append(no_such(place, f"{within}{name}", named))
        if (near := nearest(name, known)) and near not in table:
            yield near, value


def no_such(place: str, key: str, known: Iterable[str]) -> str:
    """Return the message for a key that does not exist."""
    *table, name = key.split(".")
    if hint := did_you_mean(name, known):
        return f"{place}: there is no {key!r}{hint}"
    inside = f" (in [{'.'.join(table)}])" if table else ""
    return f"{place}: there is no {key!r}; there are {listed(name, known)}{inside}"


def kind_of(value: Any) -> str:
    """Name the type of a value. The value itself may be a secret in a wrong place."""
    if isinstance(value, str):
        return "a string"
    return {list: "a list", bool: "true or false"}.get(type(value), "a value")
