"""The store of made-up rows keeps every promise of the port that such a one can keep."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager

import pytest
from crucible_kitchen import DatasetStore
from crucible_kitchen.testing import LEVEL, DatasetStoreConformance, bound

from kitchen_noop import dataset_store as noop


class TestNoop(DatasetStoreConformance):
    level = LEVEL

    @pytest.fixture
    def reopen(self) -> Callable[[], AbstractContextManager[DatasetStore]]:
        rows = {"train": 120, "test": 30}
        return lambda: bound("dataset_store", noop, latency_scale=0, rows=rows)

    @pytest.fixture
    def dataset_store(
        self, reopen: Callable[[], AbstractContextManager[DatasetStore]]
    ) -> Iterator[DatasetStore]:
        with reopen() as store:
            yield store

    @pytest.fixture
    def dataset_id(self) -> str:
        return "sums"

    @pytest.fixture
    def split(self) -> str:
        return "train"

    @pytest.fixture
    def splits(self) -> tuple[str, ...]:
        return ("train", "test")
