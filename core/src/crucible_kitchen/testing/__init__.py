"""The conformance kit: what each port promises, as tests that an adapter's author subclasses.

    from crucible_kitchen.testing import BlobStoreConformance, bound

    class TestAcme(BlobStoreConformance):
        @pytest.fixture
        def blob_store(self, tmp_path):
            with bound("blob_store", acme.blob_store, root=tmp_path) as store:
                yield store

One fixture, named as the port, is required. Each test's docstring says what is promised, why, and
what usually breaks it. What an adapter does not implement is skipped, nothing else is: a test may
be marked `xfail` with a reason, and never be replaced or removed. `crucible check` runs the same
tests and prints a report card.

Needs pytest and hypothesis: `pip install "crucible-kitchen[testing]"`.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

try:
    import pytest
except ImportError as error:
    raise ImportError(
        "the conformance kit needs pytest: pip install 'crucible-kitchen[testing]'"
    ) from error

from .conformance import LEVEL, Conformance, bound, needs, since, unless_synthetic

if TYPE_CHECKING:
    from .blob_store import BlobStoreConformance
    from .completer import CompleterConformance
    from .hub_client import HubClientConformance

SUITES = {
    "blob_store": "BlobStoreConformance",
    "completer": "CompleterConformance",
    "hub_client": "HubClientConformance",
}
"""The name of each port's suite."""


def suite_of(port: str) -> type[Conformance]:
    """Return the suite of a port."""
    # So that a failed assertion tells the values that it compared.
    pytest.register_assert_rewrite(f"{__name__}.{port}")
    found: type[Conformance] = getattr(importlib.import_module(f".{port}", __name__), SUITES[port])
    return found


def __getattr__(name: str) -> Any:
    # Late, for pytest rewrites the assertions only of what is imported after it has started.
    for port, suite in SUITES.items():
        if suite == name:
            return suite_of(port)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


__all__ = [
    "LEVEL",
    "BlobStoreConformance",
    "CompleterConformance",
    "Conformance",
    "HubClientConformance",
    "bound",
    "needs",
    "since",
    "suite_of",
    "unless_synthetic",
]
