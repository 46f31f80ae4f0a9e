"""The lock of what is installed now."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

from ..adapters.cards import Cards
from ..adapters.discovery import CORE, Installed, canonical
from ..errors import ConfigurationError
from ..settings import Settings
from . import digests, sources
from .environment import Distribution, Environment
from .lock import ALTERED, Lock, Locked, differences
from .plugins import named


@dataclass(frozen=True, slots=True)
class Taken:
    """A lock that was taken, and what it cannot hold.

    Args:
        lock: the lock.
        local: what the settings import from a module or a file.
        missing: what a profile that is not chosen names, or options, and is not installed.
    """

    lock: Lock
    local: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()


def take(
    settings: Settings,
    *,
    profiles: bool = True,
    extras: Mapping[str, tuple[str, ...]] = MappingProxyType({}),
) -> Taken:
    """Return the lock of what the settings name, as it is installed where this process runs.

    Args:
        settings: merged settings.
        profiles: whether those of profiles count that are not chosen.
        extras: those that count of distributions of plugins; of others, those of which all is
            installed.

    Raises:
        ConfigurationError: a plugin, or what one requires, is not installed.
    """
    found = named(settings, profiles=profiles)
    here = Environment.here()
    names = sorted({canonical(e.package) for e in found.entries.values()} - {CORE})
    counting = {name: extras[name] if name in extras else here.extras_of(name) for name in names}
    there, missing = here.closure({**counting, CORE: ["otel"] if found.otel else []})
    if missing:
        raise ConfigurationError(
            *(
                f"{name} is not installed" + (f", and {by} requires it" if by else "")
                for name, by in sorted(missing.items())
            )
        )
    plugins = {called: canonical(e.package) for called, e in sorted(found.entries.items())}
    lock = Lock(
        here.version,
        {name: locked(one) for name, one in there.items()},
        plugins,
        _cards(found.entries.values()),
        counting,
    )
    return Taken(lock, tuple(found.local), tuple(found.missing))


def unlike(lock: Lock, settings: Settings, *, thorough: bool = False) -> list[str]:
    """Return how what the settings name, and what is installed, differ from a lock: sentences.

    What the lock has for profiles that are not chosen must be installed as well. The files of the
    core and of plugins are read; of the other distributions sizes are compared.

    Args:
        lock: the lock.
        settings: merged settings.
        thorough: whether the files of all distributions are read, which may be gigabytes.
    """
    here = Environment.here()
    there = installed(lock, here)
    altered = [
        f"{name} was changed after it was installed: {path}"
        for name, path in _altered(lock, here, thorough=thorough)
    ]
    mistakes: tuple[str, ...] = ()
    try:
        taken = take(settings, profiles=False, extras=lock.extras).lock
    except ConfigurationError as error:
        mistakes = error.mistakes
        now = there
    else:
        now = replace(taken, packages={**there.packages, **taken.packages})
    return [*differences(lock, now), *altered, *added(lock, here)] or [*mistakes]


def _altered(lock: Lock, environment: Environment, *, thorough: bool) -> Iterator[tuple[str, str]]:
    """Yield each distribution that is not as it was installed, and the path of a file."""
    ours = {CORE, *lock.plugins.values()}
    for name, wanted in lock.packages.items():
        there = environment.find(name)
        if there is None or wanted.editable:
            continue
        if path := digests.altered(there.folder, contents=thorough or name in ours):
            yield name, path


def added(lock: Lock, environment: Environment) -> list[str]:
    """Return which modules are in the core and in plugins that were not installed: sentences.

    No installer removes them, since it does not know them.
    """
    found = []
    for name, wanted in lock.packages.items():
        if name not in {CORE, *lock.plugins.values()} or wanted.editable:
            continue
        there = environment.find(name)
        if there is not None and (path := digests.added(there.folder)):
            found.append(f"{name} was not installed with {path}: remove that")
    return found


def installed(lock: Lock, environment: Environment) -> Lock:
    """Return what is there of the distributions in a lock. Plugins and cards are left out."""
    there = {name: environment.find(name) for name in lock.packages}
    packages = {name: locked(one) for name, one in there.items() if one is not None}
    return Lock(environment.version, packages)


def as_is(lock: Lock, environment: Environment) -> Lock:
    """Do as `installed`, and mark what was changed after it was installed: all files are read."""
    found = installed(lock, environment)
    packages = dict(found.packages)
    for name, _ in _altered(lock, environment, thorough=True):
        packages[name] = replace(packages[name], digest=ALTERED)
    return replace(found, packages=packages)


def locked(one: Distribution) -> Locked:
    """Return an installed distribution as a lock has it."""
    source = sources.noted(one)
    found = Locked(one.version, source=source)
    return found if found.editable else replace(found, digest=digests.of_installed(one.folder))


def _cards(entries: Iterable[Installed]) -> Mapping[str, str]:
    packages = {entry.package: entry for entry in entries}
    with Cards() as cards:
        return {
            f"{canonical(name)} {card.file}": card.digest
            for name, entry in sorted(packages.items())
            for card in cards.of(name, entry.version, entry.folder)
        }
