"""What `retry` repeats, how often, when, and what it leaves alone."""

from __future__ import annotations

import inspect
import io
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
from crucible_adapter_compose import retry
from crucible_kitchen import (
    PORTS,
    AdapterError,
    AdapterTimeout,
    Completer,
    Completion,
    Datum,
    ModelInput,
    NotFound,
    RateLimited,
    SamplingParams,
    SessionConfig,
    SessionFailed,
    Unavailable,
    hookimpl,
)

Bind = Callable[..., Any]
QUICK = {"wait": 0.0}


def away(**fields: Any) -> Unavailable:
    return Unavailable("the server restarts", **fields)


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The seconds that were waited between attempts; here they take no time."""
    seconds: list[float] = []
    monkeypatch.setattr(time, "sleep", seconds.append)
    return seconds


def datum() -> Datum:
    return Datum(
        ModelInput.from_ints([1, 2]),
        {"target_tokens": np.array([2, 3]), "weights": np.ones(2, np.float32)},
    )


# --- what is repeated ---


def test_a_repeatable_call_is_made_again_until_it_succeeds(bind: Bind, scripted: Any) -> None:
    inner = scripted("blob_store", None, away(), away())
    store = bind("blob_store", retry.blob_store, inner=inner.table, **QUICK)
    store.write("a", b"1")
    assert store.read("a") == b"1"
    assert inner.calls == ["write", "read", "read", "read"]


def test_an_error_that_no_repetition_helps_passes_on_at_once(bind: Bind, scripted: Any) -> None:
    inner = scripted("blob_store", NotFound("no blob"))
    store = bind("blob_store", retry.blob_store, inner=inner.table, **QUICK)
    with pytest.raises(NotFound):
        store.read("a")
    assert inner.calls == ["read"]


def test_an_optimizer_step_that_may_have_been_applied_is_never_sent_again(
    bind: Bind, scripted: Any
) -> None:
    inner = scripted("training_client", away(), after=True, only=("optim_step",))
    client = bind("training_client", retry.training_client, inner=inner.table, **QUICK)
    session = client.start_session(SessionConfig("model"))
    client.forward_backward(session, [datum()])
    with pytest.raises(Unavailable):
        client.optim_step(session, 0.1)
    assert inner.calls.count("optim_step") == 1


def test_an_optimizer_step_that_was_not_applied_is_sent_again(bind: Bind, scripted: Any) -> None:
    failure = away(no_effect=True)
    inner = scripted("training_client", failure, only=("optim_step",))
    client = bind("training_client", retry.training_client, inner=inner.table, **QUICK)
    session = client.start_session(SessionConfig("model"))
    client.await_(client.forward_backward(session, [datum()]))
    result = client.await_(client.optim_step(session, 0.1))
    assert result.metrics["optimizer_steps"] == 1
    assert inner.calls.count("optim_step") == 2


def test_a_failure_that_leaves_no_time_for_another_attempt_is_a_timeout(
    bind: Bind, scripted: Any
) -> None:
    inner = scripted("training_client", away(), only=("await_",))
    client = bind("training_client", retry.training_client, inner=inner.table, **QUICK)
    future = client.forward_backward(client.start_session(SessionConfig("model")), [datum()])
    with pytest.raises(AdapterTimeout, match="no answer within 0 s; the last attempt failed"):
        client.await_(future, timeout=0)
    assert client.await_(future).outputs


@pytest.mark.parametrize("port", PORTS)
def test_what_may_be_repeated_is_what_the_contract_says(port: str, bind: Bind) -> None:
    """For every callback of every port: repeated if it is repeatable, or had no effect."""

    class Down:
        Options = getattr(retry, port).Options

    calls: list[str] = []
    wanted = 0
    for name in PORTS[port].callbacks():
        if name in ("around", "close"):
            continue
        for no_effect in (False, True):
            repeatable = PORTS[port].traits(name).repeatable({"data": iter([b"1"])})
            wanted += 2 if repeatable or no_effect else 1
            adapter = _fails_in(port, name, away(no_effect=no_effect), calls)
            outer = bind(
                port, getattr(retry, port), inner={"use": adapter}, max_attempts=2, **QUICK
            )
            with pytest.raises(Unavailable):
                outer._run(name, _arguments(port, name))
            assert len(calls) == wanted, (name, no_effect)


def _fails_in(port: str, name: str, error: Exception, calls: list[str]) -> Any:
    """Make an adapter of which every callback is there, and one raises."""
    module = ModuleType("down")
    for each, spec in PORTS[port].callbacks().items():
        if each in ("around", "close"):
            continue
        arguments = ", ".join(p for p in inspect.signature(spec).parameters if p != "self")
        namespace: dict[str, Any] = {"calls": calls, "error": error}
        body = "calls.append(1); raise error" if each == name else "return None"
        exec(f"def {each}({arguments}): {body}", namespace)
        setattr(module, each, hookimpl(namespace[each]))
    return module


def _arguments(port: str, name: str) -> dict[str, Any]:
    spec = PORTS[port].callbacks()[name]
    return {p: None for p in inspect.signature(spec).parameters if p not in ("self", "opts")}


@pytest.mark.parametrize("make", [lambda: iter([b"1", b"2"]), lambda: io.BytesIO(b"12")])
def test_a_blob_from_a_source_that_can_be_read_once_is_never_written_again(
    bind: Bind, scripted: Any, make: Callable[[], Any]
) -> None:
    """Not even if nothing was done: the second attempt would store what the first left over."""
    inner = scripted("blob_store", away(no_effect=True))
    store = bind("blob_store", retry.blob_store, inner=inner.table, **QUICK)
    with pytest.raises(Unavailable):
        store.write("a", make())
    assert inner.calls == ["write"]


def test_a_blob_from_a_source_that_can_be_read_twice_is_written_again(
    bind: Bind, scripted: Any
) -> None:
    inner = scripted("blob_store", away(no_effect=True))
    store = bind("blob_store", retry.blob_store, inner=inner.table, **QUICK)
    store.write("a", [b"1", b"2"])
    assert store.read("a") == b"12"


def test_a_failed_session_is_left_to_the_workflow(bind: Bind, scripted: Any) -> None:
    inner = scripted("training_client", SessionFailed("an operation failed"), only=("await_",))
    client = bind("training_client", retry.training_client, inner=inner.table, **QUICK)
    session = client.start_session(SessionConfig("model"))
    future = client.forward_backward(session, [datum()])
    with pytest.raises(SessionFailed):
        client.await_(future)
    assert inner.calls.count("await_") == 1


def test_an_answer_that_was_lost_on_the_way_is_asked_for_again(bind: Bind, scripted: Any) -> None:
    inner = scripted("training_client", away(), away(), after=True, only=("await_",))
    client = bind("training_client", retry.training_client, inner=inner.table, **QUICK)
    session = client.start_session(SessionConfig("model"))
    assert client.await_(client.forward_backward(session, [datum()])).loss > 0
    assert inner.calls.count("await_") == 3
    assert inner.calls.count("forward_backward") == 1


def test_the_time_that_a_caller_gives_to_await_is_not_multiplied(bind: Bind, scripted: Any) -> None:
    inner = scripted("training_client", AdapterTimeout("still running"), only=("await_",))
    client = bind("training_client", retry.training_client, inner=inner.table, **QUICK)
    session = client.start_session(SessionConfig("model"))
    future = client.forward_backward(session, [datum()])
    with pytest.raises(AdapterTimeout):
        client.await_(future, timeout=0.01)
    assert inner.calls.count("await_") == 1
    client.await_(future, timeout=60)


def test_a_repeated_await_has_what_is_left_of_the_time(bind: Bind, scripted: Any) -> None:
    inner = scripted("training_client", away(), only=("await_",))
    client = bind("training_client", retry.training_client, inner=inner.table, **QUICK)
    session = client.start_session(SessionConfig("model"))
    client.await_(client.forward_backward(session, [datum()]), timeout=60)
    first, second = (a["timeout"] for a in inner.arguments if "timeout" in a)
    assert first == 60
    assert 0 < second < 60


def test_a_timeout_that_was_not_asked_for_is_repeated(bind: Bind, scripted: Any) -> None:
    inner = scripted("training_client", AdapterTimeout("no answer"), only=("await_",))
    client = bind("training_client", retry.training_client, inner=inner.table, **QUICK)
    session = client.start_session(SessionConfig("model"))
    client.await_(client.forward_backward(session, [datum()]))
    assert inner.calls.count("await_") == 2


def test_ctrl_c_is_never_repeated(bind: Bind, scripted: Any) -> None:
    inner = scripted("blob_store", away(), KeyboardInterrupt())
    store = bind("blob_store", retry.blob_store, inner=inner.table, **QUICK)
    with pytest.raises(KeyboardInterrupt):
        store.exists("a")
    assert inner.calls == ["exists"] * 2


# --- how often, and when ---


def test_after_the_last_attempt_the_last_error_passes_on(bind: Bind, scripted: Any) -> None:
    inner = scripted("blob_store", away(), away(), Unavailable("the third"), away())
    store = bind("blob_store", retry.blob_store, inner=inner.table, max_attempts=3, **QUICK)
    with pytest.raises(Unavailable, match="the third"):
        store.read("a")
    assert inner.calls == ["read"] * 3


def test_one_attempt_is_none_repeated(bind: Bind, scripted: Any) -> None:
    inner = scripted("blob_store", away())
    store = bind("blob_store", retry.blob_store, inner=inner.table, max_attempts=1)
    with pytest.raises(Unavailable):
        store.read("a")
    assert inner.calls == ["read"]


def test_the_wait_doubles_by_chance_up_to_a_limit(
    bind: Bind, scripted: Any, waits: list[float]
) -> None:
    inner = scripted("blob_store", *[away() for _ in range(8)])
    store = bind("blob_store", retry.blob_store, inner=inner.table, max_attempts=9, max_wait=20)
    assert store.exists("a") is False
    assert len(waits) == 8
    for number, wait in enumerate(waits):
        assert min(0.5 * 2**number, 20) <= wait <= min(0.5 * 2**number + 0.5, 20)
    assert len(set(waits[:5])) == 5
    assert waits[:5] != [0.5, 1.0, 2.0, 4.0, 8.0]


def test_no_wait_is_shorter_than_the_backend_asked_for(
    bind: Bind, scripted: Any, waits: list[float]
) -> None:
    inner = scripted("blob_store", RateLimited("slow down", retry_after=75.0))
    store = bind("blob_store", retry.blob_store, inner=inner.table)
    assert store.exists("a") is False
    assert waits == [75.0]


def test_no_attempt_begins_after_the_deadline(
    bind: Bind, scripted: Any, waits: list[float]
) -> None:
    inner = scripted("blob_store", RateLimited("slow down", retry_after=75.0))
    store = bind("blob_store", retry.blob_store, inner=inner.table, deadline=70.0)
    with pytest.raises(RateLimited):
        store.exists("a")
    assert waits == []


def test_the_deadline_counts_from_the_beginning_of_the_call(
    bind: Bind, scripted: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    inner = scripted("blob_store", away())
    store = bind("blob_store", retry.blob_store, inner=inner.table, wait=1, deadline=10.0)
    clock = iter([100.0, 109.5])  # the first attempt took this long
    monkeypatch.setattr(retry, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    with pytest.raises(Unavailable):
        store.exists("a")
    assert inner.calls == ["exists"]


def test_while_nothing_fails_a_call_passes_straight_through(
    bind: Bind, scripted: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def enter(*args: Any, **kwargs: Any) -> None:
        raise AssertionError("something was prepared for a repetition")

    for name in ("_repeat", "_repeat_items", "_pause"):
        monkeypatch.setattr(retry, name, enter)
    store = bind("blob_store", retry.blob_store, inner=scripted("blob_store").table)
    store.write("a", b"1")
    assert list(store.stream("a")) == [b"1"]


def test_the_wait_of_many_attempts_stays_finite(
    bind: Bind, scripted: Any, waits: list[float]
) -> None:
    inner = scripted("blob_store", *[away() for _ in range(1100)])
    store = bind("blob_store", retry.blob_store, inner=inner.table, max_attempts=1101)
    assert store.exists("a") is False
    assert waits[-1] == 30.0


@pytest.mark.parametrize(
    ("option", "value"),
    [("max_attempts", 0), ("wait", -1), ("wait", float("inf")), ("deadline", 0)],
)
def test_options_that_mean_nothing_are_refused(
    bind: Bind, scripted: Any, option: str, value: float
) -> None:
    with pytest.raises(Exception, match=rf"blob_store\.{option}: "):
        bind("blob_store", retry.blob_store, inner=scripted("blob_store").table, **{option: value})


def test_threads_repeat_each_their_own_calls(bind: Bind, scripted: Any) -> None:
    inner = scripted("blob_store", *[away() for _ in range(40)])
    store = bind("blob_store", retry.blob_store, inner=inner.table, max_attempts=50, **QUICK)
    threads = [threading.Thread(target=store.write, args=(f"{n}", b"1")) for n in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(inner.calls) == 56
    assert len(store.list()) == 16


# --- streams ---


class Broken:
    """A stream of a blob store or dataset store that fails at some of its items."""

    def __init__(self, stream: Iterator[Any], failures: dict[int, Exception], log: list[str]):
        self._stream, self._failures, self._log, self._n = stream, failures, log, 0
        self._open = True

    def __iter__(self) -> Broken:
        return self

    def __next__(self) -> Any:
        if failure := self._failures.pop(self._n, None):
            raise failure
        self._n += 1
        return next(self._stream)

    def close(self) -> None:
        self._log += ["closed"] * self._open
        self._open = False
        self._stream.close()  # type: ignore[attr-defined]


def breaking(scripted: Any, port: str, failures: dict[int, Exception], log: list[str]) -> Any:
    inner = scripted(port)

    class Breaks(type(inner)):  # type: ignore[misc]
        @hookimpl
        def around(self, opts: Any, call: Any) -> Any:
            result = super().around(opts, call)
            return Broken(result, failures, log) if call.name == "stream" else result

    return Breaks(port)


def test_a_stream_that_fails_before_its_first_item_is_begun_again(
    bind: Bind, scripted: Any
) -> None:
    log: list[str] = []
    inner = breaking(scripted, "blob_store", {0: away()}, log)
    store = bind("blob_store", retry.blob_store, inner=inner.table, **QUICK)
    store.write("a", b"1234")
    assert list(store.stream("a", chunk_size=2)) == [b"12", b"34"]
    assert inner.calls.count("stream") == 2
    assert log == ["closed", "closed"]


def test_a_blob_that_breaks_off_in_the_middle_is_not_begun_again(bind: Bind, scripted: Any) -> None:
    inner = breaking(scripted, "blob_store", {1: away()}, [])
    store = bind("blob_store", retry.blob_store, inner=inner.table, **QUICK)
    store.write("a", b"1234")
    stream = store.stream("a", chunk_size=2)
    assert next(stream) == b"12"
    with pytest.raises(Unavailable):
        next(stream)
    assert inner.calls.count("stream") == 1


def test_rows_go_on_where_they_broke_off_none_lost_none_twice(bind: Bind, scripted: Any) -> None:
    inner = breaking(scripted, "dataset_store", {0: away(), 3: away(), 2: away()}, [])
    store = bind("dataset_store", retry.dataset_store, inner=inner.table, **QUICK)
    handle = store.shuffle(store.load_dataset("sums", split="train"), seed=7)
    whole = store.to_list(handle)
    assert [row for rows in store.stream(handle, batch_size=90) for row in rows] == whole
    assert inner.calls.count("stream") == 4
    assert inner.calls.count("skip") == 2


def test_a_stream_that_was_never_advanced_is_closed_with_its_wrapper(
    bind: Bind, scripted: Any
) -> None:
    log: list[str] = []
    inner = breaking(scripted, "blob_store", {}, log)
    store = bind("blob_store", retry.blob_store, inner=inner.table)
    store.write("a", b"1")
    store.stream("a").close()
    assert log == ["closed"]


def test_an_empty_stream_ends(bind: Bind, scripted: Any) -> None:
    inner = breaking(scripted, "blob_store", {0: away()}, [])
    store = bind("blob_store", retry.blob_store, inner=inner.table, **QUICK)
    store.write("a", b"")
    assert list(store.stream("a")) == []


# --- batches ---


def texts(results: Iterable[Any]) -> list[Any]:
    return [r.text if isinstance(r, Completion) else r for r in results]


@pytest.mark.parametrize("seed", [5, None])
def test_of_a_batch_only_the_failed_items_are_asked_for_again(
    bind: Bind, scripted: Any, seed: int | None
) -> None:
    prompts = [[1, n] for n in range(2, 22)]
    params = SamplingParams(8, n=2, seed=seed)
    noop = {"failure_rate": 0.4, "completion_text": None if seed is not None else "the sum"}
    inner = scripted("completer", **noop)
    completer = bind("completer", retry.completer, inner=inner.table, max_attempts=40, **QUICK)
    found = completer.complete_batch(prompts, params)
    reliable = scripted("completer", **{**noop, "failure_rate": 0.0})
    expected = bind("completer", use=reliable, inner=reliable.table["inner"])
    assert texts(found) == texts(expected.complete_batch(prompts, params))
    asked = [len(a["prompts"]) for a in inner.arguments]
    assert asked[0] == 20
    assert sum(asked[1:]) < 60


def test_items_that_no_repetition_helps_stay_as_they_are(bind: Bind, scripted: Any) -> None:
    inner = scripted("completer", failure_rate=0.5)
    completer = bind("completer", retry.completer, inner=inner.table, max_attempts=40, **QUICK)
    results = completer.complete_batch([[1, 2], [], [3, 4]], SamplingParams(4))
    assert [isinstance(r, Completion) for r in results] == [True, False, True]
    assert "empty" in str(results[1])


def test_when_attempts_are_used_up_the_batch_holds_the_errors(bind: Bind, scripted: Any) -> None:
    inner = scripted("completer", failure_rate=1.0)
    completer = bind("completer", retry.completer, inner=inner.table, max_attempts=3, **QUICK)
    results = completer.complete_batch([[1], [2]], SamplingParams(4, seed=0))
    assert [type(r) for r in results] == [Unavailable, Unavailable]
    assert inner.calls == ["complete_batch"] * 3


def test_a_batch_waits_as_long_as_the_slowest_of_its_items_asks(
    bind: Bind, scripted: Any, waits: list[float]
) -> None:
    completions = [Completion(text, None, None, "stop") for text in ("one", "two")]
    answers: list[list[Any]] = [
        [RateLimited("slow", retry_after=s) for s in (40.0, 90.0)],
        completions,
    ]

    class Busy:
        Options = retry.RetryOptions[Completer]

        @hookimpl
        def complete_batch(self, prompts: Any, params: Any) -> list[Any]:
            return answers.pop(0)

    inner = {"use": Busy(), "inner": scripted("completer").table}
    completer = bind("completer", retry.completer, inner=inner)
    assert completer.complete_batch([[1], [2]], SamplingParams(4)) == completions
    assert waits == [90.0]


def test_an_error_of_the_whole_batch_is_repeated_as_any_call(bind: Bind, scripted: Any) -> None:
    inner = scripted("completer", away())
    completer = bind("completer", retry.completer, inner=inner.table, **QUICK)
    assert len(completer.complete_batch([[1], [2]], SamplingParams(4))) == 2
    assert inner.calls == ["complete_batch"] * 2


def test_an_error_of_a_repetition_costs_only_the_items_it_was_for(
    bind: Bind, scripted: Any
) -> None:
    inner = scripted("completer", None, AdapterError("gone"), failure_rate=0.5)
    completer = bind("completer", retry.completer, inner=inner.table, **QUICK)
    results = completer.complete_batch([[n] for n in range(1, 9)], SamplingParams(4))
    kinds = {type(r) for r in results}
    assert kinds == {Completion, AdapterError}


def test_a_real_wait_is_taken(bind: Bind, scripted: Any) -> None:
    inner = scripted("blob_store", RateLimited("slow down", retry_after=0.05))
    store = bind("blob_store", retry.blob_store, inner=inner.table, **QUICK)
    began = time.monotonic()
    store.exists("a")
    assert time.monotonic() - began >= 0.05
