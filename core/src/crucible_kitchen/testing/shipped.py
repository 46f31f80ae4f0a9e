"""The conformance suites that a package brings along for its adapters.

A package names the module in which they are by an entry point:

    [project.entry-points."crucible.conformance"]
    "blob_store.acme" = "crucible_adapter_acme.conformance"

`crucible check blob_store.acme` then runs these in place of the bare suite, with their oracles,
expected failures and variants.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Collection

import pytest

from ..adapters.discovery import Installed, canonical
from ..adapters.metadata import Package, packages
from ..errors import AdapterLoadError, ConfigurationError, described
from ..messages.spelling import did_you_mean
from .conformance import Conformance

GROUP = "crucible.conformance"


def module_of(entry: Installed) -> str | None:
    """Return the module with the suites of an installed adapter or environment, if it has one."""
    wanted = f"{entry.port or 'environment'}.{entry.name}"
    for package in packages():
        if isinstance(package, Package) and canonical(package.name) == canonical(entry.package):
            for group, name, value in package.points:
                if (group, name) == (GROUP, wanted):
                    return value
    return None


def suites_in(module: str, kind: str) -> Collection[type[Conformance]]:
    """Return the suites of a module for a port, or for environments, in the order of the source.

    Args:
        module: its name. It is imported, so that the package has to be permitted before.
        kind: the port's name, or `environment`.

    Raises:
        AdapterLoadError: it cannot be imported, or has no suite of this kind.
    """
    if module not in sys.modules:
        # So that a failed assertion shows the values that it compared.
        pytest.register_assert_rewrite(module)
    try:
        found = vars(importlib.import_module(module)).values()
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        raise AdapterLoadError(
            f"the conformance suites in {module!r} cannot be imported: {described(error)}"
        ) from error
    suites = [
        each
        for each in found
        if isinstance(each, type)
        and issubclass(each, Conformance)
        and each.__module__ == module
        and getattr(each, "kind", None) == kind
        and not {"kind", "port"} & set(vars(each))
    ]
    if not suites:
        raise AdapterLoadError(f"{module!r} has no conformance suite of {kind}")
    return suites


def chosen(
    suites: Collection[type[Conformance]], variant: str | None, configured: bool
) -> Collection[type[Conformance]]:
    """Return the suites of one variant, or all of them.

    Args:
        suites: those of the package.
        variant: which to take; None takes all.
        configured: whether what is checked has options of its own, so that one suite fits.

    Raises:
        ConfigurationError: no suite has this variant, or it is not said which is meant.
    """
    variants = [suite.variant for suite in suites]
    if variant is not None:
        if variant not in variants:
            known = ", ".join(filter(None, variants)) or "none"
            raise ConfigurationError(
                f"--variant: there is no {variant!r}{did_you_mean(variant, variants)}; "
                f"the package's suites have {known}"
            )
        return [suite for suite in suites if suite.variant == variant]
    if configured and len(suites) > 1:
        raise ConfigurationError(
            f"the package has suites of several variants, and the options are those of one; "
            f"say which with --variant: {', '.join(filter(None, variants))}"
        )
    return suites
