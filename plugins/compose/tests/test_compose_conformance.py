"""Every wrapper around the noop keeps every promise of its port."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import crucible_adapter_compose as compose
import pytest
from crucible_adapter_compose import fallback, faulty, limit, retry, tee  # noqa: F401
from crucible_kitchen.testing import BlobStoreConformance, Conformance, bound

import kitchen_noop

SUITES: tuple[type[Conformance], ...] = (BlobStoreConformance,)
"""The suites of the ports; one line for each that the kit gets."""

WRAPPERS: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "retry": ("one", {}),
    "limit": ("one", {"concurrency": 1, "rate": 1e6}),
    "faulty": ("one", {}),
    "retry of faulty": ("failing", {"max_attempts": 50, "wait": 0}),
    "fallback": ("several", {}),
    "fallback from faulty": ("first failing", {}),
    "tee": ("several", {}),
}
"""By name: what is inside, and the wrapper's options. The name begins with the wrapper's."""


def inside(kind: str, port: str) -> Any:
    noop = {"use": getattr(kitchen_noop, port), "latency_scale": 0}
    failing = {"use": getattr(faulty, port), "inner": noop, "failure_rate": 0.2}
    if port == "blob_store":  # a write from an iterator is never repeated
        failing["callbacks"] = ("read", "stream", "exists", "delete", "list", "read_range")
    return {
        "one": noop,
        "several": [noop, noop],
        "failing": failing,
        "first failing": [{**failing, "failure_rate": 1.0}, noop],
    }[kind]


def on(suite: type[Conformance], name: str) -> type[Conformance] | None:
    """Make the suite's tests of one wrapper, if there is one for the port."""
    port = suite.port.name
    kind, options = WRAPPERS[name]
    adapter = getattr(getattr(compose, name.split()[0]), port, None)
    if adapter is None or (name == "fallback from faulty" and port == "blob_store"):
        return None  # what changes something goes to the first store, which is never there

    def opened(test: Any) -> Iterator[Any]:
        with bound(port, adapter, inner=inside(kind, port), **options) as wrapped:
            yield wrapped

    variant = f"{' '.join(['around', *name.split()[2:]])} noop"
    members = {port: pytest.fixture(opened), "variant": variant, "max_examples": 5}
    return type(f"Test{name.title().replace(' ', '')}{suite.port.__name__}", (suite,), members)


for suite in SUITES:
    for wrapper in WRAPPERS:
        if (made := on(suite, wrapper)) is not None:
            globals()[made.__name__] = made
