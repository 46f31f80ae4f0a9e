"""The metrics store on MLflow passes the conformance kit, with MLflow's own server."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from functools import partial
from typing import Protocol

import crucible_adapter_mlflow.metrics_store as mlflow_store
import httpx2
import pytest
from crucible_kitchen import MetricsStore
from crucible_kitchen.testing import LEVEL, MetricsStoreConformance, bound

Reopen = Callable[[], AbstractContextManager[MetricsStore]]
Stored = Callable[[str], dict[tuple[str, int], float]]


class TrackingServer(Protocol):
    address: str


class TestMLflow(MetricsStoreConformance):
    level = LEVEL
    max_examples = 6  # each call is some requests

    @pytest.fixture
    def reopen(self, server: TrackingServer) -> Reopen:
        return partial(bound, "metrics_store", mlflow_store, tracking_uri=server.address)

    @pytest.fixture
    def metrics_store(self, reopen: Reopen) -> Iterator[MetricsStore]:
        with reopen() as store:
            yield store

    @pytest.fixture
    def stored(self, server: TrackingServer) -> Iterator[Stored]:
        """What the page of the run shows."""
        with httpx2.Client(base_url=f"{server.address}/api/2.0/mlflow", trust_env=False) as api:

            def stored(run_id: str) -> dict[tuple[str, int], float]:
                named = api.get("/experiments/get-by-name?experiment_name=crucible-kitchen").json()
                asked = {
                    "experiment_ids": [named["experiment"]["experiment_id"]],
                    "filter": f"attributes.run_name = '{run_id}'",
                }
                [run] = api.post("/runs/search", json=asked).json()["runs"]
                history = [
                    each
                    for metric in run["data"]["metrics"]
                    for each in api.get(
                        "/metrics/get-history",
                        params={"run_id": run["info"]["run_id"], "metric_key": metric["key"]},
                    ).json()["metrics"]
                ]
                # A row without a step has one below all others.
                return {
                    (each["key"], step): each["value"]
                    for each in history
                    for step in [int(each["step"])]
                    if step > -(2**62)
                }

            yield stored

    @pytest.mark.xfail(reason="an infinity reaches MLflow's databases as the largest float")
    def test_the_largest_float_comes_back(self, metrics_store: MetricsStore, run_id: str) -> None:
        super().test_the_largest_float_comes_back(metrics_store=metrics_store, run_id=run_id)

    @pytest.mark.xfail(reason="MLflow on SQLite keeps -0.0 as 0.0")
    def test_the_sign_of_zero_comes_back(self, metrics_store: MetricsStore, run_id: str) -> None:
        super().test_the_sign_of_zero_comes_back(metrics_store=metrics_store, run_id=run_id)
