"""Which distribution a name means: that of an adapter, an environment, an observer, or its own."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from ..adapters.discovery import CORE, GROUPS, PORT_NAMES, catalog
from ..adapters.known_packages import packages_of
from ..errors import ConfigurationError
from ..messages.spelling import did_you_mean, listed


def to_install(names: Iterable[str]) -> list[str]:
    """Return what an installer is asked for.

    Args:
        names: of known adapters, environments and observers, as `fsspec` or `blob_store.fsspec`,
            perhaps with extras and versions; of distributions; paths and URLs of these.

    Raises:
        ConfigurationError: a name is misspelt, or means several distributions.
    """
    known = _known()
    return [_requirement(name, known) for name in names]


def _requirement(name: str, known: Mapping[str, set[str]]) -> str:
    if _is_a_place(name):
        return name
    try:
        requirement = Requirement(name)
    except InvalidRequirement:
        raise ConfigurationError(
            f"{name!r} is neither the name of an adapter nor a requirement such as "
            "'crucible-adapter-fsspec[s3]==1.0'"
        ) from None
    if found := known.get(requirement.name):
        requirement.name = _only(name, found)
        return str(requirement)
    distributions = {each for found in known.values() for each in found} | {CORE}
    canonical = canonicalize_name(requirement.name)
    if canonical in distributions:
        return name
    if hint := did_you_mean(requirement.name, [*known, *distributions]):
        raise ConfigurationError(
            f"no adapter is named {requirement.name!r}{hint} If it is a distribution of that name, "
            f"write pip install {requirement.name}"
        )
    return name


def installed(names: Iterable[str]) -> list[str]:
    """Return the distributions of installed plugins.

    Args:
        names: of plugins, or of distributions that have some.

    Raises:
        ConfigurationError: nothing of a name is installed, or it means several distributions.
    """
    there: dict[str, set[str]] = {}
    for group in GROUPS:
        found = catalog(group)
        for entry in found.entries:
            if entry.package != CORE:
                for name in (entry.name, f"{entry.port}.{entry.name}", _canonical(entry.package)):
                    there.setdefault(name, set()).add(entry.package)
        for problem in found.problems:  # its metadata is damaged
            there.setdefault(_canonical(problem.package), set()).add(problem.package)
    chosen = []
    for name in names:
        distributions = there.get(name) or there.get(_canonical(name))
        if distributions is None:
            hint = did_you_mean(name, there) or f"; there is {listed(name, there) or 'none'}"
            raise ConfigurationError(f"no plugin {name!r} is installed{hint}")
        chosen.append(_only(name, distributions))
    return list(dict.fromkeys(chosen))


def _only(name: str, distributions: set[str]) -> str:
    if len(distributions) == 1:
        return next(iter(distributions))
    several = listed(name, sorted(distributions), " and ")
    raise ConfigurationError(f"several distributions provide {name!r}: {several}; name one of them")


def _canonical(name: str) -> str:
    return canonicalize_name(name)


def _known() -> dict[str, set[str]]:
    """Return the distributions of this project by the names of what they provide."""
    known: dict[str, set[str]] = {}
    for kind in (*PORT_NAMES, "environment", "observer"):
        for name, package in packages_of(kind).items():
            for called in (name, f"{kind}.{name}"):
                known.setdefault(called, set()).add(package)
    return known


def _is_a_place(name: str) -> bool:
    """Say whether it is a URL, or the path of a wheel or of a folder."""
    if "://" in name or name.endswith(".whl"):
        return True
    return name.startswith((".", "/", "~")) or ("/" in name and Path(name).exists())
