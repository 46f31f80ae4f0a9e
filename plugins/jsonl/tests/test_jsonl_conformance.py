"""The JSON Lines metrics store keeps every promise of its port."""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import crucible_adapter_jsonl.metrics_store as jsonl
import pytest
from crucible_adapter_jsonl.files import file_name
from crucible_kitchen import MetricsStore
from crucible_kitchen.testing import LEVEL, MetricsStoreConformance, bound


class TestJsonLines(MetricsStoreConformance):
    level = LEVEL

    @pytest.fixture
    def metrics_store(self, tmp_path: Path) -> Iterator[MetricsStore]:
        with bound("metrics_store", jsonl, path=tmp_path) as store:
            yield store

    @pytest.fixture
    def reopen(self, tmp_path: Path) -> Any:
        return functools.partial(bound, "metrics_store", jsonl, path=tmp_path)

    @pytest.fixture
    def stored(self, tmp_path: Path) -> Any:
        def values(run_id: str) -> dict[tuple[str, int], float]:
            lines = (tmp_path / file_name(run_id)).read_text("utf-8").splitlines()
            rows = [json.loads(line) for line in lines if line]
            return {
                (row["metric"], row["step"]): float(row["value"])
                for row in rows
                if row["step"] is not None
            }

        return values
