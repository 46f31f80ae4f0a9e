"""Whether an installed package is for this version of the core, and what to do if it is not."""

from __future__ import annotations

from collections.abc import Iterable

CORE = "crucible-kitchen"


def unfit(package: str, version: str, requires: Iterable[str]) -> str:
    """Say which core a package needs and what helps; "" if this core fits.

    Args:
        package: its name.
        version: its version.
        requires: what it requires, as its metadata writes it.
    """
    from packaging.requirements import InvalidRequirement, Requirement
    from packaging.utils import canonicalize_name
    from packaging.version import Version

    from ..version import __version__

    # A development build of the core, such as 1.2.dev3, stands for the release it becomes.
    running = Version(Version(__version__).base_version)
    for line in requires:
        try:
            requirement = Requirement(line)
        except InvalidRequirement:
            continue
        if (
            canonicalize_name(requirement.name) == CORE
            and (requirement.marker is None or requirement.marker.evaluate({"extra": ""}))
            and not requirement.specifier.contains(running, prereleases=True)
        ):
            wanted = f"{CORE}{requirement.specifier}"
            needs = f"needs {CORE} {requirement.specifier}, this is {CORE} {__version__}: "
            return needs + _advice(package, version, wanted, _sides(requirement.specifier, running))
    return ""


def _sides(specifiers: Iterable[object], running: object) -> set[str]:
    """Return on which sides of what is allowed a version is: `old`, `new`, or neither."""
    from packaging.specifiers import Specifier
    from packaging.version import InvalidVersion, Version

    sides = set()
    for each in specifiers:
        assert isinstance(each, Specifier)
        assert isinstance(running, Version)
        if each.contains(running, prereleases=True) or each.operator == "!=":
            continue
        try:
            bound = Version(each.version.removesuffix(".*"))
        except InvalidVersion:  # `===` compares texts
            continue
        too_new = each.operator in ("<", "<=") or (
            each.operator not in (">", ">=") and running > bound
        )
        sides.add("new" if too_new else "old")
    return sides


def _advice(package: str, version: str, wanted: str, sides: set[str]) -> str:
    if sides == {"old"}:
        return f"the core is too old; pip install --upgrade '{wanted}'"
    if sides == {"new"}:
        return (
            f"the core is too new; pip install --upgrade {package}, which finds a release for this "
            f"core if there is one. If {version} stays installed, there is none yet: go back with "
            f"pip install '{wanted}', or wait for one"
        )
    return f"pip install --upgrade {package}, or else pip install '{wanted}'"
