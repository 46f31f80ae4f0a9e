"""What MLflow's page shows of a run besides its metrics: settings, samples, and the true status."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, Protocol

import httpx2
import pytest
from crucible_adapter_mlflow.experiment import CHANGED_TAG
from crucible_adapter_mlflow.names import encode
from crucible_adapter_mlflow.server import Server
from crucible_kitchen import Kitchen
from crucible_kitchen.events import (
    TrainingSamples,
    WorkflowException,
    WorkflowStart,
    WorkflowStop,
    typed,
)
from crucible_kitchen.workflows import run_in

import kitchen_noop

CONFIG = {"model": "tiny", "learning_rate": 0.5, "lora": {"rank": 8}, "prompt": "x" * 7000}
SAMPLES = [
    {"prompt": "2+2=", "completion": "4", "reward": 1.0, "answer": "4"},
    {"prompt": "2+3=", "completion": "five", "reward": 0.0, "answer": None},
]


class TrackingServer(Protocol):
    address: str


@pytest.fixture
def run_id(request: pytest.FixtureRequest) -> str:
    """A run of the test's own."""
    return f"{request.node.name}"


@pytest.fixture
def raw(server: TrackingServer) -> Iterator[Server]:
    """MLflow's REST API as it is."""
    api = Server(server.address, 30.0, None, None)
    yield api
    api.close()


@pytest.fixture
def kitchen(server: TrackingServer) -> Iterator[Kitchen]:
    made = Kitchen({"metrics_store": {"use": "mlflow", "tracking_uri": server.address}})
    made.bind(["metrics_store"])
    yield made
    made.close()
    assert made.observers.failed == []


def page(raw: Server, run_id: str) -> dict[str, Any]:
    """Return MLflow's only run of this name."""
    experiment = raw.get("experiments/get-by-name", experiment_name="crucible-kitchen")
    found = raw.post("runs/search", experiment_ids=[experiment["experiment"]["experiment_id"]])[
        "runs"
    ]
    [run] = [run for run in found if run["info"]["run_name"] == encode(run_id)]
    data = run["data"]
    return {
        "id": run["info"]["run_id"],
        "status": run["info"]["status"],
        "artifacts": run["info"]["artifact_uri"],
        "parameters": {each["key"]: each["value"] for each in data.get("params", ())},
        "tags": {each["key"]: each["value"] for each in data.get("tags", ())},
    }


def begin(kitchen: Kitchen, run_id: str, **changed: Any) -> None:
    config = {**CONFIG, **changed}
    kitchen.observers.emit(WorkflowStart(workflow="mine", run_id=run_id, config=config))


def test_settings_are_parameters_cut_to_the_limit(
    kitchen: Kitchen, raw: Server, run_id: str
) -> None:
    begin(kitchen, run_id, empty="", tags=["a", "b"], unset=None)
    found = page(raw, run_id)
    assert found["parameters"] == {
        "workflow": "mine",
        "model": "tiny",
        "learning_rate": "0.5",
        "lora.rank": "8",
        "prompt": f"{'x' * 5997}...",
        "empty": "",
        "tags": '["a", "b"]',
    }
    assert found["status"] == "RUNNING"


def test_many_settings_are_sent_in_parts(kitchen: Kitchen, raw: Server, run_id: str) -> None:
    begin(kitchen, run_id, **{f"setting_{number}": number for number in range(230)})
    assert len(page(raw, run_id)["parameters"]) == 235


@pytest.mark.parametrize(
    ("error", "status"),
    [(None, "FINISHED"), ("Unavailable", "FAILED"), ("KeyboardInterrupt", "KILLED")],
)
def test_the_status_is_how_the_run_ended(
    server: TrackingServer, raw: Server, run_id: str, error: str | None, status: str
) -> None:
    adapters = {"metrics_store": {"use": "mlflow", "tracking_uri": server.address}}
    with Kitchen(adapters) as kitchen:
        kitchen.bind(["metrics_store"])
        begin(kitchen, run_id)
        kitchen.metrics_store.record(run_id, "loss", 1.0, 1)
        about: dict[str, Any] = {"workflow": "mine", "run_id": run_id}
        kitchen.observers.emit(
            WorkflowException(**about, step=0, error=error) if error else WorkflowStop(**about)
        )
        assert page(raw, run_id)["status"] == status
    assert page(raw, run_id)["status"] == status  # closing the kitchen changes nothing


def test_a_resumed_run_goes_on_and_shows_what_has_changed(
    server: TrackingServer, raw: Server, run_id: str
) -> None:
    adapters = {"metrics_store": {"use": "mlflow", "tracking_uri": server.address}}
    for every in (10, 20):
        with Kitchen(adapters) as kitchen:
            kitchen.bind(["metrics_store"])
            begin(kitchen, run_id, save_every=every)
            assert page(raw, run_id)["status"] == "RUNNING"
            kitchen.observers.emit(
                WorkflowException(workflow="mine", run_id=run_id, step=0, error="OSError")
            )
            assert kitchen.observers.failed == []
    found = page(raw, run_id)
    assert found["parameters"]["save_every"] == "10"
    changed = {name: tag for name, tag in found["tags"].items() if name.startswith(CHANGED_TAG)}
    assert changed == {f"{CHANGED_TAG}save_every": "20"}


def test_samples_are_tables(
    kitchen: Kitchen, raw: Server, server: TrackingServer, run_id: str
) -> None:
    begin(kitchen, run_id)
    for step in (2, 4, 4):
        kitchen.observers.emit(TrainingSamples(step=step, run_id=run_id, samples=SAMPLES))
    found = page(raw, run_id)
    assert json.loads(found["tags"]["mlflow.loggedArtifacts"]) == [
        {"path": "samples/00000002.json", "type": "table"},
        {"path": "samples/00000004.json", "type": "table"},
    ]
    answer = httpx2.get(
        f"{server.address}/get-artifact",
        params={"run_uuid": found["id"], "path": "samples/00000002.json"},
        trust_env=False,
    )
    assert answer.json() == {
        "columns": ["prompt", "completion", "reward", "answer"],
        "data": [["2+2=", "4", 1.0, "4"], ["2+3=", "five", 0.0, None]],
    }


def test_a_workflow_is_shown_without_a_further_setting_also_inside_a_wrapper(
    server: TrackingServer, raw: Server, run_id: str
) -> None:
    quick = {name: {**table, "latency_scale": 0} for name, table in kitchen_noop.ADAPTERS.items()}
    store = {"use": "mlflow", "tracking_uri": server.address}
    config = {"model": "any", "dataset": "rows", "max_steps": 2, "run_id": run_id}
    seen: list[str] = []
    with Kitchen({**quick, "metrics_store": {"use": "retry", "inner": store}}) as kitchen:
        kitchen.observe(lambda event: seen.append(event.name) if typed(event) else None)
        run_in(kitchen, "supervised", config)
        assert kitchen.observers.failed == []
    found = page(raw, run_id)
    assert found["status"] == "FINISHED"
    assert found["parameters"]["model"] == "any"
    assert found["parameters"]["max_steps"] == "2"


def test_a_kitchen_that_was_closed_no_longer_observes(
    server: TrackingServer, raw: Server, run_id: str
) -> None:
    kitchen = Kitchen({"metrics_store": {"use": "mlflow", "tracking_uri": server.address}})
    for _ in range(2):
        kitchen.bind(["metrics_store"])
        assert len(kitchen.observers.listening) == 1
        kitchen.close()
        assert not kitchen.observers
