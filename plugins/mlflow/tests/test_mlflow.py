"""What the MLflow metrics store promises."""

from __future__ import annotations

import http.server
import json
import math
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from functools import partial
from posixpath import normpath
from typing import Any, Literal, Protocol

import crucible_adapter_mlflow.metrics_store as mlflow_store
import httpx2
import pytest
from crucible_adapter_mlflow.experiment import RUN_TAG
from crucible_adapter_mlflow.names import decode, encode
from crucible_adapter_mlflow.rows import LEAST_STEP, Row, milliseconds
from crucible_adapter_mlflow.server import Server
from crucible_kitchen import (
    AdapterError,
    AdapterTimeout,
    ConfigurationError,
    InvalidInput,
    Kitchen,
    MetricEntry,
    MetricsStore,
    NotFound,
    RateLimited,
    Unauthorized,
    Unavailable,
    Unsupported,
)
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

LARGEST = sys.float_info.max
ALONE = {**os.environ, "MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "true"}


class TrackingServer(Protocol):
    address: str

    def start(self) -> None: ...
    def stop(self) -> None: ...


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


Answer = tuple[int, dict[str, str], bytes]


class Gateway(http.server.ThreadingHTTPServer):
    """Stands before the tracking server and does, request by request, what `plan` says.

    An `Answer` is given in place of the server's. After the plan it passes everything on.
    """

    daemon_threads = True

    def __init__(self, behind: str) -> None:
        super().__init__(("127.0.0.1", 0), _GatewayHandler)
        self.behind = httpx2.Client(base_url=behind, timeout=60, trust_env=False)
        self.below = ""
        self.plan: list[Answer | Literal["lose the answer", "hang"]] = []
        self.authorizations: list[str | None] = []
        self.closing = threading.Event()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}{self.below}"


class _GatewayHandler(http.server.BaseHTTPRequestHandler):
    server: Gateway

    def do_GET(self) -> None:
        gateway = self.server
        body = self.rfile.read(int(self.headers["Content-Length"] or 0))
        gateway.authorizations.append(self.headers["Authorization"])
        act = gateway.plan.pop(0) if gateway.plan else None
        if act == "hang":
            gateway.closing.wait()
            return
        if not isinstance(act, tuple):
            kind = {"Content-Type": "application/json"}
            path = self.path.removeprefix(gateway.below)
            told = gateway.behind.request(self.command, path, content=body, headers=kind)
            if act == "lose the answer":
                return
            act = (told.status_code, {}, told.content)
        status, headers, content = act
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    do_POST = do_GET  # noqa: N815

    def log_message(self, *_: object) -> None:
        pass


def says(code: str) -> bytes:
    return json.dumps({"error_code": code, "message": "it is so"}).encode()


@pytest.fixture
def gateway(server: TrackingServer) -> Iterator[Gateway]:
    with Gateway(server.address) as made:
        serving = threading.Thread(target=made.serve_forever, args=[0.01])
        serving.start()
        yield made
        made.closing.set()
        made.shutdown()
        serving.join()
        made.behind.close()


def open_store(server: TrackingServer | Gateway, **options: Any) -> Kitchen:
    table = {"use": mlflow_store, "tracking_uri": server.address, **options}
    return Kitchen(adapters={"metrics_store": table})


@pytest.fixture
def store(server: TrackingServer) -> Iterator[MetricsStore]:
    with open_store(server) as kitchen:
        yield kitchen.metrics_store


def values(store: MetricsStore, run_id: str) -> list[float]:
    return [entry.value for entry in store.read(run_id)]


def raw_runs(raw: Server, run_id: str) -> list[dict[str, Any]]:
    """MLflow's runs of an id, as it tells them."""
    experiment = raw.get("experiments/get-by-name", experiment_name="crucible-kitchen")
    asked = {
        "experiment_ids": [experiment["experiment"]["experiment_id"]],
        "filter": f"tags.`{RUN_TAG}` = '{encode(run_id)}'",
    }
    found: list[dict[str, Any]] = raw.post("runs/search", **asked).get("runs", [])
    return found


def make_run(raw: Server, run_id: str, start_time: int) -> str:
    found = raw.get("experiments/get-by-name", experiment_name="crucible-kitchen")
    run = raw.post(
        "runs/create",
        experiment_id=found["experiment"]["experiment_id"],
        start_time=start_time,
        tags=[{"key": RUN_TAG, "value": encode(run_id)}],
    )
    return str(run["run"]["info"]["run_id"])


def raw_id(raw: Server, run_id: str) -> str:
    [run] = raw_runs(raw, run_id)
    return str(run["info"]["run_id"])


def raw_history(raw: Server, run_id: str, metric: str) -> list[dict[str, Any]]:
    asked: dict[str, Any] = {"run_id": raw_id(raw, run_id), "metric_key": metric}
    found: list[dict[str, Any]] = raw.get("metrics/get-history", **asked).get("metrics", [])
    return found


