"""While it is recorded, an adapter keeps every promise of its port."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from crucible_kitchen import PORTS
from crucible_kitchen.testing import LEVEL, Conformance, bound, suite_of

pytestmark = [
    pytest.mark.slow,
    # Suites bind the same adapter in several processes, each of which records.
    pytest.mark.filterwarnings("ignore:.*was recorded by another process meanwhile"),
]


def suite(port: str) -> type[Conformance]:
    """Return a port's suite on a noop that is recorded."""
    adapter = getattr(importlib.import_module("crucible_adapter_compose.cassette"), port)

    def opened(test: Any, tmp_path: Path) -> Iterator[Any]:
        noop = {"use": "noop", "latency_scale": 0}
        file = tmp_path / "cassette.jsonl"
        with bound(port, adapter, file=file, mode="record", inner=noop) as recorded:
            yield recorded

    members = {port: pytest.fixture(opened), "variant": "around noop"}
    members |= {"level": LEVEL, "max_examples": 5}
    return type(f"TestCassette{PORTS[port].__name__}", (suite_of(port),), members)


for port in PORTS:
    made = suite(port)
    globals()[made.__name__] = made
