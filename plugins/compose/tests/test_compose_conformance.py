"""Behind a wrapper that makes up for failures, a noop that fails keeps every promise of its port.

`tests/support/around.py` has every wrapper around every adapter where nothing fails.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
from crucible_kitchen import PORTS
from crucible_kitchen.testing import LEVEL, Conformance, bound, suite_of

pytestmark = pytest.mark.slow

READING: Mapping[str, tuple[str, ...]] = {
    # A write from an iterator is never repeated, nor is a write made up for by another store.
    "blob_store": ("read", "stream", "exists", "delete", "list", "read_range"),
    "hub_client": ("download", "snapshot", "list_files"),
}
"""The callbacks that fail, where not all do."""


def suite(port: str, wrapper: str) -> type[Conformance] | None:
    """Return a port's suite on a wrapper around a failing noop; None if it is not for the port."""
    module = importlib.import_module(f"crucible_adapter_compose.{wrapper}")
    if (adapter := getattr(module, port, None)) is None:
        return None
    noop: dict[str, Any] = {"use": "noop", "latency_scale": 0}
    failing: dict[str, Any] = {"use": "faulty", "inner": noop, "callbacks": READING.get(port, ())}
    options_of: dict[str, dict[str, Any]] = {
        "retry": {"inner": {**failing, "failure_rate": 0.2}, "max_attempts": 50, "wait": 0},
        "fallback": {"inner": [{**failing, "failure_rate": 1.0}, noop]},
    }
    options = options_of[wrapper]

    def opened(test: Any) -> Iterator[Any]:
        with bound(port, adapter, **options) as wrapped:
            yield wrapped

    members = {port: pytest.fixture(opened), "variant": "around failing noop"}
    members |= {"level": LEVEL, "max_examples": 5}
    return type(f"Test{wrapper.title()}{PORTS[port].__name__}", (suite_of(port),), members)


for port in PORTS:
    for wrapper in ("retry", "fallback"):
        if wrapper == "fallback" and port in READING:
            continue  # what is written goes to the first alone, which is never there to be read
        if (made := suite(port, wrapper)) is not None:
            globals()[made.__name__] = made
