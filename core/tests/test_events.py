"""Events: what happened within what, which observers receive it, and what it says."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import itertools
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from crucible_kitchen import (
    AdapterError,
    AdapterOptions,
    Completer,
    Completion,
    CompletionChunk,
    Event,
    Kitchen,
    MetricsStore,
    SamplingParams,
    Unavailable,
    Usage,
    hookimpl,
)
from crucible_kitchen import events as events_module
from crucible_kitchen.events import (
    UNOBSERVED,
    DatasetLoad,
    Observers,
    Span,
    TrainingStep,
    TypedEvent,
    WorkflowRestart,
    WorkflowStart,
    typed,
)
from crucible_kitchen.events.kinds import KINDS


def module(name: str, **members: Any) -> ModuleType:
    made = ModuleType(name)
    for key, value in members.items():
        setattr(made, key, value)
    return made


def counter(name: str = "counter", **changed: Callable[..., Any]) -> ModuleType:
    """Return a metrics store that keeps nothing."""

    def record(
        run_id: str,
        metric: str,
        value: float,
        step: int | None,
        metadata: Mapping[str, Any] | None,
    ) -> None: ...

    def flush(run_id: str) -> None: ...

    def read(run_id: str) -> list[Any]:
        return []

    callbacks: dict[str, Any] = {"record": record, "flush": flush, "read": read, **changed}
    return module(name, **{key: hookimpl(value) for key, value in callbacks.items()})


class Wraps(AdapterOptions):
    inner: MetricsStore


def wrapped(around: Callable[..., Any]) -> Kitchen:
    outer = module("wrapper", Options=Wraps, around=hookimpl(around))
    return Kitchen({"metrics_store": {"use": outer, "inner": {"use": counter()}}})


def recorded(observers: Observers) -> list[Event]:
    """Return the list to which every event will be added."""
    events: list[Event] = []
    observers.add(events.append)
    return events


def in_thread(work: Callable[[], Any]) -> None:
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()


# --- what is within what ---


def test_a_call_is_within_the_span_that_is_current() -> None:
    kitchen = Kitchen({"metrics_store": counter()})
    events = recorded(kitchen.observers)
    kitchen.metrics_store.flush("outside")
    with kitchen.observers.start("training.eval", step=3) as span:
        kitchen.metrics_store.flush("within")
        kitchen.observers.emit("noticed")
    outside, within, noticed, evaluated = events
    assert outside.parent is None
    assert within.parent == noticed.parent == evaluated.span == span.number
    assert noticed.span is None
    assert within.span not in (None, outside.span, evaluated.span)


def test_the_event_of_a_span_has_what_was_known_at_its_begin_and_what_was_added() -> None:
    observers = Observers()
    events = recorded(observers)
    with observers.start("training.eval", step=3) as span:
        span.set(metrics={"nll": 1.0})
    about = dict(events[0].attributes)
    assert about.pop("duration_s") >= 0
    assert about == {"step": 3, "metrics": {"nll": 1.0}, "error": None}


def test_a_step_that_is_submitted_ahead_has_its_own_calls_and_no_others() -> None:
    kitchen = Kitchen({"metrics_store": counter()})
    events = recorded(kitchen.observers)
    store, start = kitchen.metrics_store, kitchen.observers.start
    first, second = start("training.step", step=1), start("training.step", step=2)
    with first.current():
        store.flush("a")
    with second.current():
        store.flush("a")
    with first.current():
        store.read("a")
    first.end()
    with second.current():
        store.read("a")
    second.end()
    spans = {e.span: e.attributes["step"] for e in events if e.name == "training.step"}
    assert [
        (e.attributes["callback"], spans[e.parent]) for e in events if "port" in e.attributes
    ] == [
        ("flush", 1),
        ("flush", 2),
        ("read", 1),
        ("read", 2),
    ]


def test_a_call_that_a_wrapper_passes_on_is_within_the_wrappers() -> None:
    kitchen = wrapped(lambda call: call())
    inner, outer = told_of_a_flush(kitchen)
    assert (inner.name, outer.name) == ("adapter.call", "adapter.around")
    assert inner.parent == outer.span
    assert outer.parent is None


def test_it_is_so_in_another_thread_too() -> None:
    def around(call: Any) -> None:
        in_thread(call)

    inner, outer = told_of_a_flush(wrapped(around))
    assert inner.parent == outer.span


def told_of_a_flush(kitchen: Kitchen) -> list[Event]:
    events = recorded(kitchen.observers)
    kitchen.metrics_store.flush("a")
    return events


def test_what_an_adapter_calls_is_within_its_call() -> None:
    class Tee(AdapterOptions):
        second: MetricsStore

    def flush(opts: Tee, run_id: str) -> None:
        opts.second.flush(run_id)

    tee = counter("tee", flush=flush)
    tee.Options = Tee  # type: ignore[attr-defined]
    inner, outer = told_of_a_flush(
        Kitchen({"metrics_store": {"use": tee, "second": {"use": counter()}}})
    )
    assert (inner.attributes["adapter"], outer.attributes["adapter"]) == ("counter", "tee")
    assert inner.parent == outer.span


def test_a_thread_without_a_context_is_within_the_run_and_one_with_a_copy_where_it_was() -> None:
    kitchen = Kitchen({"metrics_store": counter()})
    events = recorded(kitchen.observers)

    def flush() -> None:
        kitchen.metrics_store.flush("a")

    with kitchen.observers.run("mine"), kitchen.observers.start("training.step"):
        in_thread(flush)
        context = contextvars.copy_context()
        in_thread(lambda: context.run(flush))
    in_thread(flush)
    bare, copied, step, run, after = events
    assert (run.name, run.attributes["workflow"]) == ("workflow.run", "mine")
    assert bare.parent == step.parent == run.span
    assert copied.parent == step.span
    assert after.parent is None


def test_what_happens_while_a_stream_is_read_is_not_within_it() -> None:
    def stream(prompt: Any, params: Any) -> Iterator[Any]:
        yield from ()

    kitchen = Kitchen({"completer": completer(stream_complete=stream)})
    events = recorded(kitchen.observers)
    with kitchen.completer.stream_complete([1], SamplingParams(1)):
        kitchen.observers.emit("noticed")
    assert [(e.name, e.parent) for e in events] == [("noticed", None), ("adapter.call", None)]


# --- ends ---


def test_an_exception_that_leaves_a_span_ends_it_once() -> None:
    observers = Observers()
    events = recorded(observers)
    span = observers.start("training.step")
    with pytest.raises(KeyError), span.current():
        raise KeyError
    span.end(metrics={})
    with pytest.raises(KeyError), observers.start("training.eval"):
        raise KeyError
    assert [(e.name, e.attributes["error"]) for e in events] == [
        ("training.step", "KeyError"),
        ("training.eval", "KeyError"),
    ]
    assert observers.current() is None


def test_an_interrupted_call_is_told_as_such() -> None:
    def flush(run_id: str) -> None:
        raise KeyboardInterrupt

    kitchen = Kitchen({"metrics_store": counter(flush=flush)})
    events = recorded(kitchen.observers)
    with pytest.raises(KeyboardInterrupt):
        kitchen.metrics_store.flush("a")
    assert [e.attributes["error"] for e in events] == ["KeyboardInterrupt"]


def test_without_an_observer_a_span_is_nothing() -> None:
    observers = Observers()
    with observers.run("mine"), observers.start("training.step", step=1) as span:
        assert span is UNOBSERVED
        assert observers.current() is None
        with span.current():
            span.set(metrics={})
        span.end(KeyError())


# --- tracers ---


class Diary:
    """A tracer that keeps the events it receives."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def begin(self, event: Event) -> None:
        self.said.append(f"begin {event.name}")

    def enter(self, span: int) -> Callable[[], None]:
        self.said.append("enter")
        return lambda: self.said.append("leave")

    def __call__(self, event: Event) -> None:
        self.said.append(f"end {event.name}")


