"""The conformance kit: what each port and every environment promises, as tests to subclass.

    from crucible_kitchen.testing import BlobStoreConformance, bound

    class TestAcme(BlobStoreConformance):
        @pytest.fixture
        def blob_store(self, tmp_path):
            with bound("blob_store", acme.blob_store, root=tmp_path) as store:
                yield store

One fixture, named after the port, is required; of an environment, `environment`. Each test's
docstring says what is promised, why, and what usually breaks it. Tests of what an adapter does not
implement are skipped, no others: a test may be marked `xfail` with a reason, but not replaced or
removed. What is promised between processes is tested in another one; see `Elsewhere`.
`crucible check` runs the same tests and prints a report card.

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
from .processes import Elsewhere

if TYPE_CHECKING:
    from .blob_store import BlobStoreConformance
    from .completer import CompleterConformance
    from .dataset_store import DatasetStoreConformance
    from .environment import EnvironmentConformance
    from .hub_client import HubClientConformance
    from .metrics_store import MetricsStoreConformance
    from .training_client import TrainingClientConformance

SUITES = {
    "training_client": "TrainingClientConformance",
    "dataset_store": "DatasetStoreConformance",
    "blob_store": "BlobStoreConformance",
    "hub_client": "HubClientConformance",
    "metrics_store": "MetricsStoreConformance",
    "completer": "CompleterConformance",
    "environment": "EnvironmentConformance",
}
"""The name of the suite of each port, and of environments."""


def suite_of(kind: str) -> type[Conformance]:
    """Return the suite of a port, or of environments."""
    # So that a failed assertion shows the values that it compared.
    pytest.register_assert_rewrite(f"{__name__}.{kind}")
    found: type[Conformance] = getattr(importlib.import_module(f".{kind}", __name__), SUITES[kind])
    return found


def __getattr__(name: str) -> Any:
    # Late, since pytest rewrites assertions only in modules imported after it has started.
    for port, suite in SUITES.items():
        if suite == name:
            return suite_of(port)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


__all__ = [
    "LEVEL",
    "BlobStoreConformance",
    "CompleterConformance",
    "Conformance",
    "DatasetStoreConformance",
    "Elsewhere",
    "EnvironmentConformance",
    "HubClientConformance",
    "MetricsStoreConformance",
    "TrainingClientConformance",
    "bound",
    "needs",
    "since",
    "suite_of",
    "unless_synthetic",
]
