"""What observers see of a whole run: the right tree, no secret, no row, and no harm done."""

from __future__ import annotations

import json
import signal
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from commands import COMMAND, Crucible, clean_environ
from crucible_kitchen import (
    AdapterOptions,
    BlobStore,
    Event,
    Kitchen,
    SamplingParams,
    TrainingClient,
    Unavailable,
    hookimpl,
)
from crucible_kitchen.events import typed
from crucible_kitchen.observers.console import Console
from crucible_kitchen.observers.jsonl import JsonLines
from crucible_kitchen.traces.lines import read
from crucible_kitchen.workflows import run_in
from pydantic import SecretStr

import kitchen_noop

pytest.importorskip("opentelemetry.sdk", reason="the extra otel is not installed")

from crucible_kitchen.observers.otel import OpenTelemetry
from opentelemetry import trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

CONFIG = {
    "model": "any",
    "dataset": "rows",
    "test_dataset": "rows",
    "test_split": "test",
    "test_size": 4,
    "batch_size": 8,
    "max_steps": 4,
    "eval_every": 2,
    "save_every": 2,
    "exact_match": True,
    "run_id": "r",
}


def noops(**changed: Any) -> dict[str, Any]:
    quick = {name: {**table, "latency_scale": 0} for name, table in kitchen_noop.ADAPTERS.items()}
    return {**quick, **changed}


def module(name: str, **members: Any) -> ModuleType:
    made = ModuleType(name)
    for key, value in members.items():
        setattr(made, key, value)
    return made


class Wraps(AdapterOptions):
    inner: TrainingClient


PASSING = module("passing", Options=Wraps, around=hookimpl(lambda call: call()))


class Exported:
    """A tracer, and what it exported."""

    def __init__(self) -> None:
        self.exporter = InMemorySpanExporter()
        self.provider = TracerProvider()
        self.provider.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.reader = InMemoryMetricReader()
        self.observer = OpenTelemetry(self.provider, MeterProvider([self.reader]))

    @property
    def spans(self) -> list[ReadableSpan]:
        found = self.exporter.get_finished_spans()
        return sorted(found, key=lambda span: span.start_time or 0)

    def children(self, parent: ReadableSpan | None) -> list[ReadableSpan]:
        number = parent.context.span_id if parent is not None else None
        return [s for s in self.spans if (s.parent.span_id if s.parent else None) == number]

    def named(self, name: str) -> list[ReadableSpan]:
        return [span for span in self.spans if span.name == name]

    def metrics(self) -> dict[str, list[Any]]:
        data = self.reader.get_metrics_data()
        assert data is not None
        return {
            metric.name: list(metric.data.data_points)
            for resource in data.resource_metrics
            for scope in resource.scope_metrics
            for metric in scope.metrics
        }


def names(spans: list[ReadableSpan]) -> list[str]:
    return [span.name for span in spans]


def trained(adapters: dict[str, Any], *observers: Any, **changed: Any) -> Kitchen:
    kitchen = Kitchen(adapters)
    for observer in observers:
        kitchen.observe(observer)
    run_in(kitchen, "supervised", {**CONFIG, **changed})
    return kitchen


@pytest.fixture(scope="module")
def exported() -> Exported:
    """A run of four steps, with two evaluations and two checkpoints."""
    made = Exported()
    trained(noops(), made.observer)
    return made


# --- the tree of spans ---