def test_a_tracer_is_told_of_begins_and_of_where_its_thread_works() -> None:
    kitchen = Kitchen({"metrics_store": counter()})
    diary = Diary()
    stop = kitchen.observe(diary)
    step = kitchen.observers.start("training.step")
    with step.current():
        kitchen.metrics_store.flush("a")
    step.end()
    stop()
    kitchen.metrics_store.flush("a")
    call = ["begin adapter.call", "enter", "leave", "end adapter.call"]
    assert diary.said == ["begin training.step", "enter", *call, "leave", "end training.step"]


@pytest.mark.parametrize("broken", ["begin", "enter", "leave"])
def test_a_tracer_that_fails_stops_nothing(broken: str, capsys: pytest.CaptureFixture[str]) -> None:
    def fail(*arguments: object) -> None:
        raise RuntimeError("tracer down")

    class Failing(Diary):
        def begin(self, event: Event) -> None:
            if broken == "begin":
                fail()

        def enter(self, span: int) -> Callable[[], None]:
            if broken == "enter":
                fail()
            return fail

    kitchen = Kitchen({"metrics_store": counter()})
    kitchen.observe(Failing())
    events = recorded(kitchen.observers)
    with kitchen.observers.start("training.step") as step:
        kitchen.metrics_store.flush("a")
    assert [e.parent for e in events] == [step.number, None]
    assert capsys.readouterr().err.count("tracer down") == 1