# --- rows ---


def test_a_row_comes_back_with_everything_it_was_given(store: MetricsStore, run_id: str) -> None:
    before = datetime.now(UTC)
    store.record(run_id, "test/nll", 2.5, step=3)
    store.flush(run_id)
    [entry] = store.read(run_id)
    assert (entry.run_id, entry.metric, entry.value, entry.step) == (run_id, "test/nll", 2.5, 3)
    assert entry.metadata == {}
    assert before - timedelta(milliseconds=1) < entry.timestamp <= datetime.now(UTC)
    assert entry.timestamp.utcoffset() == timedelta(0)


def test_recording_a_step_again_replaces_its_row_in_its_place(
    store: MetricsStore, run_id: str
) -> None:
    for step in (0, 1, 2):
        store.record(run_id, "nll", float(step), step=step)
    store.flush(run_id)
    for value in (10.0, 11.0, 0.5):
        store.record(run_id, "nll", value, step=1)
    assert values(store, run_id) == [0.0, 0.5, 2.0]
    store.flush(run_id)
    assert values(store, run_id) == [0.0, 0.5, 2.0]


@pytest.mark.parametrize("twins", [1, 2])
def test_a_run_resumed_where_the_clock_is_behind_replaces_all_the_same(
    server: TrackingServer, raw: Server, run_id: str, twins: int
) -> None:
    ahead = milliseconds(datetime.now(UTC) + timedelta(hours=1))
    opts = mlflow_store.Options(tracking_uri=server.address)
    experiment = mlflow_store._connection(opts).experiment
    experiment.open(run_id)
    if twins == 2:  # two processes began the run at once
        make_run(raw, run_id, ahead)
    experiment.write(experiment.runs(run_id)[-1], [Row("nll", 1.0, ahead, 7)])
    mlflow_store.record(opts, run_id, "nll", 2.0, 7, None)
    mlflow_store.flush(opts, run_id)
    assert [entry.value for entry in mlflow_store.read(opts, run_id)] == [2.0]
    mlflow_store.close(opts)
    assert len(raw_runs(raw, run_id)) == twins


def test_the_same_step_of_another_metric_is_another_row(store: MetricsStore, run_id: str) -> None:
    store.record(run_id, "a", 1.0, step=0)
    store.record(run_id, "b", 2.0, step=0)
    assert values(store, run_id) == [1.0, 2.0]


def test_without_a_step_every_call_is_a_row_of_its_own(server: TrackingServer, run_id: str) -> None:
    for _ in range(2):  # the second time it is a resumed run
        with open_store(server) as kitchen:
            for value in (1.0, 2.0, 1.0, 1.0):
                kitchen.metrics_store.record(run_id, "nll", value)
            kitchen.metrics_store.record(run_id, "nll", 3.0, step=0)
    with open_store(server) as kitchen:
        rows = [(entry.value, entry.step) for entry in kitchen.metrics_store.read(run_id)]
    four = [(value, None) for value in (1.0, 2.0, 1.0, 1.0)]
    assert rows == [*four, (3.0, 0), *four]


def test_two_writers_without_a_step_never_make_the_same_row() -> None:
    entry = MetricEntry.recorded("run", "nll", 1.0, None, None)
    assert Row.recorded(entry, 10**12, 1) != Row.recorded(entry, 10**12, 2)
    newest = Row.recorded(entry, milliseconds(datetime(2100, 1, 1, tzinfo=UTC)), 2**30 - 1)
    assert newest.step < LEAST_STEP


def test_the_page_shows_the_last_of_the_values_without_a_step(
    store: MetricsStore, raw: Server, run_id: str
) -> None:
    for value in (1.0, 3.0, 2.0):
        store.record(run_id, "accuracy", value)
    store.flush(run_id)
    [run] = raw_runs(raw, run_id)
    assert [(each["key"], each["value"]) for each in run["data"]["metrics"]] == [("accuracy", 2.0)]


def test_rows_come_back_in_the_order_in_which_they_were_first_recorded(
    store: MetricsStore, run_id: str
) -> None:
    recorded = []
    for step in (5, 3, -1, 10**12, -(2**62), 2**63 - 1):  # late, and backwards
        for metric in ("z", "a"):
            recorded.append((metric, step))
            store.record(run_id, metric, 0.0, step=step)
    store.flush(run_id)
    assert [(entry.metric, entry.step) for entry in store.read(run_id)] == recorded


@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan, 5e-324, 0.1, -1e300])
def test_a_float_comes_back_as_it_went_in(store: MetricsStore, run_id: str, value: float) -> None:
    store.record(run_id, "x", value, step=0)
    assert str(values(store, run_id)) == str([value])  # held back
    store.flush(run_id)
    assert str(values(store, run_id)) == str([value])  # from the server


