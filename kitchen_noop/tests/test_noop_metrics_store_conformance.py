"""The metrics store in memory keeps every promise of the port that one without a disk can keep."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from crucible_kitchen import MetricsStore
from crucible_kitchen.testing import LEVEL, MetricsStoreConformance, bound

from kitchen_noop import metrics_store as noop


class TestNoop(MetricsStoreConformance):
    level = LEVEL

    @pytest.fixture
    def metrics_store(self) -> Iterator[MetricsStore]:
        with bound("metrics_store", noop, latency_scale=0) as store:
            yield store