# --- what the events of completions say ---


def completer(**changed: Callable[..., Any]) -> ModuleType:
    def complete(prompt: Any, params: Any) -> Completion:
        return answer("stop")

    def complete_batch(prompts: Any, params: Any) -> list[Any]:
        return [answer("stop"), answer("length"), Unavailable("busy"), answer("length")]

    callbacks = {"complete": complete, "complete_batch": complete_batch, **changed}
    return module(
        "fixed", Options=Model, **{key: hookimpl(value) for key, value in callbacks.items()}
    )


class Model(AdapterOptions):
    model: str = "default-model"


def answer(finish_reason: Any) -> Completion:
    return Completion("a private answer", np.array([7]), None, finish_reason, Usage(5, 2))


def attributes_of(complete: Callable[[Completer], Any], **changed: Any) -> dict[str, Any]:
    kitchen = Kitchen({"completer": completer(**changed)})
    events = recorded(kitchen.observers)
    complete(kitchen.completer)
    [event] = events
    about = dict(event.attributes)
    assert "private" not in repr(about)
    return {k: v for k, v in about.items() if k not in ("port", "adapter", "duration_s")}


MESSAGES: Any = [{"role": "user", "content": "a private question"}]


def test_a_completion_tells_its_request_and_its_usage_and_no_text() -> None:
    stop: Any = "private end"
    params = SamplingParams(16, temperature=0.5, seed=3, stop=stop, model="m")
    assert attributes_of(lambda port: port.complete(MESSAGES, params)) == {
        "callback": "complete",
        "error": None,
        "model": "m",
        "max_tokens": 16,
        "temperature": 0.5,
        "top_p": 1.0,
        "top_k": -1,
        "seed": 3,
        "n": 1,
        "prompts": 1,
        "prompt_kind": "messages",
        "prompt_tokens": 5,
        "completion_tokens": 2,
        "finish_reasons": {"stop": 1},
    }


def test_a_batch_tells_sums_and_how_many_failed() -> None:
    about = attributes_of(lambda port: port.complete_batch([[1, 2], [3]], SamplingParams(16, n=2)))
    assert about["prompts"] == 2
    assert about["prompt_kind"] == "tokens"
    assert about["model"] == "default-model"
    assert (about["prompt_tokens"], about["completion_tokens"]) == (15, 6)
    assert about["finish_reasons"] == {"stop": 1, "length": 2}
    assert about["failed"] == 1


@pytest.mark.parametrize("count", [0, 1])
def test_a_batch_without_a_completion_tells_so(count: int) -> None:
    about = attributes_of(
        lambda port: port.complete_batch([[1]] * count, SamplingParams(1)),
        complete_batch=hook(lambda prompts, params: [Unavailable("busy")] * count),
    )
    assert about["failed"] == count


def hook(function: Callable[[Any, Any], Any]) -> Callable[..., Any]:
    def complete_batch(prompts: Any, params: Any) -> Any:
        return function(prompts, params)

    return complete_batch


CHUNKS: list[Any] = [
    CompletionChunk("a private", np.array([7, 8])),
    CompletionChunk(" answer", np.array([9]), None, "stop"),
]