class TestTree:
    def test_the_run_is_the_only_root_and_everything_is_of_its_trace(
        self, exported: Exported
    ) -> None:
        [root] = exported.children(None)
        assert root.name == "workflow supervised"
        assert root.attributes is not None
        assert root.attributes["crucible.run_id"] == "r"
        assert {span.context.trace_id for span in exported.spans} == {root.context.trace_id}

    def test_each_step_holds_its_own_calls_though_it_is_submitted_ahead(
        self, exported: Exported
    ) -> None:
        steps = exported.named("training.step")
        assert [span.attributes["crucible.step"] for span in steps if span.attributes] == [
            *range(1, 5)
        ]
        for step in steps:
            assert names(exported.children(step)) == [
                "training_client.forward_backward",
                "training_client.optim_step",
                "training_client.await_",
                "training_client.await_",
                "metrics_store.record_many",
            ]

    def test_an_evaluation_holds_its_calls(self, exported: Exported) -> None:
        evaluations = exported.named("training.eval")
        assert len(evaluations) == 2
        for span in evaluations:
            *before, completion, samples, record = names(exported.children(span))
            assert before == [
                "training_client.forward",
                "training_client.await_",
                "training_client.save_weights_for_sampler",
                "completer.score",  # whether the sampler has these weights
                "training_client.forward",
                "training_client.await_",
            ]
            assert completion.startswith("text_completion noop://")
            assert samples == "blob_store.write"
            assert record == "metrics_store.record_many"

    def test_a_checkpoint_holds_its_calls(self, exported: Exported) -> None:
        first, second = exported.named("training.checkpoint")
        saving = ["metrics_store.flush", "training_client.save_checkpoint_async"]
        saving += ["training_client.await_"]
        saving += ["blob_store.read", "blob_store.write"]  # of the lease, and of the record
        assert names(exported.children(first)) == saving
        assert names(exported.children(second)) == [*saving, "training_client.delete_checkpoint"]

    def test_what_belongs_to_no_step_is_the_runs(self, exported: Exported) -> None:
        [root] = exported.children(None)
        found = Counter(names(exported.children(root)))
        assert found["dataset.load"] == 2
        assert found["training.step"] == 4
        assert found["training_client.start_session"] == 1
        assert "training_client.optim_step" not in found
        loads = exported.named("dataset.load")
        assert names(exported.children(loads[0])) == [
            "dataset_store.load_dataset",
            "dataset_store.stream",
        ]

    def test_a_child_lies_within_its_parent(self, exported: Exported) -> None:
        for span in exported.spans:
            assert span.start_time is not None
            assert span.end_time is not None
            for child in exported.children(span):
                assert child.start_time is not None
                assert child.end_time is not None
                assert span.start_time <= child.start_time <= child.end_time <= span.end_time

    def test_what_takes_no_time_is_an_event_of_the_span(self, exported: Exported) -> None:
        [root] = exported.children(None)
        found = [event.name for event in root.events]
        end = ["workflow.finishing", "workflow.stop"]
        assert found == ["workflow.start", "training.epoch", *end]

    def test_a_step_has_its_metrics(self, exported: Exported) -> None:
        step = exported.named("training.step")[0]
        assert step.attributes is not None
        assert step.attributes["crucible.metrics.num_tokens"] > 0  # type: ignore[operator]

    def test_wrappers_are_around_what_they_wrap_the_outermost_first(self) -> None:
        made = Exported()
        client = noops()["training_client"]
        stack = {"use": PASSING, "inner": {"use": PASSING, "inner": client}}
        trained(noops(training_client=stack), made.observer)
        for step in made.named("training.step"):
            outer = made.children(step)[0]
            [inner] = made.children(outer)
            [call] = made.children(inner)
            assert outer.name == inner.name == "passing around training_client.forward_backward"
            assert call.name == "training_client.forward_backward"
            assert [s.attributes["crucible.depth"] for s in (outer, inner) if s.attributes] == [
                0,
                1,
            ]

    def test_a_run_that_fails_ends_every_span_with_the_error(self) -> None:
        called: list[str] = []

        def around(call: Any) -> Any:
            called.append(call.name)
            if call.name == "await_" and "optim_step" in called:
                raise Unavailable("the backend is gone")
            return call()

        made = Exported()
        broken = module("broken", Options=Wraps, around=hookimpl(around))
        client = {"use": broken, "inner": noops()["training_client"]}
        with pytest.raises(Unavailable):
            trained(noops(training_client=client), made.observer)
        [root] = made.children(None)
        steps = made.named("training.step")
        assert len(steps) == 2  # the one that was awaited, and the one submitted ahead
        for span in (root, *steps):
            assert span.status.status_code is StatusCode.ERROR
            assert span.status.description is None  # a message may hold anything
            assert span.attributes is not None
            assert span.attributes["error.type"] == "Unavailable"

    def test_what_a_thread_of_the_workflow_calls_is_the_runs(self) -> None:
        made = Exported()
        kitchen = Kitchen(noops())
        kitchen.observe(made.observer)
        with kitchen.observers.run("mine"):
            thread = threading.Thread(target=kitchen.blob_store.exists, args=["a"])
            thread.start()
            thread.join()
        [root] = made.children(None)
        assert names(made.children(root)) == ["blob_store.exists"]

    def test_a_run_is_within_the_span_of_the_program_around_it(self) -> None:
        made = Exported()
        tracer = made.provider.get_tracer("the program")
        with tracer.start_as_current_span("the program"):
            trained(noops(), made.observer, max_steps=1)
        [root] = made.children(None)
        assert root.name == "the program"
        assert names(made.children(root)) == ["workflow supervised"]

    def test_what_a_library_tells_of_a_call_is_within_the_call(self) -> None:
        made = Exported()
        tracer = made.provider.get_tracer("a library")

        def read(path: str) -> bytes:
            with tracer.start_as_current_span("GET"):
                return b""

        store = module("store", **blob_callbacks(read=read))
        kitchen = Kitchen({"blob_store": store})
        kitchen.observe(made.observer)
        kitchen.blob_store.read("a")
        [call] = made.children(None)
        assert names(made.children(call)) == ["GET"]
        assert trace.get_current_span() is trace.INVALID_SPAN

    def test_an_observer_that_comes_late_makes_spans_of_what_is_going_on(self) -> None:
        made = Exported()
        kitchen = Kitchen(noops())
        kitchen.observe(lambda event: None)
        with kitchen.observers.start("training.eval", step=1):
            kitchen.observe(made.observer)
            kitchen.blob_store.exists("a")
        assert sorted(names(made.spans)) == ["blob_store.exists", "training.eval"]


