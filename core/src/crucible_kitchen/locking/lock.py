"""A lock, and how what is there differs from it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Self

from packaging.utils import is_normalized_name
from packaging.version import Version

from .sources import NOT_WRITTEN, Source

ALTERED = "altered"
"""In place of the digest of a distribution that is not as it was installed."""


@dataclass(frozen=True, slots=True)
class Locked:
    """A distribution in a lock.

    Args:
        version: its version.
        digest: SHA-256 of what its files are, as `digests` has it; "" if that is not known; or
            `ALTERED`.
        source: where it comes from; empty if that is not known.
    """

    version: str
    digest: str = ""
    source: Source = field(default_factory=dict)

    @property
    def editable(self) -> bool:
        """Whether it is installed in editable form, so that its files may change."""
        return self.source.get("directory", {}).get("editable") is True

    @property
    def files(self) -> list[Mapping[str, Any]]:
        """The files that it may be installed from, as the source has them."""
        files = [*self.source.get("wheels", ())]
        return files + [self.source[kind] for kind in ("sdist", "archive") if kind in self.source]


@dataclass(frozen=True, slots=True)
class Lock:
    """What a kitchen is made of.

    Args:
        python: the version of Python, such as `3.11.7`; "" if it is not known.
        packages: the distributions by name: those of its plugins, all that they require, and the
            core.
        plugins: the distribution of each plugin, by what the plugin is called.
        cards: the digest of each report card that the plugins' distributions bring along, by
            `<distribution> <file>`.
        extras: the extras that count of each distribution of a plugin, by its name.
    """

    python: str
    packages: Mapping[str, Locked]
    plugins: Mapping[str, str] = field(default_factory=dict)
    cards: Mapping[str, str] = field(default_factory=dict)
    extras: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def with_sources(self, sources: Mapping[str, Source]) -> Self:
        """Return it with other sources for some of its distributions."""
        packages = {
            name: replace(one, source=sources[name]) if name in sources else one
            for name, one in self.packages.items()
        }
        return replace(self, packages=packages)

    @property
    def sourceless(self) -> list[str]:
        """The distributions of which it is not known where they come from."""
        return [name for name, one in self.packages.items() if not one.source]

    @property
    def cut(self) -> list[str]:
        """The distributions whose URLs are incomplete, for they may have held a secret."""
        return [name for name, one in self.packages.items() if NOT_WRITTEN in str(one.source)]

    def record(self) -> dict[str, Any]:
        """Return it as plain data for the record of a run, without sources."""
        return {
            "python": self.python,
            "packages": {n: f"{p.version} {p.digest}".rstrip() for n, p in self.packages.items()},
            "plugins": dict(self.plugins),
            "cards": dict(self.cards),
            "extras": {name: list(extras) for name, extras in self.extras.items()},
        }

    @classmethod
    def of_record(cls, data: Any) -> Self:
        """Return the lock of a run's record.

        Raises:
            ValueError: it is not one.
        """
        match data:
            case {"python": str(python), "packages": dict(), "plugins": dict(), "cards": dict()}:
                packages, plugins, cards = (
                    texts(data[key]) for key in ("packages", "plugins", "cards")
                )
            case _:
                raise ValueError("it is not a lock")
        locked = {}
        for name, text in packages.items():
            version, _, digest = text.partition(" ")
            Version(version)
            if not is_normalized_name(name):
                raise ValueError(f"{name!r} is not the name of a distribution")
            locked[name] = Locked(version, digest)
        return cls(python, locked, plugins, cards, extras_of(data.get("extras", {})))


def texts(table: Mapping[Any, Any]) -> dict[str, str]:
    """Return a table of texts.

    Raises:
        ValueError: something in it is not a text.
    """
    if not all(isinstance(each, str) for pair in table.items() for each in pair):
        raise ValueError("it has something else than texts")
    return dict(table)


def extras_of(table: Any) -> dict[str, tuple[str, ...]]:
    """Return a table of lists of texts.

    Raises:
        ValueError: it is something else.
    """
    if not isinstance(table, Mapping) or not all(isinstance(e, list) for e in table.values()):
        raise ValueError("its extras are not lists")
    texts({each: each for extras in table.values() for each in extras} | dict.fromkeys(table, ""))
    return {name: tuple(extras) for name, extras in table.items()}


def differences(lock: Lock, now: Lock) -> Iterator[str]:
    """Yield how what is there differs from a lock, a sentence each.

    Args:
        lock: the lock.
        now: what is there. A distribution that is not in it is not installed.
    """
    if lock.python and _minor(lock.python) != _minor(now.python):
        yield f"Python is {now.python}, locked is {lock.python}"
    # A lock of another tool says nothing of plugins; what they come from is compared all the same.
    for plugin, package in now.plugins.items() if lock.plugins else ():
        if plugin not in lock.plugins:
            yield f"{plugin} ({package}) is chosen, and is not in the lock"
        elif lock.plugins[plugin] != package:
            yield f"{plugin} comes from {package}, locked is that of {lock.plugins[plugin]}"
    for name, wanted in lock.packages.items():
        yield from _difference(name, wanted, now.packages.get(name))
    chosen = lock.plugins and {p for plugin, p in now.plugins.items() if plugin not in lock.plugins}
    for name, one in now.packages.items():
        if name not in lock.packages and name not in chosen:
            yield f"{name} {one.version} is required, and is not in the lock"
    for card, digest in lock.cards.items():
        package = card.partition(" ")[0]
        if package in now.plugins.values() and now.cards.get(card) != digest:
            gone = "is gone" if card not in now.cards else "is not the one that was locked"
            yield f"the report card {card} {gone}"


def _difference(name: str, wanted: Locked, there: Locked | None) -> Iterator[str]:
    if there is None:
        yield f"{name} {wanted.version} is not installed"
    elif wanted.version not in ("", there.version):  # PEP 751 wants none of a folder
        yield f"{name} is {there.version}, locked is {wanted.version}"
    elif there.editable != wanted.editable:
        yield f"{name} is installed in {_form(there)}, locked in {_form(wanted)}"
    elif there.digest == ALTERED:
        yield f"{name} {there.version} was changed after it was installed"
    elif wanted.digest and there.digest != wanted.digest:
        yield f"{name} {wanted.version} has other files than the one that was locked"


def _form(one: Locked) -> str:
    return "editable form" if one.editable else "a copy"


def _minor(version: str) -> list[str]:
    return version.split(".")[:2]