@pytest.mark.parametrize(
    ("chunks", "read", "known"),
    [
        (CHUNKS, 3, {"completion_tokens": 3, "finish_reasons": {"stop": 1}}),
        (CHUNKS, 1, {"completion_tokens": 2}),
        (CHUNKS, 0, {}),
        (
            [CompletionChunk("a private answer", finish_reason="stop")],
            2,
            {"finish_reasons": {"stop": 1}},
        ),
    ],
)
def test_a_streamed_completion_tells_what_was_read_of_it(
    chunks: list[Any], read: int, known: dict[str, Any]
) -> None:
    def stream_complete(prompt: Any, params: Any) -> Iterator[Any]:
        yield from chunks

    def complete(port: Completer) -> None:
        with port.stream_complete([1], SamplingParams(16)) as stream:
            assert [*itertools.islice(stream, read)] == chunks[:read]

    about = attributes_of(complete, stream_complete=stream_complete)
    assert {k: about[k] for k in ("completion_tokens", "finish_reasons") if k in about} == known


@pytest.mark.parametrize("arguments", [(None, None), (iter([[1]]), SamplingParams(1)), ([], "x")])
def test_arguments_that_make_no_sense_reach_the_adapter_observed_or_not(arguments: Any) -> None:
    def refuse(prompts: Any, params: Any) -> Any:
        raise ValueError("refused")

    kitchen = Kitchen({"completer": completer(complete_batch=hook(refuse))})
    recorded(kitchen.observers)
    with pytest.raises(AdapterError, match="refused"):
        kitchen.completer.complete_batch(*arguments)


@pytest.mark.parametrize("observed", [False, True])
@pytest.mark.parametrize(
    ("answer", "wrong"),
    [
        ("no completion", "must return Completion, not a str"),
        (
            Completion("a", None, None, "stop", Usage(None, 3)),  # type: ignore[arg-type]
            r"\.usage\.prompt_tokens is None, not int",
        ),
    ],
)
def test_a_result_that_breaks_the_contract_is_an_error_observed_or_not(
    observed: bool, answer: Any, wrong: str
) -> None:
    kitchen = Kitchen({"completer": completer(complete=lambda prompt, params: answer)})
    if observed:
        recorded(kitchen.observers)
    with pytest.raises(AdapterError, match=wrong):
        kitchen.completer.complete([1], SamplingParams(1))


@pytest.mark.parametrize("observed", [False, True])
def test_an_item_that_breaks_the_contract_is_an_error_observed_or_not(observed: bool) -> None:
    def stream_complete(prompt: Any, params: Any) -> Iterator[Any]:
        yield CompletionChunk("a")
        yield CompletionChunk("b", 7)  # type: ignore[arg-type]

    kitchen = Kitchen({"completer": completer(stream_complete=stream_complete)})
    events = recorded(kitchen.observers) if observed else []
    stream = kitchen.completer.stream_complete([1], SamplingParams(1))
    assert next(stream).text == "a"
    with pytest.raises(AdapterError, match=r"\.tokens is an int, not int64 array"):
        next(stream)
    assert [*stream] == []
    assert [event.attributes["error"] for event in events] == ["AdapterError"] * observed


def test_a_stream_that_is_left_and_forgotten_is_told() -> None:
    def stream_complete(prompt: Any, params: Any) -> Iterator[Any]:
        yield from CHUNKS

    kitchen = Kitchen({"completer": completer(stream_complete=stream_complete)})
    events = recorded(kitchen.observers)
    for _ in kitchen.completer.stream_complete([1], SamplingParams(1)):
        break
    gc.collect()
    [event] = events
    assert (event.attributes["completion_tokens"], event.attributes["error"]) == (2, None)


class OfALibrary(BaseException):
    """What a library stops its own threads with. pytest itself survives it in a `repr`."""


class Unspeakable(ValueError):
    def __str__(self) -> str:
        raise SystemExit(0)


@pytest.mark.parametrize(
    "error",
    [SystemExit(0), GeneratorExit(), asyncio.CancelledError(), RecursionError(), Unspeakable()],
    ids=lambda error: type(error).__name__,
)
def test_whatever_an_observer_raises_is_reported_once_and_stops_nothing(
    error: BaseException, capsys: pytest.CaptureFixture[str]
) -> None:
    class Nameless:
        def __call__(self, event: Event) -> None:
            raise error

        def __repr__(self) -> str:
            raise OfALibrary

    observers = Observers()
    observers.add(Nameless())
    events = recorded(observers)
    observers.emit("noticed")
    observers.emit("noticed")
    assert len(events) == 2
    assert observers.failed == ["<Nameless>"]
    said = capsys.readouterr().err
    assert said.startswith(
        f"crucible: observer <Nameless> failed at noticed ({type(error).__name__}"
    )
    assert said.count("\n") == 1