def test_mlflow_itself_turns_an_infinity_into_a_number_and_keeps_what_was_replaced(
    server: TrackingServer, store: MetricsStore, raw: Server, run_id: str
) -> None:
    script = """
import sys
from mlflow import MlflowClient
client = MlflowClient(sys.argv[1])
run = client.create_run(client.create_experiment("by hand")).info.run_id
for value in (1.0, float("inf")):
    client.log_metric(run, "x", value, step=1)
print([metric.value for metric in client.get_metric_history(run, "x")])
"""
    told = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", script, server.address],
        env=ALONE,
        check=True,
        capture_output=True,
        text=True,
    )
    assert told.stdout.strip() == f"[1.0, {LARGEST!r}]"
    for value in (1.0, math.inf):
        store.record(run_id, "x", value, step=1)
    store.flush(run_id)
    assert [row["value"] for row in raw_history(raw, run_id, "x")] == [1.0, LARGEST]
    assert values(store, run_id) == [math.inf]


def test_an_unknown_run_has_no_rows_and_asking_makes_nothing(
    server: TrackingServer, raw: Server, run_id: str
) -> None:
    with open_store(server, experiment=run_id) as kitchen:
        store = kitchen.metrics_store
        assert store.read("nobody") == []
        assert list(store.runs()) == []
        store.flush("nobody")
        store.record_many("nobody", {})
        store.ping()
    with pytest.raises(NotFound):
        raw.get("experiments/get-by-name", experiment_name=run_id)


def test_record_many_is_one_row_a_metric_of_one_step(store: MetricsStore, run_id: str) -> None:
    store.record_many(run_id, {"b": 1.0, "a": math.inf}, step=4)
    store.flush(run_id)
    rows = [(entry.metric, entry.value, entry.step) for entry in store.read(run_id)]
    assert rows == [("b", 1.0, 4), ("a", math.inf, 4)]


steps = st.none() | st.integers(-2, 2) | st.integers(LEAST_STEP, 2**63 - 1)
floats = st.sampled_from([0.0, 1.0, math.nan]) | st.floats().filter(lambda x: abs(x) != LARGEST)
records = st.tuples(st.sampled_from(["a", "b", "a b/c@", ""]), floats, steps)
examples = iter(range(10**9))


@settings(max_examples=10, deadline=None, suppress_health_check=list(HealthCheck))
@given(acts=st.lists(records | st.sampled_from(["flush", "reopen"]), max_size=20))
def test_what_is_read_is_what_a_dictionary_would_hold(
    server: TrackingServer, acts: list[Any]
) -> None:
    run_id = f"property {next(examples)}"
    model: dict[object, tuple[str, float, int | None]] = {}
    with open_store(server, batch_size=3) as kitchen:
        for place, act in enumerate(acts):
            if act == "flush":
                kitchen.metrics_store.flush(run_id)
            elif act == "reopen":
                kitchen.close()
            else:
                metric, value, step = act
                kitchen.metrics_store.record(run_id, metric, value, step)
                model[place if step is None else (metric, step)] = (metric, value + 0.0, step)
        held = [(e.metric, e.value + 0.0, e.step) for e in kitchen.metrics_store.read(run_id)]
        kitchen.metrics_store.flush(run_id)
        sent = [(e.metric, e.value + 0.0, e.step) for e in kitchen.metrics_store.read(run_id)]
    assert repr(held) == repr(sent) == repr(list(model.values()))  # NaN is NaN


# --- what is refused ---


def test_the_number_that_stands_for_infinity_is_refused(store: MetricsStore, run_id: str) -> None:
    for value in (LARGEST, -LARGEST):
        with pytest.raises(Unsupported, match=r"'nll' is -?1.79.*cannot distinguish from"):
            store.record(run_id, "nll", value, step=0)
    assert store.read(run_id) == []


@pytest.mark.parametrize("step", [2**63, -(2**62) - 1, 10**40])
def test_a_step_that_mlflow_cannot_hold_is_refused(
    store: MetricsStore, run_id: str, step: int
) -> None:
    with pytest.raises(Unsupported, match=f"the step of 'nll' is {step}"):
        store.record(run_id, "nll", 1.0, step=step)


def test_metadata_is_refused(store: MetricsStore, run_id: str) -> None:
    with pytest.raises(Unsupported, match="metadata"):
        store.record(run_id, "nll", 1.0, metadata={"lr": 1e-3})
    store.record(run_id, "nll", 1.0, metadata={})
    assert values(store, run_id) == [1.0]


@pytest.mark.parametrize(("value", "step"), [(None, 0), ("1.0", 0), (10**400, 0), (1.0, 1.5)])
def test_what_is_not_a_number_is_refused_by_its_metric_and_nothing_is_recorded(
    store: MetricsStore, run_id: str, value: Any, step: Any
) -> None:
    with pytest.raises(InvalidInput, match="'nll'"):
        store.record_many(run_id, {"nll": value, "fine": 1.0}, step)
    assert store.read(run_id) == []