def blob_callbacks(**changed: Any) -> dict[str, Any]:
    def read(path: str) -> bytes:
        return b""

    def stream(path: str, chunk_size: int) -> Iterator[bytes]:
        yield b""

    def write(path: str, data: bytes) -> None: ...

    def exists(path: str) -> bool:
        return True

    made = {"read": read, "stream": stream, "write": write, "exists": exists, **changed}
    return {name: hookimpl(function) for name, function in made.items()}


# --- the conventions for generative AI ---


def completed(prompt: Any, params: SamplingParams, **options: Any) -> Exported:
    made = Exported()
    kitchen = Kitchen(noops(completer={**noops()["completer"], "use": "noop", **options}))
    kitchen.observe(made.observer)
    kitchen.completer.complete(prompt, params)
    return made


MESSAGES: Any = [{"role": "user", "content": "What is private?"}]


def test_a_completion_has_the_attributes_of_the_conventions() -> None:
    params = SamplingParams(8, temperature=0.5, top_k=5, seed=3, model="m")
    [span] = completed(MESSAGES, params).spans
    assert span.name == "chat m"
    assert span.kind is SpanKind.CLIENT
    assert span.attributes is not None
    assert {k: v for k, v in span.attributes.items() if k.startswith("gen_ai.")} == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "noop",
        "gen_ai.request.model": "m",
        "gen_ai.request.max_tokens": 8,
        "gen_ai.request.temperature": 0.5,
        "gen_ai.request.top_p": 1.0,
        "gen_ai.request.top_k": 5,
        "gen_ai.request.seed": 3,
        "gen_ai.usage.input_tokens": span.attributes["gen_ai.usage.input_tokens"],
        "gen_ai.usage.output_tokens": 8,
        "gen_ai.response.finish_reasons": ("length",),
    }


def test_token_ids_are_a_text_completion_of_the_options_model() -> None:
    [span] = completed([1, 2, 3], SamplingParams(8)).spans
    assert span.name == "text_completion noop"
    assert span.attributes is not None
    assert span.attributes["gen_ai.usage.input_tokens"] == 3
    assert "gen_ai.request.top_k" not in span.attributes


def test_the_metrics_of_a_completion_are_those_of_the_conventions() -> None:
    made = completed([1, 2, 3], SamplingParams(8))
    metrics = made.metrics()
    [operation] = metrics["gen_ai.client.operation.duration"]
    assert operation.attributes == {
        "gen_ai.operation.name": "text_completion",
        "gen_ai.provider.name": "noop",
        "gen_ai.request.model": "noop",
    }
    tokens = {
        point.attributes["gen_ai.token.type"]: point.sum
        for point in metrics["gen_ai.client.token.usage"]
    }
    assert tokens == {"input": 3, "output": 8}


def test_each_call_is_measured_by_port_adapter_and_callback(exported: Exported) -> None:
    points = exported.metrics()["crucible.adapter.call.duration"]
    counts = {point.attributes["crucible.callback"]: point.count for point in points}
    assert counts["forward_backward"] == counts["optim_step"] == 4


# --- no harm ---


class Failing:
    """An observer of which nothing works."""

    def begin(self, event: Event) -> None:
        raise RuntimeError("begin")

    def enter(self, span: int) -> Any:
        raise RuntimeError("enter")

    def __call__(self, event: Event) -> None:
        raise RuntimeError("event")


