"""Which distribution a name means: that of an adapter, an environment, an observer, or its own."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from packaging.requirements import InvalidRequirement, Requirement
from packaging.specifiers import SpecifierSet

from ..adapters.discovery import CORE, GROUPS, KINDS, PORT_NAMES, canonical, catalog
from ..adapters.known_packages import packages_of
from ..errors import ConfigurationError
from ..messages.spelling import did_you_mean, listed, nearest
from .wheels import Offer, offered


def to_install(names: Iterable[str], folders: Iterable[Path] = ()) -> list[str]:
    """Return what an installer is asked for.

    A name that nobody knows is not looked for in an index, where it may be that of something else.

    Args:
        names: of adapters, environments and observers that are known here, installed, or in wheels
            in the folders, as `fsspec` or `blob_store.fsspec`, perhaps with extras and versions; of
            their distributions, and of any whose name begins with `crucible-`; paths and URLs.
        folders: where wheels lie.

    Raises:
        ConfigurationError: a name is misspelt or unknown, or means several distributions.
    """
    known = _known()
    offers = list(offered(folders))
    there = _installed()
    return [_requirement(name, known, offers, there) for name in names]


def _requirement(
    name: str,
    known: Mapping[str, set[str]],
    offers: Sequence[Offer],
    there: Mapping[str, set[str]],
) -> str:
    if _is_a_place(name):
        return name
    requirement = _parsed(name)
    if found := known.get(requirement.name):
        requirement.name = _only(name, found)
        return str(requirement)
    distributions = {each for found in known.values() for each in found}
    wanted = canonical(requirement.name)
    if wanted in distributions | {CORE}:
        return name
    fitting = [each for each in offers if {requirement.name, wanted} & _names_of(each)]
    if fitting:
        requirement.name = _only(name, {each.distribution for each in fitting})
        newest = max(requirement.specifier.filter(each.version for each in fitting), default=None)
        if newest is None:
            raise ConfigurationError(f"{name}: no wheel in the folders has such a version")
        # This one: an index may have a newer one of the same name that is something else.
        requirement.specifier = SpecifierSet(f"=={newest}")
        return str(requirement)
    if found := there.get(requirement.name) or there.get(wanted):
        requirement.name = _only(name, found)
        return str(requirement)
    kind, _, rest = wanted.removeprefix("crucible-").partition("-")
    if wanted.startswith("crucible-") and rest:
        its = {d for d in distributions if d.startswith(f"crucible-{kind}-")}
        near = nearest(rest, [d.removeprefix(f"crucible-{kind}-") for d in its])
        if not near:
            return name
        hint = f"; did you mean 'crucible-{kind}-{near}'?"
    else:
        offering = (each for offer in offers for each in _names_of(offer))
        hint = _hint(requirement.name, {*known, *distributions, *there, *offering})
    if hint:
        raise ConfigurationError(
            f"no adapter is named {requirement.name!r}{hint} If it is a distribution of that name, "
            f"write pip install {requirement.name}"
        )
    raise ConfigurationError(
        f"no adapter is named {requirement.name!r}, and an index may have something else under "
        f"that name. Write a distribution in full, such as crucible-adapter-{_last(wanted)}; if "
        f"it is called {requirement.name!r}, pip install {requirement.name}"
    )


def _hint(name: str, known: Iterable[str]) -> str:
    """Return the end of a message about an unknown name; of `<port>.<name>` the name is near."""
    port, _, rest = name.rpartition(".")
    if port not in (*PORT_NAMES, "environment", "observer"):
        return did_you_mean(name, sorted(known))
    alike = sorted(n for n in known if n.startswith(f"{port}."))
    near = nearest(rest, [each.rpartition(".")[2] for each in alike])
    return did_you_mean(name, [f"{port}.{near}"]) if near else ""


def _last(name: str) -> str:
    """Return what an adapter may be called that is written as `acme`, or as `blob_store.acme`."""
    for port in (*PORT_NAMES, "environment", "observer"):
        name = name.removeprefix(f"{canonical(port)}-")
    return name


def to_upgrade(names: Iterable[str]) -> list[str]:
    """Return what an installer is asked for to upgrade plugins, and what they may be pinned to.

    Args:
        names: of installed plugins, or of distributions that have some, perhaps with extras and
            versions; of the core; paths and URLs.

    Raises:
        ConfigurationError: nothing of a name is installed, or it means several distributions.
    """
    there = {**_installed(), CORE: {CORE}}
    chosen = []
    for name in names:
        if _is_a_place(name):
            chosen.append(name)
            continue
        requirement = _parsed(name)
        requirement.name = _found(requirement.name, there, "; `crucible install` installs one")
        chosen.append(str(requirement))
    return chosen


def installed(names: Iterable[str]) -> list[str]:
    """Return the distributions of installed plugins.

    Args:
        names: of plugins, or of distributions that have some.

    Raises:
        ConfigurationError: nothing of a name is installed, or it means several distributions.
    """
    there = _installed()
    for name in names:
        if canonical(name) == CORE:
            raise ConfigurationError(
                f"{CORE} is the core, on which all plugins depend: pip uninstall {CORE}"
            )
    return list(dict.fromkeys(_found(name, there) for name in names))


def _installed() -> dict[str, set[str]]:
    """Return the distributions of what is installed, by the names of plugins and their own."""
    there: dict[str, set[str]] = {}
    for group in GROUPS:
        found = catalog(group)
        for entry in found.entries:
            if entry.package != CORE:
                kind = entry.port or KINDS[group]
                own = canonical(entry.package)
                for name in (entry.name, f"{kind}.{entry.name}", own):
                    there.setdefault(name, set()).add(entry.package)
        for problem in found.problems:  # its metadata is damaged
            there.setdefault(canonical(problem.package), set()).add(problem.package)
    for own in [name for name in there if name.startswith("crucible-")]:
        there.setdefault(_short(own), there[own])
    return there


def _found(name: str, there: Mapping[str, set[str]], advice: str = "") -> str:
    if distributions := there.get(name) or there.get(canonical(name)):
        return _only(name, distributions)
    hint = _hint(name, there) or f"; there is {listed(name, sorted(there)) or 'none'}"
    raise ConfigurationError(f"no plugin {name!r} is installed{hint}{advice}".replace("?;", "?"))


def _parsed(name: str) -> Requirement:
    try:
        return Requirement(name)
    except InvalidRequirement:
        raise ConfigurationError(
            f"{name!r} is neither the name of an adapter nor a requirement such as "
            "'crucible-adapter-fsspec[s3]==1.0'"
        ) from None


def _names_of(offer: Offer) -> set[str]:
    """Return what the plugins of a wheel are called, and what its distribution is."""
    names = {offer.distribution, _short(offer.distribution)}
    for group, name in offer.points:
        kind = KINDS.get(group)
        names |= {name, f"{kind}.{name}"} if kind else {name, name.partition(".")[2]}
    return names


def _short(distribution: str) -> str:
    """Return the last part of a name such as `crucible-adapter-compose`."""
    return distribution.split("-", 2)[-1] if distribution.startswith("crucible-") else distribution


def _only(name: str, distributions: set[str]) -> str:
    if len(distributions) == 1:
        return next(iter(distributions))
    several = listed(name, sorted(distributions), " and ")
    raise ConfigurationError(f"several distributions provide {name!r}: {several}; name one of them")


def _known() -> dict[str, set[str]]:
    """Return the distributions of this project by the names of what they provide."""
    known: dict[str, set[str]] = {}
    for kind in (*PORT_NAMES, "environment", "observer"):
        for name, package in packages_of(kind).items():
            for called in (name, f"{kind}.{name}"):
                known.setdefault(called, set()).add(package)
    for package in {each for found in known.values() for each in found}:
        known.setdefault(_short(package), {package})
    return known


def _is_a_place(name: str) -> bool:
    """Say whether it is a URL, or the path of a wheel or of a folder."""
    if "://" in name or name.endswith(".whl"):
        return True
    return name.startswith((".", "/", "~")) or ("/" in name and Path(name).exists())
