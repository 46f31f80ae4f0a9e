"""Which plugins may be loaded: the table `[plugins]`, asked before anything of one is imported.

    [plugins]
    allow = ["crucible-*", "acme-blobs"]
    deny = ["blob_store.memory"]

A pattern is compared with the name of the distribution, with that of the plugin, and with
`<port>.<name>`; `*` and `?` stand for other characters. What `deny` names is never loaded; where
`allow` is set, nothing else than what it names is. The core itself needs no permission, and can be
denied. Names of plugins are given by their authors, so that only a distribution says whose code it
is.

Several policies can be in force at once: that of the process, which a command sets, and that of
each kitchen that is being set up. All must permit.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from ..messages.spelling import did_you_mean
from .fitting import CORE

KEYS = ("allow", "deny")


@dataclass(frozen=True, slots=True)
class Policy:
    """What may be loaded.

    Args:
        allow: patterns of what may be; None permits everything.
        deny: patterns of what may not be.
        allow_source: where `allow` is written, for messages.
        deny_source: where `deny` is written.
        broken: whether what is written cannot be understood, so that nothing is permitted.
    """

    allow: tuple[str, ...] | None = None
    deny: tuple[str, ...] = ()
    allow_source: str = ""
    deny_source: str = ""
    broken: bool = False

    @classmethod
    def of(cls, table: Mapping[str, Any], source_of: Callable[[tuple[str, ...]], str]) -> Policy:
        """Make one of the table `[plugins]`; if that has mistakes, one that permits nothing.

        Args:
            table: its keys and values.
            source_of: says where the value of a key was set.
        """
        if any(mistakes("", table)):
            return cls(broken=True)
        allow = table.get("allow")
        return cls(
            None if allow is None else tuple(_patterns(allow)),
            tuple(_patterns(table.get("deny", ()))),
            source_of(("plugins", "allow")),
            source_of(("plugins", "deny")),
        )

    def refusal(self, distribution: str, port: str, name: str) -> str:
        """Say what forbids a plugin, and where that is written; "" if nothing does.

        Args:
            distribution: the name of the package that it comes with.
            port: its port; "" for a workflow, an environment or an observer.
            name: its name.
        """
        if self.broken:
            return "the table [plugins] has a mistake, and until it is corrected nothing may be"
        names = _names(distribution, port, name)
        if found := _matching(self.deny, names):
            return f"plugins.deny of {self.deny_source} names {found!r}"
        if self.allow is None or names[0] == CORE or _matching(self.allow, names):
            return ""
        return f"plugins.allow of {self.allow_source} does not name {distribution} or {names[-1]}"

    def unmatched(self, plugins: Iterable[tuple[str, str, str]]) -> Iterator[str]:
        """Yield a message for each pattern that names none of these plugins, nor the core.

        Args:
            plugins: the distribution, the port and the name of each, as for `refusal`.
        """
        known = [[CORE, CORE], *(_names(*plugin) for plugin in plugins)]
        spelt = sorted({name for names in known for name in names})
        for key, patterns, source in (
            ("allow", self.allow or (), self.allow_source),
            ("deny", self.deny, self.deny_source),
        ):
            for pattern in patterns:
                if not any(_matching((pattern,), names) for names in known):
                    hint = did_you_mean(pattern.lower(), spelt)
                    yield (
                        f"plugins.{key} of {source} names {pattern!r}, which no installed plugin "
                        f"is called{hint}"
                    )


UNRESTRICTED = Policy()


def mistakes(place: str, table: Mapping[str, Any]) -> Iterator[str]:
    """Yield what is wrong with a table `[plugins]`.

    Args:
        place: where the table is, for messages.
        table: its keys and values.
    """
    for key, value in table.items():
        if key not in KEYS:
            yield (
                f"{place}: there is no {f'plugins.{key}'!r}"
                f"{did_you_mean(key, KEYS) or '; there are allow and deny'}"
            )
        elif not (
            isinstance(value, str)
            or (isinstance(value, list | tuple) and all(isinstance(v, str) for v in value))
        ):
            yield (
                f"{place}: plugins.{key} must be a list of names, such as "
                f'{key} = ["crucible-*", "acme-blobs"]'
            )
        elif not all(_patterns(value)):
            yield f"{place}: plugins.{key} has an empty name"
        elif odd := next((each for each in _patterns(value) if {*"[]"} & {*each}), ""):
            yield (
                f"{place}: plugins.{key} names {odd!r}; write the name of a distribution without "
                "its extras. Of patterns there are * and ?"
            )


def canonical_pattern(pattern: str) -> str:
    """Return a name, or a pattern of names, as indexes compare names (PEP 503)."""
    return re.sub(r"[-_.]+", "-", pattern).lower()


def _patterns(value: Any) -> list[str]:
    if not isinstance(value, str):
        return [each.strip() for each in value]
    return [each.strip() for each in value.split(",")] if value else []


def _names(distribution: str, port: str, name: str) -> list[str]:
    """Return what patterns are compared with, the distribution's name first, the longest last."""
    names = [canonical_pattern(distribution), name.lower()]
    return [*names, f"{port}.{name}".lower()] if port else names


def _matching(patterns: tuple[str, ...], names: list[str]) -> str:
    """Return the first pattern that one of the names matches; the first name is canonical."""
    for pattern in patterns:
        if fnmatchcase(names[0], canonical_pattern(pattern)):
            return pattern
        if any(fnmatchcase(name, pattern.lower()) for name in names[1:]):
            return pattern
    return ""


def _unrestricted() -> Policy:
    return UNRESTRICTED


_of_the_process: Callable[[], Policy] = _unrestricted
_of_kitchens: ContextVar[tuple[Policy, ...]] = ContextVar("policies", default=())


def decide(find: Callable[[], Policy] = _unrestricted) -> None:
    """Let the policy that `find` returns hold in this process, in place of the one before.

    Args:
        find: called when a plugin is loaded, and not before.
    """
    global _of_the_process
    _of_the_process = find


@contextlib.contextmanager
def enforced(policy: Policy) -> Iterator[None]:
    """Let a policy hold within the block, in addition to those that hold already."""
    before = _of_kitchens.set((*_of_kitchens.get(), policy))
    try:
        yield
    finally:
        _of_kitchens.reset(before)


def is_in_force() -> bool:
    """Say whether anything is forbidden now."""
    return any(
        each.broken or each.deny or each.allow is not None
        for each in (*_of_kitchens.get(), _of_the_process())
    )


def refusal(distribution: str, port: str, name: str) -> str:
    """Say what forbids a plugin now, and where that is written; "" if nothing does.

    Raises:
        ConfigurationError: the settings in which the policy may be written cannot be read.
    """
    for policy in (*_of_kitchens.get(), _of_the_process()):
        if why := policy.refusal(distribution, port, name):
            return why
    return ""
