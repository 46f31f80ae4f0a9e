"""What a noop can promise, it does; what it cannot, since nothing is behind it, it is excused."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from crucible_kitchen import BlobStore
from crucible_kitchen.testing import LEVEL, BlobStoreConformance, bound


class TestBlobStore(BlobStoreConformance):
    level = LEVEL

    @pytest.fixture
    def blob_store(self) -> Iterator[BlobStore]:
        with bound("blob_store", "noop", latency_scale=0) as store:
            yield store