def test_what_a_failing_observer_says_reaches_the_terminal_as_text(
    capsys: pytest.CaptureFixture[str],
) -> None:
    def clears(event: Event) -> None:
        raise ValueError("\x1b[2J")

    observers = Observers()
    observers.add(clears)
    observers.emit("noticed")
    assert r"ValueError: \x1b[2J" in capsys.readouterr().err


def test_ctrl_c_in_an_observer_is_ctrl_c() -> None:
    def interrupted(event: Event) -> None:
        raise KeyboardInterrupt

    observers = Observers()
    observers.add(interrupted)
    with pytest.raises(KeyboardInterrupt):
        observers.emit("noticed")
    assert observers.failed == []


def test_observers_that_did_not_fail_are_not_among_those_that_did() -> None:
    observers = Observers()
    recorded(observers)
    observers.emit("noticed")
    assert observers.failed == []


def test_numbers_of_spans_are_never_used_twice() -> None:
    made: list[Span] = []
    observers = Observers()
    recorded(observers)

    def begin(_: Iterable[int] = ()) -> None:
        made.extend(observers.start("training.step") for _ in range(200))

    threads = [threading.Thread(target=begin) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({span.number for span in made}) == 800


# --- typed events ---


@pytest.mark.parametrize(
    ("event", "attributes"),
    [
        (
            WorkflowStart(workflow="mine", run_id="r"),
            {"workflow": "mine", "run_id": "r", "resumed_at": 0, "done": False},
        ),
        (DatasetLoad(dataset="rows"), {"dataset": "rows", "split": None}),
        (DatasetLoad(dataset="rows", rows=3), {"dataset": "rows", "split": None, "rows": 3}),
        (TrainingStep(step=1, total=2), {"step": 1, "total": 2}),
        (
            TrainingStep(step=1, total=2, run_id="r", metrics={"nll": 0.5}),
            {"step": 1, "total": 2, "run_id": "r", "metrics": {"nll": 0.5}},
        ),
    ],
)
def test_a_typed_event_has_its_name_and_attributes_and_is_read_back(
    event: TypedEvent, attributes: dict[str, Any]
) -> None:
    observers = Observers()
    events = recorded(observers)
    observers.emit(event)
    [found] = events
    assert (found.name, found.attributes) == (event.name, attributes)
    assert typed(found) == event


def test_a_span_of_a_kind_gets_at_its_end_what_is_known_then() -> None:
    observers = Observers()
    events = recorded(observers)
    step = TrainingStep(step=1, total=2)
    with observers.start(step) as span:
        span.set(replace(step, metrics={"nll": 0.5}))
    [event] = events
    assert typed(event) == replace(step, metrics={"nll": 0.5})
    assert event.attributes["error"] is None


def test_an_event_that_lacks_an_attribute_or_is_a_workflows_own_is_of_no_kind() -> None:
    assert typed(Event("training.step", {"step": 1})) is None
    assert typed(Event("mine", {"step": 1})) is None


def test_attributes_that_a_kind_does_not_declare_are_left_out() -> None:
    assert typed(Event("training.step", {"step": 1, "total": 2, "mine": 3})) == TrainingStep(
        step=1, total=2
    )


def test_none_is_a_value_where_an_attribute_is_always_there() -> None:
    restart = WorkflowRestart(
        workflow="mine", run_id="r", step=0, restart=1, callback=None, error="Unavailable"
    )
    assert restart.attributes()["callback"] is None


def test_the_table_of_events_has_every_kind() -> None:
    documented = events_module.__doc__ or ""
    assert [name for name in KINDS if f"`{name}`" not in documented] == []


def test_an_observer_that_is_interrupted_keeps_no_event_from_the_others() -> None:
    def interrupted(event: Event) -> None:
        raise KeyboardInterrupt

    observers = Observers()
    seen: list[str] = []
    observers.add(interrupted)
    observers.add(lambda event: seen.append(event.name))
    with pytest.raises(KeyboardInterrupt):
        observers.emit("training.checkpoint", step=3)
    assert seen == ["training.checkpoint"]