def test_names_that_are_too_long_for_mlflow_are_refused(store: MetricsStore, run_id: str) -> None:
    store.record(run_id, "x" * 250, 1.0)
    with pytest.raises(Unsupported, match=r"metric 'xxx.*251 characters"):
        store.record(run_id, "x" * 251, 1.0)
    with pytest.raises(Unsupported, match=r"run id 'xxx.*5001 characters"):
        store.record("x" * 5001, "nll", 1.0)
    store.flush(run_id)
    assert values(store, run_id) == [1.0]


# --- names ---


@pytest.mark.parametrize(
    ("name", "in_mlflow"),
    [
        ("test/nll", "test/nll"),
        ("learning rate.group-1_x", "learning rate.group-1_x"),
        ("précision/学習", "précision/学習"),
        ("loss@1", "loss:401"),
        ("a:b", "a:3ab"),
        ("", ":"),
        ("/a//b/", ":/a/:/b/:"),
        ("../a/./b", ":2e:2e/a/:2e/b"),
        ("...", "..."),
        ("\ud800\n", ":ed:a0:80:0a"),
    ],
)
def test_a_plain_name_is_itself_in_mlflow_and_any_other_has_one(name: str, in_mlflow: str) -> None:
    assert encode(name) == in_mlflow
    assert decode(in_mlflow) == name


@given(text=st.text(st.characters(exclude_categories=()) | st.sampled_from(":/.a4"), max_size=20))
def test_names_come_back_and_none_is_one_that_mlflow_refuses(text: str) -> None:
    name = encode(text)
    assert decode(name) == text
    assert normpath(name) == name
    assert not name.startswith(("/", ".."))
    assert name != "."


def test_a_name_from_another_program_is_read_as_it_is() -> None:
    assert decode("nll:ff") == "nll:ff"  # no UTF-8
    assert decode("train: nll") == "train: nll"


ODD_NAMES = [
    "",
    ".",
    "..",
    "a/b",
    "../x",
    "//",
    "'",
    '"`%\\',
    "\ud800",
    "é",
    "E\u0301",
    "\0",
    "?",
    ":",
]


def test_any_text_is_a_run_id_and_the_name_of_a_metric(server: TrackingServer) -> None:
    odd = sorted({*ODD_NAMES, "x" * 5000, "Run", "run"})
    with open_store(server, experiment="odd") as kitchen:
        for number, run_id in enumerate(odd):
            kitchen.metrics_store.record(run_id, "number", float(number), 0)
        kitchen.metrics_store.record_many("all names", dict.fromkeys(ODD_NAMES, 1.0), 0)
    with open_store(server, experiment="odd") as kitchen:
        assert kitchen.metrics_store.runs() == sorted([*odd, "all names"])
        for number, run_id in enumerate(odd):
            assert values(kitchen.metrics_store, run_id) == [number]
        assert [e.metric for e in kitchen.metrics_store.read("all names")] == ODD_NAMES


# --- runs of MLflow ---


def test_a_run_is_one_of_mlflow_named_after_it_and_continues_there(
    server: TrackingServer, raw: Server, run_id: str
) -> None:
    statuses = []
    for step in range(2):
        with open_store(server) as kitchen:
            kitchen.metrics_store.record(run_id, "nll", float(step), step)
            statuses.append(raw_runs(raw, run_id)[0]["info"]["status"])
    [run] = raw_runs(raw, run_id)
    assert run["info"]["run_name"] == run_id
    assert [row["step"] for row in raw_history(raw, run_id, "nll")] == [0, 1]
    assert statuses == ["RUNNING", "RUNNING"]
    assert run["info"]["status"] == "FINISHED"


def test_of_two_runs_made_at_once_the_older_continues_and_both_are_read(
    store: MetricsStore, raw: Server, run_id: str
) -> None:
    store.record("another", "nll", 0.0)  # makes the experiment
    ids = {}
    for start_time in (2000, 1000, 3000):
        ids[start_time] = make_run(raw, run_id, start_time)
        row = {"key": "nll", "value": start_time, "timestamp": start_time, "step": start_time}
        raw.post("runs/log-batch", run_id=ids[start_time], metrics=[row])
    store.record(run_id, "nll", 1.0, step=1)
    store.record(run_id, "nll", 2.0, step=3000)
    store.flush(run_id)
    assert values(store, run_id) == [1000.0, 2000.0, 2.0, 1.0]
    asked: dict[str, Any] = {"run_id": ids[1000], "metric_key": "nll"}
    assert len(raw.get("metrics/get-history", **asked)["metrics"]) == 3