def outcome(*observers: Any) -> tuple[Any, Any]:
    kitchen = trained(noops(), *observers)
    timed = ("time/step", "tokens_per_second")
    rows = [
        (row.metric, row.step, row.value)
        for row in kitchen.metrics_store.read("r")
        if row.metric not in timed
    ]
    record = json.loads(kitchen.blob_store.read("r/run.json"))
    unique = ("created", "ended", "checkpoint_prefix")
    record = {k: v for k, v in record.items() if k not in unique}
    for name in timed:
        del record["metrics"][name]
    record["checkpoints"] = record["state"]["checkpoint"] = record["weights"] = None  # unique
    return rows, record


def test_observers_change_nothing_of_a_run_not_even_failing_ones(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    alone = outcome()
    assert outcome(Failing()) == alone
    assert capsys.readouterr().err.count("crucible: observer") == 1
    handlers = (Console(), JsonLines(tmp_path / "trace.jsonl"), Exported().observer)
    assert outcome(*handlers) == alone


def test_every_event_of_a_run_has_the_attributes_of_its_kind() -> None:
    """What a workflow emits by name is what observers read by class."""
    events: list[Event] = []
    trained(noops(), events.append)
    of_the_workflow = [event for event in events if not event.name.startswith("adapter.")]
    for event in of_the_workflow:
        about = set(event.attributes)
        if event.span is not None:
            about -= {"duration_s", "error"}
        known = typed(event)
        assert known is not None, event
        assert set(known.attributes()) == about, event
    assert {event.name for event in of_the_workflow} > {
        "dataset.load",
        "dataset.render",
        "training.checkpoint",
        "training.epoch",
        "training.eval",
        "training.step",
        "workflow.finishing",
        "workflow.start",
        "workflow.stop",
    }


SECRET = "hunter2-do-not-tell"


class Secretive(AdapterOptions):
    inner: BlobStore
    password: SecretStr = SecretStr(SECRET)


def secretive(opts: Secretive, call: Any) -> Any:
    result = call()
    if call.name == "write":
        raise Unavailable(f"{opts.password.get_secret_value()} was refused for {call.arguments}")
    return result


def test_no_secret_and_no_row_is_in_what_a_run_leaves(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = Exported()
    trace_file = tmp_path / "trace.jsonl"
    secret = module("secretive", Options=Secretive, around=hookimpl(secretive))
    said = {**noops()["completer"], "completion_text": "a private answer"}
    inner = noops()["blob_store"]
    observers = (made.observer, JsonLines(trace_file), Console())
    trained(noops(completer=said), *observers)
    with pytest.raises(Unavailable):
        trained(noops(completer=said, blob_store={"use": secret, "inner": inner}), *observers)
    seen = {
        "trace": trace_file.read_text(),
        "console": capsys.readouterr().err,
        "spans": "\n".join(span.to_json() for span in made.spans),
        "metrics": repr(made.metrics()),
    }
    for where, text in seen.items():
        assert "complete_batch" in text, where  # it does hold the run
        for hidden in (SECRET, "What is", "private"):
            assert hidden not in text, where
    assert "Unavailable" in seen["trace"]


# --- the file after an interruption ---

LONG = """
[adapters]
training_client = { use = "noop", latency_scale = 0 }
dataset_store = "noop"
blob_store = { use = "fsspec", url = "runs" }
metrics_store = { use = "jsonl", path = "runs/metrics" }
[workflow]
use = "supervised"
model = "any"
dataset = "rows"
max_steps = 1_000_000
"""


@pytest.mark.usefixtures("ctrl_c")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_a_trace_is_whole_lines_after_ctrl_c_and_after_a_kill(
    tmp_path: Path, crucible: Crucible, number: signal.Signals
) -> None:
    (tmp_path / "crucible.toml").write_text(LONG)
    file = tmp_path / "trace.jsonl"
    with subprocess.Popen(
        [*COMMAND, "run", "--trace", str(file)],
        cwd=tmp_path,
        env=clean_environ(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            deadline = time.monotonic() + 60
            while not (file.exists() and file.stat().st_size > 100_000):
                assert time.monotonic() < deadline
                time.sleep(0.01)
            process.send_signal(number)
            _, said = process.communicate(timeout=60)
        finally:
            process.kill()
    lines = list(read(file))
    assert None not in lines
    assert file.read_bytes().endswith(b"\n")
    found = crucible("trace", str(file))
    assert found.code == 0
    ended = "it ended with KeyboardInterrupt" if number == signal.SIGINT else "it goes on, or was"
    assert ended in found.out
    if number == signal.SIGINT:  # the command to go on with traces, too
        assert f"observe.jsonl={file}" in said
