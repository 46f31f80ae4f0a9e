"""Several numbers of a store that takes them one by one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from crucible_kitchen import AdapterOptions, InvalidInput, MetricEntry, hookimpl
from crucible_kitchen.testing import bound


class Options(AdapterOptions):
    pass


class OneByOne:
    """A store without `record_many`."""

    Options = Options

    def __init__(self) -> None:
        self.recorded: list[tuple[str, float]] = []

    @hookimpl
    def record(
        self,
        run_id: str,
        metric: str,
        value: float,
        step: int | None,
        metadata: Mapping[str, Any] | None,
    ) -> None:
        self.recorded.append((metric, value))

    @hookimpl
    def flush(self, run_id: str) -> None:
        pass

    @hookimpl
    def read(self, run_id: str) -> list[MetricEntry]:
        return []


def test_numbers_are_recorded_one_by_one_in_their_order() -> None:
    adapter = OneByOne()
    with bound("metrics_store", adapter) as store:
        store.record_many("run", {"b": 1.0, "a": 2.0}, 3)
    assert adapter.recorded == [("b", 1.0), ("a", 2.0)]


def test_none_is_recorded_where_one_would_be_refused() -> None:
    adapter = OneByOne()
    bad: Any = {"a": 1.0, "b": "2.0"}
    with (
        bound("metrics_store", adapter) as store,
        pytest.raises(InvalidInput, match="record_many: the value of 'b' must be a number"),
    ):
        store.record_many("run", bad, 3)
    assert adapter.recorded == []