def test_runs_are_listed_sorted_with_those_held_back_and_without_those_of_others(
    server: TrackingServer, raw: Server
) -> None:
    with open_store(server, experiment="listed") as kitchen:
        for run_id in ("b", "a", "B", "ä"):
            kitchen.metrics_store.record(run_id, "nll", 0.0)
        kitchen.metrics_store.flush("b")
        found = raw.get("experiments/get-by-name", experiment_name="listed")
        theirs = {"experiment_id": found["experiment"]["experiment_id"], "start_time": 1}
        raw.post("runs/create", **theirs)
        raw.post("runs/create", **theirs, tags=[{"key": RUN_TAG, "value": "without rows"}])
        assert kitchen.metrics_store.runs() == ["B", "a", "b", "ä"]


def test_long_histories_are_read_page_by_page(
    store: MetricsStore, run_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import crucible_adapter_mlflow.experiment as experiment

    asked: list[str] = []
    get = Server.get

    def watched(self: Server, path: str, **params: Any) -> dict[str, Any]:
        asked.append(path)
        return get(self, path, **params)

    for step in range(100):
        store.record_many(run_id, {"a": float(step), "b": 0.0}, step)
    store.flush(run_id)
    monkeypatch.setattr(Server, "get", watched)
    assert len(store.read(run_id)) == 200
    assert asked.count("metrics/get-history") == 2  # one a metric
    monkeypatch.setattr(experiment, "_ROWS_A_PAGE", 30)
    monkeypatch.setattr(experiment, "_RUNS_A_PAGE", 1)
    assert [entry.step for entry in store.read(run_id)] == [n // 2 for n in range(200)]
    store.record(f"{run_id} 2", "a", 0.0)
    assert {run_id, f"{run_id} 2"} < set(store.runs())


def test_a_deleted_run_says_how_to_get_it_back_and_then_continues(
    store: MetricsStore, raw: Server, run_id: str
) -> None:
    store.record(run_id, "nll", 1.0, step=1)
    store.flush(run_id)
    deleted = raw_id(raw, run_id)
    raw.post("runs/delete", run_id=deleted)
    store.record(run_id, "nll", 2.0, step=2)
    with pytest.raises(NotFound, match=f"deleted from http.*runs restore --run-id {deleted}"):
        store.flush(run_id)
    raw.post("runs/restore", run_id=deleted)
    store.flush(run_id)
    assert values(store, run_id) == [1.0, 2.0]


@pytest.mark.parametrize("code", ["INVALID_PARAMETER_VALUE", "RESOURCE_DOES_NOT_EXIST"])
def test_a_run_that_is_gone_for_good_is_not_found(gateway: Gateway, run_id: str, code: str) -> None:
    with open_store(gateway) as kitchen:
        kitchen.metrics_store.record(run_id, "nll", 1.0)
        gateway.plan += [(400, {}, says(code)), (404, {}, says("RESOURCE_DOES_NOT_EXIST"))]
        with pytest.raises(NotFound, match="was deleted from http"):
            kitchen.metrics_store.flush(run_id)


def test_what_mlflow_refuses_of_a_run_that_is_there_is_reported_in_its_words(
    gateway: Gateway, run_id: str
) -> None:
    with open_store(gateway) as kitchen:
        kitchen.metrics_store.record(run_id, "nll", 1.0)
        gateway.plan.append((400, {}, says("INVALID_PARAMETER_VALUE")))
        with pytest.raises(InvalidInput, match="asked for runs/log-batch, said 400: it is so"):
            kitchen.metrics_store.flush(run_id)


def test_a_deleted_experiment_says_how_to_get_it_back(server: TrackingServer, raw: Server) -> None:
    made = raw.post("experiments/create", name="deleted")
    raw.post("experiments/delete", experiment_id=made["experiment_id"])
    with open_store(server, experiment="deleted") as kitchen:
        store = kitchen.metrics_store
        calls: list[Callable[[], object]] = [
            lambda: store.record("run", "nll", 1.0),
            lambda: store.read("run"),
            store.ping,
        ]
        for call in calls:
            with pytest.raises(NotFound, match="experiments restore --experiment-id"):
                call()


# --- sending ---


def test_rows_are_held_back_until_there_are_enough_and_flush_sends_the_rest(
    server: TrackingServer, raw: Server, run_id: str
) -> None:
    with open_store(server, batch_size=10, max_delay=3600) as kitchen:
        store = kitchen.metrics_store
        for step in range(10):
            store.record(run_id, "nll", 0.0, step)
        assert raw_history(raw, run_id, "nll") == []
        store.record(run_id, "nll", 0.0, 10)
        assert len(raw_history(raw, run_id, "nll")) == 10
        assert len(store.read(run_id)) == 11
        store.flush(run_id)
        assert len(raw_history(raw, run_id, "nll")) == 11


def test_a_row_that_waited_long_enough_is_sent_by_the_next_record(
    server: TrackingServer, raw: Server, run_id: str
) -> None:
    with open_store(server, max_delay=0) as kitchen:
        for step in range(3):
            kitchen.metrics_store.record(run_id, "nll", 0.0, step)
            assert len(raw_history(raw, run_id, "nll")) == step


UNCLOSED = """
import gc, os, sys
import crucible_adapter_mlflow.metrics_store as mlflow

def record():
    opts = mlflow.Options(tracking_uri=sys.argv[1], max_delay=3600)
    for step in range(3):
        mlflow.record(opts, sys.argv[2], "nll", float(step), step, None)

record()
gc.collect()
if child := os.fork():
    os.waitpid(child, 0)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_program_that_ends_without_closing_sends_what_is_held(
    server: TrackingServer, store: MetricsStore, run_id: str
) -> None:
    subprocess.run([sys.executable, "-c", UNCLOSED, server.address, run_id], check=True)
    assert values(store, run_id) == [0.0, 1.0, 2.0]


def test_close_sends_what_is_held(server: TrackingServer, raw: Server, run_id: str) -> None:
    with open_store(server) as kitchen:
        kitchen.metrics_store.record(run_id, "nll", 0.0, 1)
        kitchen.metrics_store.record(run_id, "nll", 0.0, 2)
    assert len(raw_history(raw, run_id, "nll")) == 2


def test_the_largest_batch_of_the_longest_names_is_not_too_large(
    server: TrackingServer, run_id: str
) -> None:
    name = "\U00020000" * 250  # four bytes a character
    with open_store(server, batch_size=900, max_delay=3600) as kitchen:
        for step in range(LEAST_STEP, LEAST_STEP + 900):
            kitchen.metrics_store.record(run_id, name, -1.7e308, step)
        kitchen.metrics_store.flush(run_id)
        assert len(kitchen.metrics_store.read(run_id)) == 900


def test_rows_of_one_run_are_sent_without_those_of_another(
    store: MetricsStore, raw: Server, run_id: str
) -> None:
    store.record(run_id, "nll", 0.0, 1)
    store.record(f"{run_id} 2", "nll", 0.0, 1)
    store.flush(run_id)
    assert len(raw_history(raw, run_id, "nll")) == 1
    assert raw_history(raw, f"{run_id} 2", "nll") == []


def test_threads_share_a_store(store: MetricsStore, raw: Server, run_id: str) -> None:
    def record(metric: str) -> None:
        for step in range(50):
            store.record(run_id, metric, float(step), step)
            store.record(run_id, "all", 1.0)
        store.flush(run_id)

    threads = [threading.Thread(target=record, args=[str(number)]) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    rows = store.read(run_id)
    assert len(rows) == 400
    for number in range(4):
        steps = [entry.step for entry in rows if entry.metric == str(number)]
        assert steps == list(range(50))
    assert len(raw_runs(raw, run_id)) == 1


WRITER = """
import sys
import crucible_adapter_mlflow.metrics_store as mlflow_store
address, run_id, name = sys.argv[1:]
opts = mlflow_store.Options(tracking_uri=address, batch_size=50)
print("ready", flush=True)
sys.stdin.readline()
for step in range(200):
    mlflow_store.record_many(opts, run_id, {name: float(step), "shared": 0.0}, step, None)
    mlflow_store.record(opts, run_id, "all", 1.0, None, None)
mlflow_store.flush(opts, run_id)
mlflow_store.close(opts)
"""


def test_several_processes_write_to_one_run_at_once(
    server: TrackingServer, store: MetricsStore, run_id: str
) -> None:
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", WRITER, server.address, run_id, str(number)],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for number in range(4)
    ]
    for writer in writers:
        assert writer.stdout is not None
        assert writer.stdout.readline() == "ready\n"
    for writer in writers:
        writer.communicate("go\n")
        assert writer.returncode == 0
    rows = store.read(run_id)
    for number in range(4):
        own = [entry.step for entry in rows if entry.metric == str(number)]
        assert own == list(range(200))
    assert len([entry for entry in rows if entry.metric == "shared"]) == 200
    assert len([entry for entry in rows if entry.metric == "all"]) == 800


def test_a_forked_process_sends_its_own_rows_and_not_those_of_its_parent(
    server: TrackingServer, raw: Server, run_id: str
) -> None:
    script = """
import os, sys
import crucible_adapter_mlflow.metrics_store as mlflow_store
opts = mlflow_store.Options(tracking_uri=sys.argv[1])
mlflow_store.record(opts, sys.argv[2], "parent", 1.0, 0, None)
if child := os.fork():
    assert os.waitpid(child, 0)[1] == 0
else:
    mlflow_store.record(opts, sys.argv[2], "child", 2.0, 0, None)
mlflow_store.close(opts)
"""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run(
        [sys.executable, "-c", script, server.address, run_id], env=environment, check=True
    )
    for metric in ("parent", "child"):
        assert len(raw_history(raw, run_id, metric)) == 1


# --- a server that is away ---


def test_nothing_is_lost_or_doubled_while_the_server_is_away(
    server: TrackingServer, raw: Server, run_id: str
) -> None:
    with open_store(server, batch_size=4) as kitchen:
        store = kitchen.metrics_store
        store.record_many(run_id, {"nll": 1.0}, 1)
        store.record(run_id, "nll", 1.5)
        store.flush(run_id)
        server.stop()
        try:
            for step in range(2, 6):
                store.record(run_id, "nll", float(step), step)
            for _ in range(3):  # not taken, so that it may be repeated
                with pytest.raises(Unavailable, match="cannot reach the MLflow server at http"):
                    store.record(run_id, "nll", 9.0)
            for call in (partial(store.flush, run_id), store.ping, store.close):
                with pytest.raises(Unavailable):
                    call()
        finally:
            server.start()
        store.record(run_id, "nll", 9.0)
        store.flush(run_id)
        assert values(store, run_id) == [1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 9.0]
        assert len(raw_history(raw, run_id, "nll")) == 7


@pytest.mark.parametrize("lost", [1, 2])
def test_a_row_whose_answer_was_lost_is_sent_again_and_kept_once(
    gateway: Gateway, raw: Server, run_id: str, lost: int
) -> None:
    with open_store(gateway) as kitchen:
        store = kitchen.metrics_store
        store.record(run_id, "nll", 1.0, 1)
        store.record_many(run_id, {"nll": math.nan})
        gateway.plan += ["lose the answer"] * lost
        if lost > 1:  # a single one is repeated at once
            with pytest.raises(Unavailable) as caught:
                store.flush(run_id)
            assert caught.value.retryable
            assert not caught.value.no_effect
        store.flush(run_id)
        assert gateway.plan == []
        assert len(raw_history(raw, run_id, "nll")) == 2
        assert repr(values(store, run_id)) == "[1.0, nan]"


def test_a_server_that_does_not_answer_is_a_timeout(gateway: Gateway) -> None:
    with open_store(gateway, timeout=0.2) as kitchen:
        for call in (kitchen.metrics_store.ping, kitchen.metrics_store.runs):
            gateway.plan.append("hang")
            with pytest.raises(AdapterTimeout, match="no answer from the MLflow server at http"):
                call()
            assert gateway.plan == []


def test_ping_gives_up_within_seconds_however_long_the_timeout(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mlflow_store, "PING_TIMEOUT", 0.1)
    gateway.plan.append("hang")
    with open_store(gateway, timeout=3600) as kitchen, pytest.raises(AdapterTimeout):
        kitchen.metrics_store.ping()


# --- a server that refuses ---


@pytest.mark.parametrize(
    ("answer", "error", "message"),
    [
        ((401, {}, b"You are not authenticated"), Unauthorized, "401.*check `token`"),
        ((403, {}, says("PERMISSION_DENIED")), Unauthorized, "403: it is so"),
        ((429, {"Retry-After": "7"}, says("REQUEST_LIMIT_EXCEEDED")), RateLimited, "429: it is"),
        ((500, {}, says("INTERNAL_ERROR")), Unavailable, "500: it is so"),
        ((503, {}, b"<html>"), Unavailable, "503: Service Unavailable"),
        ((504, {}, b"<html>"), AdapterTimeout, "504: Gateway Timeout"),
        ((400, {}, says("INVALID_PARAMETER_VALUE")), InvalidInput, "by-name, said 400: it is so"),
        ((404, {}, b"<html>"), Unavailable, "not an answer of MLflow; check `tracking_uri`"),
        ((302, {"Location": "/login"}, b""), Unavailable, "not an answer of MLflow"),
        ((200, {}, b"<html>"), Unavailable, "not an answer of MLflow"),
        ((200, {}, b"[]"), Unavailable, "not an answer of MLflow"),
    ],
)
def test_an_answer_that_refuses_is_the_error_that_it_stands_for(
    gateway: Gateway, answer: Answer, error: type[AdapterError], message: str
) -> None:
    gateway.plan.append(answer)
    with open_store(gateway) as kitchen, pytest.raises(error, match=message) as caught:
        kitchen.metrics_store.ping()
    assert gateway.plan == []
    assert type(caught.value) is error
    # A passing trouble may be waited for, any other not.
    assert caught.value.retryable == (answer[0] in (429, 500, 503, 504))
    if isinstance(caught.value, RateLimited):
        assert caught.value.retry_after == 7


def test_the_time_to_wait_may_be_a_date(gateway: Gateway) -> None:
    at = format_datetime(datetime.now(UTC) + timedelta(hours=1), usegmt=True)
    gateway.plan.append((429, {"Retry-After": at}, b""))
    with open_store(gateway) as kitchen, pytest.raises(RateLimited) as caught:
        kitchen.metrics_store.ping()
    assert caught.value.retry_after == pytest.approx(3600, abs=60)


def test_a_forbidden_experiment_is_reported_at_the_first_record(gateway: Gateway) -> None:
    gateway.plan += [(404, {}, says("RESOURCE_DOES_NOT_EXIST"))]
    gateway.plan += [(403, {}, says("PERMISSION_DENIED"))]
    with open_store(gateway) as kitchen:
        with pytest.raises(Unauthorized, match="asked for experiments/create, said 403"):
            kitchen.metrics_store.record("run", "nll", 1.0)
        assert gateway.plan == []


def test_an_experiment_that_another_process_makes_first_is_used(
    gateway: Gateway, raw: Server, run_id: str
) -> None:
    raw.post("experiments/create", name=run_id)
    gateway.plan += [(404, {}, says("RESOURCE_DOES_NOT_EXIST"))]
    with open_store(gateway, experiment=run_id) as kitchen:
        kitchen.metrics_store.record(run_id, "nll", 1.0)
        assert kitchen.metrics_store.runs() == [run_id]


# --- options ---


@pytest.mark.parametrize(
    ("options", "header"),
    [
        ({}, None),
        ({"token": "sesame"}, "Bearer sesame"),
        ({"username": "me", "password": "sesame"}, "Basic bWU6c2VzYW1l"),
        ({"username": "me", "password": "sesame", "token": "t"}, "Basic bWU6c2VzYW1l"),
    ],
)
def test_credentials_are_sent_and_never_shown(
    gateway: Gateway, options: dict[str, str], header: str | None
) -> None:
    with open_store(gateway, **options) as kitchen:
        kitchen.metrics_store.ping()
        assert gateway.authorizations == [header]
        gateway.plan.append((403, {}, b'{"error_code": "NO", "message": "sesame is wrong"}'))
        with pytest.raises(Unauthorized) as caught:
            kitchen.metrics_store.ping()
        if options:
            assert "sesame" not in str(caught.value)
        assert "sesame" not in repr(kitchen.metrics_store.describe())
        assert "sesame" not in repr(kitchen.metrics_store.options)


def test_mlflows_own_variables_are_the_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("URI", "https://x/m"), ("USERNAME", "me"), ("PASSWORD", "p")):
        monkeypatch.setenv(f"MLFLOW_TRACKING_{name}", value)
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "t")
    opts = mlflow_store.Options()  # type: ignore[call-arg]
    assert (opts.tracking_uri, opts.username) == ("https://x/m", "me")
    assert opts.password is not None
    assert opts.password.get_secret_value() == "p"
    assert opts.token is not None
    assert opts.token.get_secret_value() == "t"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "tracking_uri"),
        ({"tracking_uri": "sqlite:///secret.db"}, "mlflow server --backend-store-uri"),
        ({"tracking_uri": "mlruns"}, "mlflow server --backend-store-uri"),
        ({"tracking_uri": "databricks"}, "address of the workspace, and a token"),
        ({"tracking_uri": "http://"}, "is not the address of a tracking server"),
        ({"tracking_uri": "http://me:secret@host"}, "holds credentials.*set username and"),
        ({"tracking_uri": "http://me:secret/x@host"}, "is not an address; write one like"),
        ({"tracking_uri": "http://host?token=secret"}, "no '\\?' and no '#'"),
        ({"tracking_uri": "http://host", "username": "me"}, "belong together"),
        ({"tracking_uri": "http://host", "password": "secret"}, "belong together"),
        ({"tracking_uri": "http://host", "batch_size": 901}, "batch_size"),
    ],
)
def test_options_that_cannot_work_say_what_to_write_and_show_nothing_secret(
    options: dict[str, Any], message: str
) -> None:
    kitchen = Kitchen(adapters={"metrics_store": {"use": mlflow_store, **options}})
    with pytest.raises(ConfigurationError, match=message) as caught:
        kitchen.metrics_store.ping()
    assert "secret" not in str(caught.value)


def test_a_server_may_live_below_a_path(gateway: Gateway, run_id: str) -> None:
    gateway.below = "/tools/mlflow"
    with open_store(gateway) as kitchen:
        kitchen.metrics_store.record(run_id, "nll", 1.0)
        kitchen.metrics_store.flush(run_id)
        assert values(kitchen.metrics_store, run_id) == [1.0]


def test_nothing_is_said_and_nothing_heavy_imported_until_it_is_used(
    server: TrackingServer, run_id: str
) -> None:
    script = """
import sys
import crucible_adapter_mlflow.metrics_store as mlflow_store
opts = mlflow_store.Options(tracking_uri=sys.argv[1])
assert "httpx2" not in sys.modules
mlflow_store.record(opts, sys.argv[2], "nll", 1.0, 0, None)
mlflow_store.close(opts)
assert "mlflow" not in sys.modules
"""
    told = subprocess.run(
        [sys.executable, "-W", "error", "-c", script, server.address, run_id],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        check=True,
        capture_output=True,
    )
    assert (told.stdout, told.stderr) == (b"", b"")
