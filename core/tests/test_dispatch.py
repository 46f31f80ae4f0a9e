"""Calls: to the adapter, through `around` to `inner`, and errors on the way out."""

from __future__ import annotations

import asyncio
import io
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from crucible_kitchen import (
    AdapterError,
    AdapterOptions,
    AdapterTimeout,
    BlobStore,
    Completer,
    CrucibleWarning,
    Event,
    InvalidInput,
    Kitchen,
    MetricsStore,
    NotFound,
    SamplingParams,
    Stream,
    Unavailable,
    Unsupported,
    helper,
    hookimpl,
    resource,
)
from crucible_kitchen.ports import PORTS
from pydantic import Secret, SecretStr


def module(name: str, **members: Any) -> ModuleType:
    made = ModuleType(name)
    for key, value in members.items():
        if callable(value) and not isinstance(value, type):
            value.__module__, value.__name__ = name, key
        setattr(made, key, value)
    return made


def memory(**changed: Callable[..., Any]) -> ModuleType:
    blobs: dict[str, bytes] = {}

    def read(path: str) -> bytes:
        if path not in blobs:
            raise NotFound(f"no blob {path!r}")
        return blobs[path]

    def stream(path: str, chunk_size: int) -> Iterable[bytes]:
        yield read(path)

    def write(path: str, data: bytes) -> None:
        blobs[path] = data

    def exists(path: str) -> bool:
        return path in blobs

    callbacks: dict[str, Any] = {
        "read": read,
        "stream": stream,
        "write": write,
        "exists": exists,
        **changed,
    }
    return module("memory", **{name: hookimpl(f) for name, f in callbacks.items()})


class Wraps(AdapterOptions):
    inner: BlobStore


def wrapper(around: Callable[..., Any] | None = None, **own: Any) -> ModuleType:
    return module(
        "wrapper", Options=Wraps, **({"around": hookimpl(around)} if around else {}), **own
    )


def stacked(outer: ModuleType, inner: ModuleType | None = None) -> Kitchen:
    return Kitchen({"blob_store": {"use": outer, "inner": {"use": inner or memory()}}})


# --- errors ---


class Secrets(AdapterOptions):
    inner: BlobStore | None = None
    password: SecretStr = SecretStr("hunter22")
    arguments: Secret[dict[str, Any]] = Secret({"url": "s3://key@host", "sizes": ["4096"], "n": 1})


@pytest.mark.parametrize("kind", [NotFound, ValueError])
def test_no_secret_of_the_options_is_in_a_message(kind: type[Exception]) -> None:
    def read(path: str) -> bytes:
        raise kind("hunter22 is wrong at s3://key@host for 4096 bytes")

    store = memory(read=read)
    store.Options = Secrets  # type: ignore[attr-defined]
    with pytest.raises(AdapterError) as caught:
        Kitchen({"blob_store": store}).blob_store.read("a")
    said = str(caught.value)
    assert said.endswith("********** is wrong at ********** for ********** bytes")
    assert "hunter22" not in repr(caught.value)


def test_an_error_says_port_adapter_and_callback() -> None:
    with pytest.raises(NotFound) as caught:
        Kitchen({"blob_store": memory()}).blob_store.read("a")
    error = caught.value
    assert (error.port, error.adapter, error.callback) == ("blob_store", "memory", "read")
    assert error.__cause__ is None


def test_whatever_else_escapes_is_wrapped_with_its_cause() -> None:
    def read(path: str) -> bytes:
        raise KeyError(path)

    with pytest.raises(AdapterError, match=r"blob_store\.memory\.read: KeyError: 'a'") as caught:
        Kitchen({"blob_store": memory(read=read)}).blob_store.read("a")
    assert isinstance(caught.value.__cause__, KeyError)


def test_an_error_inside_a_stream_is_wrapped_too() -> None:
    def stream(path: str, chunk_size: int) -> Iterable[bytes]:
        yield b"1"
        raise OSError("cut")

    items = Kitchen({"blob_store": memory(stream=stream)}).blob_store.stream("a")
    assert isinstance(items, Stream)
    assert next(items) == b"1"
    with pytest.raises(AdapterError, match="OSError: cut") as caught:
        next(items)
    assert caught.value.callback == "stream"


def test_an_error_of_the_adapter_keeps_the_cause_that_it_has_through_a_stack() -> None:
    def read(path: str) -> bytes:
        raise NotFound("gone") from KeyError(path)

    def stream(path: str, chunk_size: int) -> Iterable[bytes]:
        yield b"1"
        raise OSError("cut")

    inner = memory(read=read, stream=stream)
    store = stacked(wrapper(lambda call: call()), inner).blob_store
    with pytest.raises(NotFound) as caught:
        store.read("a")
    assert isinstance(caught.value.__cause__, KeyError)
    with pytest.raises(AdapterError) as cut:
        list(store.stream("a"))
    assert isinstance(cut.value.__cause__, OSError)
    assert cut.value.adapter == "memory"


def test_an_error_in_a_helper_is_one_of_the_adapter() -> None:
    @helper
    def vacuum(opts: AdapterOptions) -> None:
        raise OSError("locked")

    inner = memory()
    inner.vacuum = vacuum  # type: ignore[attr-defined]
    with pytest.raises(AdapterError, match=r"blob_store\.memory\.vacuum: OSError") as caught:
        Kitchen({"blob_store": inner}).blob_store.helper("vacuum")()
    assert isinstance(caught.value.__cause__, OSError)


class OfALibrary(BaseException):
    """What a library stops its own threads with."""


class Mute(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")


ESCAPES = [
    SystemExit(0),
    GeneratorExit(),
    asyncio.CancelledError("cancelled"),
    OfALibrary(),
    RecursionError(),
    MemoryError(),
    StopIteration(),
    Mute(),
]


PLACES = ["call", "around", "helper", "resource", "begin", "middle", "close"]


@pytest.mark.parametrize(
    ("where", "error"),
    [
        pytest.param(where, error, id=f"{where}-{type(error).__name__}")
        for where in PLACES
        for error in ESCAPES
        if not (where == "middle" and isinstance(error, StopIteration))  # its way to end
    ],
)
def test_whatever_escapes_an_adapter_is_an_error_of_it(where: str, error: BaseException) -> None:
    def fail(*arguments: Any) -> Any:
        raise error

    @resource
    def connection(opts: AdapterOptions) -> Any:
        fail()

    class Cut:
        def __iter__(self) -> Any:
            return fail() if where == "begin" else self

        def __next__(self) -> bytes:
            return fail() if where == "middle" else b"1"

        def close(self) -> None:
            if where == "close":
                fail()

    inner = memory(
        read=(lambda opts, path: connection(opts)) if where == "resource" else fail_of(fail),
        stream=lambda path, chunk_size: Cut(),
    )
    inner.vacuum = helper(fail)  # type: ignore[attr-defined]
    store = (
        stacked(wrapper(lambda call: fail()), inner)
        if where == "around"
        else Kitchen({"blob_store": inner})
    ).blob_store
    uses: dict[str, Callable[[], Any]] = {
        "helper": lambda: store.helper("vacuum")(),
        "begin": lambda: store.stream("a"),
        "middle": lambda: next(store.stream("a")),
        "close": lambda: store.stream("a").close(),
    }
    with pytest.raises(AdapterError) as caught:
        uses.get(where, lambda: store.read("a"))()
    assert caught.value.__cause__ is error
    assert caught.value.adapter == store.adapter
    assert caught.value.reason.startswith(type(error).__name__)
    assert "no text" not in str(caught.value)


def fail_of(fail: Callable[..., Any]) -> Callable[..., Any]:
    def read(path: str) -> Any:
        return fail()

    return read


def test_an_exit_in_a_worker_thread_is_an_error_of_the_call_that_waits_for_it() -> None:
    def read(path: str) -> bytes:
        with ThreadPoolExecutor(1) as pool:
            return pool.submit(sys.exit, 0).result()

    with pytest.raises(AdapterError, match="SystemExit: 0"):
        Kitchen({"blob_store": memory(read=read)}).blob_store.read("a")


class WithoutPort(AdapterError):
    @property
    def port(self) -> str:  # type: ignore[override]
        raise RuntimeError


class WithoutText(AdapterError):
    def __str__(self) -> str:
        raise OfALibrary


@pytest.mark.parametrize("kind", [WithoutPort, WithoutText])
def test_an_error_of_the_adapters_own_class_that_is_broken_itself_is_still_one_of_it(
    kind: type[AdapterError],
) -> None:
    def read(path: str) -> bytes:
        raise kind.__new__(kind)

    with pytest.raises(AdapterError) as caught:
        Kitchen({"blob_store": memory(read=read)}).blob_store.read("a")
    assert str(caught.value) == f"blob_store.memory.read: {kind.__name__}"


@dataclass
class Own(AdapterError):
    """Its `__init__` does not call that of AdapterError."""

    status: int


@pytest.mark.parametrize(
    ("error", "reason"),
    [(Own(404), "Own"), (AdapterError(KeyError("a")), "'a'")],  # type: ignore[arg-type]
)
def test_an_error_that_was_not_filled_in_as_it_should_be_has_a_reason(
    error: AdapterError, reason: str
) -> None:
    def read(path: str) -> bytes:
        raise error

    with pytest.raises(type(error)) as caught:
        Kitchen({"blob_store": memory(read=read)}).blob_store.read("a")
    assert str(caught.value) == f"blob_store.memory.read: {reason}"


def test_an_adapter_that_cannot_be_asked_for_a_helper_is_an_error_of_it() -> None:
    class Odd(ModuleType):
        @property
        def vacuum(self) -> Any:
            raise SystemExit(0)

    odd = Odd("odd")
    vars(odd).update({k: v for k, v in vars(memory()).items() if hasattr(v, "crucible_impl")})
    with pytest.raises(AdapterError, match=r"blob_store\.odd\.vacuum: SystemExit: 0"):
        Kitchen({"blob_store": odd}).blob_store.helper("vacuum")


# --- what is returned ---


def test_what_is_not_of_the_annotated_type_is_an_error_of_the_adapter() -> None:
    store = Kitchen({"blob_store": memory(exists=lambda path: None)}).blob_store
    with pytest.raises(AdapterError) as caught:
        store.exists("a")
    assert str(caught.value) == "blob_store.memory.exists: must return bool, not None"


def test_a_coroutine_is_no_result_even_where_none_is_asked_for() -> None:
    async def flush() -> None: ...

    pending = flush()
    store = Kitchen({"blob_store": memory(write=lambda path, data: pending)}).blob_store
    with pytest.raises(AdapterError, match="must return None, not a coroutine"):
        store.write("a", b"1")
    pending.close()


def test_a_wrapper_must_return_what_the_callback_returns() -> None:
    store = stacked(wrapper(lambda call: None)).blob_store
    with pytest.raises(AdapterError, match=r"wrapper\.exists: must return bool, not None"):
        store.exists("a")


@pytest.mark.parametrize("stream", [None, 7, b"text", "text"])
def test_a_stream_that_is_none_is_refused_at_the_call(stream: Any) -> None:
    store = Kitchen({"blob_store": memory(stream=lambda path, chunk_size: stream)}).blob_store
    with pytest.raises(AdapterError, match=r"memory\.stream: must return Iterable\[bytes\]"):
        store.stream("a")


def test_a_wrong_item_ends_its_stream_and_closes_what_is_behind_it() -> None:
    closed = []

    def stream(path: str, chunk_size: int) -> Iterable[bytes]:
        try:
            yield b"1"
            yield "2"  # type: ignore[misc]
        finally:
            closed.append(True)

    items = Kitchen({"blob_store": memory(stream=stream)}).blob_store.stream("a")
    assert next(items) == b"1"
    with pytest.raises(AdapterError, match=r"memory\.stream: must yield bytes, not a str"):
        next(items)
    assert closed == [True]
    assert [*items] == []


@pytest.mark.parametrize("count", [0, 3, 5])
def test_a_batch_has_as_many_results_as_were_asked_for(count: int) -> None:
    model = module(
        "model",
        complete=hookimpl(lambda prompt, params: None),
        complete_batch=hookimpl(lambda prompts, params: [InvalidInput("no")] * count),
        score=hookimpl(lambda sequences, model: [np.zeros(1, np.float32)] * count),
    )
    completer = Kitchen({"completer": model}).completer
    with pytest.raises(AdapterError, match=f"complete_batch: must return 4 results, not {count}"):
        completer.complete_batch([[1], [2]], SamplingParams(1, n=2))
    with pytest.raises(AdapterError, match=f"score: must return 2 results, not {count}"):
        completer.score([[1, 2], [3, 4]])


# --- Ctrl-C ---


def test_a_keyboard_interrupt_in_a_stream_is_never_wrapped() -> None:
    def stream(path: str, chunk_size: int) -> Iterable[bytes]:
        yield b"1"
        raise KeyboardInterrupt

    items = Kitchen({"blob_store": memory(stream=stream)}).blob_store.stream("a")
    with pytest.raises(KeyboardInterrupt):
        list(items)


def test_a_keyboard_interrupt_is_never_wrapped() -> None:
    def read(path: str) -> bytes:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Kitchen({"blob_store": memory(read=read)}).blob_store.read("a")


def test_an_absent_optional_callback_is_unsupported_and_says_so_before() -> None:
    store = Kitchen({"blob_store": memory()}).blob_store
    assert store.supports("read")
    assert not store.supports("list")
    with pytest.raises(Unsupported, match="does not implement list"):
        store.list()


def test_errors_inside_a_batch_carry_the_same_fields() -> None:
    completer = module(
        "model",
        complete=hookimpl(lambda prompt, params: None),
        complete_batch=hookimpl(lambda prompts, params: [InvalidInput("too long"), KeyError("x")]),
    )
    results = Kitchen({"completer": completer}).completer.complete_batch(
        [[1], [2]], SamplingParams(1)
    )
    assert [type(result) for result in results] == [InvalidInput, AdapterError]
    assert {(r.port, r.adapter, r.callback) for r in results if isinstance(r, AdapterError)} == {
        ("completer", "model", "complete_batch")
    }


def test_errors_inside_a_batch_name_the_adapter_that_served_it_to_its_wrappers() -> None:
    class Options(AdapterOptions):
        inner: Completer

    model = module(
        "model",
        complete=hookimpl(lambda prompt, params: None),
        complete_batch=hookimpl(lambda prompts, params: [KeyError("x")]),
    )
    seen = []

    def around(call: Any) -> Any:
        seen.extend(call())
        return seen

    outer = module("outer", Options=Options, around=hookimpl(around))
    kitchen = Kitchen({"completer": {"use": outer, "inner": model}})
    (error,) = kitchen.completer.complete_batch([[1]], SamplingParams(1))
    assert isinstance(error, AdapterError)
    assert (error.adapter, error.callback) == ("model", "complete_batch")
    assert isinstance(error.__cause__, KeyError)
    assert seen == [error]


def test_complete_returns_one_completion() -> None:
    completer = module(
        "model",
        complete=hookimpl(lambda prompt, params: None),
        complete_batch=hookimpl(lambda prompts, params: []),
    )
    with pytest.raises(InvalidInput, match=r"params\.n is 2"):
        Kitchen({"completer": completer}).completer.complete([1], SamplingParams(1, n=2))


# --- composition ---


def test_what_a_wrapper_does_not_implement_goes_to_inner() -> None:
    def list_(prefix: str) -> list[str]:
        return ["a"]

    store = stacked(wrapper(), memory(list=list_)).blob_store
    assert store.supports("list")
    assert not store.supports("read_range")
    assert store.list() == ["a"]


def test_around_sees_every_call_that_goes_to_inner() -> None:
    seen = []

    def around(call: Any) -> Any:
        seen.append((call.port, call.name, call.arguments, call.repeatable))
        return call()

    store = stacked(wrapper(around)).blob_store
    store.write("a", b"1")
    assert store.read("a") == b"1"
    store.write("a", [b"1"])
    assert seen == [
        ("blob_store", "write", {"path": "a", "data": b"1"}, True),
        ("blob_store", "read", {"path": "a"}, True),
        ("blob_store", "write", {"path": "a", "data": [b"1"]}, False),
    ]


def test_around_may_repeat_a_call() -> None:
    failures = [NotFound("not yet"), NotFound("not yet")]

    def read(path: str) -> bytes:
        if failures:
            raise failures.pop()
        return b"1"

    def around(call: Any) -> Any:
        while True:
            try:
                return call()
            except NotFound:
                continue

    assert stacked(wrapper(around), memory(read=read)).blob_store.read("a") == b"1"


def test_around_may_run_a_call_on_another_port() -> None:
    class Options(AdapterOptions):
        inner: BlobStore
        second: BlobStore

    def around(opts: Options, call: Any) -> Any:
        try:
            return call()
        except NotFound:
            return call.on(opts.second)

    second = memory(read=lambda path: b"second")
    fallback = module("fallback", Options=Options, around=hookimpl(around))
    kitchen = Kitchen({"blob_store": {"use": fallback, "inner": memory(), "second": second}})
    assert kitchen.blob_store.read("a") == b"second"


def test_a_call_runs_elsewhere_with_other_arguments_where_they_are_given() -> None:
    class Options(AdapterOptions):
        inner: BlobStore
        second: BlobStore

    second = memory()
    mirror = module(
        "mirror",
        Options=Options,
        around=hookimpl(lambda opts, call: call.on(opts.second, path=f"mirror/{call.name}")),
    )
    store = Kitchen({"blob_store": {"use": mirror, "inner": memory(), "second": second}}).blob_store
    store.write("a", b"1")
    assert store.options.second.read("mirror/write") == b"1"  # type: ignore[attr-defined]


def test_a_call_takes_no_argument_that_its_callback_lacks() -> None:
    class Options(AdapterOptions):
        inner: BlobStore

    typo = module(
        "typo",
        Options=Options,
        around=hookimpl(lambda opts, call: call.on(opts.inner, pth="b")),
    )
    store = Kitchen({"blob_store": {"use": typo, "inner": memory()}}).blob_store
    with pytest.raises(AdapterError, match="TypeError: exists takes no 'pth'; it takes path"):
        store.exists("a")


@pytest.mark.parametrize(
    ("data", "error", "allowed"),
    [
        (b"1", Unavailable("away"), True),
        ([b"1"], Unavailable("away"), False),
        ([b"1"], Unavailable("away", no_effect=True), True),
        (iter([b"1"]), Unavailable("away", no_effect=True), False),
        (io.BytesIO(b"1"), Unavailable("away", no_effect=True), False),
        # It can be read once, like a file, and is not an Iterator.
        (tempfile.NamedTemporaryFile(), Unavailable("away", no_effect=True), False),  # noqa: SIM115
    ],
)
def test_a_call_tells_whether_it_may_be_repeated_after_an_error(
    data: Any, error: AdapterError, allowed: bool
) -> None:
    may = []
    store = stacked(wrapper(lambda call: may.append(call.repeatable_after(error)))).blob_store
    store.write("a", data)
    assert may == [allowed]


def test_around_is_not_callable_from_outside() -> None:
    assert not stacked(wrapper(lambda call: call())).blob_store.supports("around")


def test_a_call_is_shown_without_its_arguments() -> None:
    shown: list[str] = []
    stacked(wrapper(lambda call: shown.append(repr(call)))).blob_store.write("a", b"secret")
    assert shown == ["<Call blob_store.wrapper.write>"]


def test_of_several_inner_adapters_the_first_serves_what_is_left_out() -> None:
    class Options(AdapterOptions):
        inner: list[BlobStore]

    @helper
    def where(opts: AdapterOptions) -> str:
        return "first"

    closed: list[str] = []
    first = memory(
        read=lambda path: b"first", list=lambda prefix: [], close=lambda: closed.append("first")
    )
    first.where = where  # type: ignore[attr-defined]
    second = memory(read_range=lambda path, start, end: b"", close=lambda: closed.append("second"))
    several = module("several", Options=Options, around=hookimpl(lambda call: call()))
    with Kitchen({"blob_store": {"use": several, "inner": [first, {"use": second}]}}) as kitchen:
        store = kitchen.blob_store
        assert store.read("a") == b"first"
        assert store.supports("list")
        assert not store.supports("read_range")
        assert store.helper("where")() == "first"
        assert store.inner is not None
        assert [one["use"] for one in store.describe()["inner"]] == ["memory", "memory"]
    assert closed == ["first", "second"]


def test_a_stream_through_a_wrapper_is_one_stream() -> None:
    store = stacked(wrapper(lambda call: call())).blob_store
    store.write("a", b"1")
    with store.stream("a") as items:
        assert list(items) == [b"1"]


def test_an_argument_that_inner_leaves_out_is_refused_through_the_stack() -> None:
    store = stacked(wrapper(), memory(stream=lambda path: [b"1"])).blob_store
    assert list(store.stream("a")) == [b"1"]
    with pytest.raises(Unsupported, match="chunk_size"):
        store.stream("a", 5)


def test_helpers_are_found_through_the_stack() -> None:
    @helper
    def where(opts: AdapterOptions, path: str) -> str:
        return f"disk:{path}"

    inner = memory()
    inner.where = where  # type: ignore[attr-defined]
    assert stacked(wrapper(), inner).blob_store.helper("where")("a") == "disk:a"
    with pytest.raises(Unsupported, match="no helper 'nowhere'"):
        stacked(wrapper(), inner).blob_store.helper("nowhere")


@pytest.mark.parametrize("value", [1 << 20, np.int64(1 << 20)])
def test_the_default_of_an_argument_that_is_left_out_may_be_a_number_of_any_kind(
    value: Any,
) -> None:
    store = Kitchen({"blob_store": memory(stream=lambda path: [b"1"])}).blob_store
    assert list(store.stream("a", value)) == [b"1"]


@pytest.mark.parametrize("value", [[], np.arange(2), np.array([None])])
def test_an_array_for_an_argument_that_is_left_out_is_refused(value: Any) -> None:
    store = module(
        "rows",
        record=hookimpl(lambda run_id, metric, value, step: None),
        flush=hookimpl(lambda run_id: None),
        read=hookimpl(lambda run_id: []),
    )
    with pytest.raises(Unsupported, match="takes no 'metadata'"):
        Kitchen({"metrics_store": store}).metrics_store.record("r", "m", 1.0, None, value)


def test_a_default_of_the_implementations_own_never_goes_before_what_was_passed() -> None:
    def stream(path: str, chunk_size: int = 5) -> Iterable[bytes]:
        yield str(chunk_size).encode()

    store = Kitchen({"blob_store": memory(stream=stream)}).blob_store
    assert list(store.stream("a", 9)) == [b"9"]
    assert list(store.stream("a")) == [b"1048576"]


def test_an_option_may_hold_several_adapters_in_a_list() -> None:
    class Options(AdapterOptions):
        stores: list[MetricsStore]

    rows: list[str] = []

    def store(name: str) -> ModuleType:
        return module(
            name,
            record=hookimpl(lambda run_id, metric, value, step, metadata: rows.append(name)),
            flush=hookimpl(lambda run_id: None),
            read=hookimpl(lambda run_id: []),
        )

    def record(
        opts: Options, run_id: str, metric: str, value: float, step: Any, metadata: Any
    ) -> None:
        for each in opts.stores:
            each.record(run_id, metric, value, step, metadata)

    tee = module(
        "tee",
        Options=Options,
        record=hookimpl(record),
        flush=hookimpl(lambda run_id: None),
        read=hookimpl(lambda run_id: []),
    )
    kitchen = Kitchen({"metrics_store": {"use": tee, "stores": [store("a"), {"use": store("b")}]}})
    kitchen.metrics_store.record("run", "loss", 1.0)
    assert rows == ["a", "b"]


def test_closing_a_kitchen_closes_every_adapter_outermost_first() -> None:
    closed: list[str] = []
    inner = memory(close=lambda: closed.append("inner"))
    outer = wrapper(close=hookimpl(lambda opts: closed.append("outer")))
    with stacked(outer, inner) as kitchen:
        _ = kitchen.blob_store
    assert closed == ["outer", "inner"]


def test_an_adapter_that_fails_to_close_keeps_no_other_open() -> None:
    closed = []

    def close() -> None:
        raise OSError("stuck")

    kitchen = Kitchen(
        {
            "blob_store": memory(close=close),
            "metrics_store": module(
                "rows",
                record=hookimpl(lambda run_id, metric, value, step, metadata: None),
                flush=hookimpl(lambda run_id: None),
                read=hookimpl(lambda run_id: []),
                close=hookimpl(lambda: closed.append(True)),
            ),
        }
    )
    kitchen.bind(kitchen.configured)
    with pytest.raises(AdapterError, match="stuck"):
        kitchen.close()
    assert closed == [True]


def test_an_inner_adapter_that_fails_to_close_keeps_no_other_open() -> None:
    class Options(AdapterOptions):
        inner: BlobStore
        second: BlobStore

    closed: list[str] = []

    def stuck() -> None:
        closed.append("first")
        raise OSError("stuck")

    second = memory(close=lambda: closed.append("second"))
    kitchen = Kitchen(
        {
            "blob_store": {
                "use": module("pair", Options=Options, around=hookimpl(lambda call: call())),
                "inner": memory(close=stuck),
                "second": second,
            }
        }
    )
    _ = kitchen.blob_store
    with pytest.raises(AdapterError, match="stuck"):
        kitchen.close()
    assert closed == ["first", "second"]


class Stuck:
    """A `close` that hangs until the test is over."""

    def __init__(self) -> None:
        self.over = threading.Event()

    def __call__(self) -> None:
        self.over.wait(60)


@pytest.fixture
def stuck() -> Iterator[Stuck]:
    stuck = Stuck()
    yield stuck
    stuck.over.set()


def test_a_close_that_hangs_is_left_after_its_time_and_the_others_are_closed(stuck: Stuck) -> None:
    closed: list[str] = []
    inner = memory(close=lambda: closed.append("inner"))
    hanging = wrapper(close=hookimpl(lambda: stuck()))
    metrics = module(
        "rows",
        record=hookimpl(lambda run_id, metric, value, step, metadata: None),
        flush=hookimpl(lambda run_id: None),
        read=hookimpl(lambda run_id: []),
        close=hookimpl(lambda: closed.append("rows")),
    )
    kitchen = Kitchen(
        {"metrics_store": metrics, "blob_store": {"use": hanging, "inner": {"use": inner}}}
    )
    kitchen.bind(kitchen.configured)
    with pytest.raises(
        AdapterTimeout, match=r"blob_store\.wrapper\.close: .* within 0\.01 s"
    ) as late:
        kitchen.close(timeout=0.01)
    assert late.value.callback == "close"
    assert sorted(closed) == ["inner", "rows"]
    assert kitchen.left_open == ["blob_store.wrapper"]


def test_a_process_ends_while_a_close_hangs(tmp_path: Path) -> None:
    program = """
import sys, threading
from crucible_kitchen import AdapterTimeout, Kitchen, hookimpl

class Store:
    @hookimpl
    def read(self, path): ...
    @hookimpl
    def stream(self, path, chunk_size): ...
    @hookimpl
    def write(self, path, data): ...
    @hookimpl
    def exists(self, path): ...
    @hookimpl
    def close(self): threading.Event().wait()

kitchen = Kitchen({"blob_store": Store()})
kitchen.blob_store
try:
    kitchen.close(timeout=0.01)
except AdapterTimeout:
    sys.exit(7)
"""
    assert subprocess.run([sys.executable, "-c", program], cwd=tmp_path, timeout=60).returncode == 7


def test_of_several_that_fail_to_close_each_is_told() -> None:
    def stuck(name: str) -> Callable[[], None]:
        def close() -> None:
            raise OSError(name)

        return close

    kitchen = stacked(wrapper(close=hookimpl(stuck("outer"))), memory(close=stuck("inner")))
    _ = kitchen.blob_store
    with (
        pytest.warns(CrucibleWarning, match=r"blob_store\.memory\.close: OSError: inner"),
        pytest.raises(AdapterError, match="OSError: outer"),
    ):
        kitchen.close()
    assert kitchen.left_open == []


def test_a_failure_to_close_never_hides_the_first_one_and_is_told() -> None:
    def close() -> None:
        raise SystemExit(0)

    def run() -> None:
        with Kitchen({"blob_store": memory(close=close)}) as kitchen:
            _ = kitchen.blob_store
            raise ZeroDivisionError

    warned = pytest.warns(CrucibleWarning, match=r"blob_store\.memory\.close: SystemExit: 0")
    with warned, pytest.raises(ZeroDivisionError):
        run()


def test_ctrl_c_while_closing_is_ctrl_c_whatever_else_fails() -> None:
    closed = []

    def interrupted() -> None:
        raise KeyboardInterrupt

    def inner() -> None:
        closed.append("inner")
        raise OSError("stuck")

    kitchen = stacked(wrapper(close=hookimpl(interrupted)), memory(close=inner))
    _ = kitchen.blob_store
    with pytest.warns(CrucibleWarning, match="OSError: stuck"), pytest.raises(KeyboardInterrupt):
        kitchen.close()
    assert closed == ["inner"]


@pytest.mark.skipif(not hasattr(signal, "pthread_kill"), reason="this system sends no such signal")
def test_ctrl_c_ends_waiting_for_a_close_that_hangs(stuck: Stuck) -> None:
    if signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        pytest.skip("this process was started deaf to Ctrl-C")
    main = threading.get_ident()

    def close() -> None:
        signal.pthread_kill(main, signal.SIGINT)
        stuck()

    kitchen = Kitchen({"blob_store": memory(close=close)})
    _ = kitchen.blob_store
    with pytest.raises(KeyboardInterrupt):
        kitchen.close()


def test_no_thread_is_made_where_there_is_nothing_to_close(monkeypatch: pytest.MonkeyPatch) -> None:
    def start(thread: threading.Thread) -> None:
        raise AssertionError

    kitchen = Kitchen({"blob_store": memory()})
    _ = kitchen.blob_store
    monkeypatch.setattr(threading.Thread, "start", start)
    kitchen.close()


def test_where_no_thread_can_be_made_an_adapter_is_closed_all_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    closed = []

    def start(thread: threading.Thread) -> None:
        raise RuntimeError("can't create new thread at interpreter shutdown")

    kitchen = Kitchen({"blob_store": memory(close=lambda: closed.append(True))})
    _ = kitchen.blob_store
    monkeypatch.setattr(threading.Thread, "start", start)
    kitchen.close()
    assert closed == [True]


# --- observers ---


def observed(kitchen: Kitchen) -> list[Event]:
    events: list[Event] = []
    kitchen.observe(events.append)
    return events


def test_a_call_through_a_stack_is_told_once_by_the_adapter_that_serves_it() -> None:
    kitchen = stacked(wrapper(lambda call: call()))
    events = observed(kitchen)
    kitchen.blob_store.write("a", b"1")
    assert [(e.name, e.attributes["adapter"], e.attributes.get("depth")) for e in events] == [
        ("adapter.call", "memory", None),
        ("adapter.around", "wrapper", 0),
    ]
    assert events[0].attributes["error"] is None
    assert events[0].attributes["duration_s"] >= 0


def test_each_wrapper_adds_an_event_with_its_depth() -> None:
    def passes(call: Any) -> Any:
        return call()

    class Options(AdapterOptions):
        inner: BlobStore
        second: BlobStore

    fallback = module(
        "fallback", Options=Options, around=hookimpl(lambda opts, call: call.on(opts.second))
    )
    second = {"use": wrapper(passes), "inner": memory()}
    middle = {"use": fallback, "inner": memory(), "second": second}
    kitchen = Kitchen({"blob_store": {"use": wrapper(passes), "inner": middle}})
    events = observed(kitchen)
    kitchen.blob_store.exists("a")
    assert [(e.attributes["adapter"], e.attributes.get("depth")) for e in events] == [
        ("memory", None),
        ("wrapper", 2),
        ("fallback", 1),
        ("wrapper", 0),
    ]


def test_an_observer_may_stop_itself_and_the_others_are_still_told() -> None:
    kitchen = Kitchen({"blob_store": memory()})
    seen = []

    def once(event: Event) -> None:
        seen.append("once")
        stop()

    stop = kitchen.observe(once)
    kitchen.observe(lambda event: seen.append("always"))
    kitchen.blob_store.exists("a")
    kitchen.blob_store.exists("a")
    assert seen == ["once", "always", "always"]


def test_without_an_observer_no_clock_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    store = stacked(wrapper(lambda call: call())).blob_store

    def clock() -> float:
        raise AssertionError("the clock was read though no observer listens")

    monkeypatch.setattr("crucible_kitchen.events.spans.time.perf_counter", clock)
    assert store.exists("a") is False


def test_the_event_of_a_failed_call_names_the_type_of_the_error() -> None:
    kitchen = Kitchen({"blob_store": memory()})
    events = observed(kitchen)
    with pytest.raises(NotFound):
        kitchen.blob_store.read("a secret path")
    assert [e.attributes["error"] for e in events] == ["NotFound"]
    assert "secret" not in repr(events)


def test_the_event_of_a_stream_comes_at_its_end() -> None:
    kitchen = Kitchen({"blob_store": memory(stream=lambda path, chunk_size: iter([b"1", b"2"]))})
    events = observed(kitchen)
    items = kitchen.blob_store.stream("a")
    next(items)
    assert events == []
    items.close()
    assert [e.attributes["callback"] for e in events] == ["stream"]


def test_a_failing_observer_is_reported_once_and_stops_nothing(
    capsys: pytest.CaptureFixture[str],
) -> None:
    kitchen = Kitchen({"blob_store": memory()})

    def broken(event: Event) -> None:
        raise RuntimeError("observer down")

    kitchen.observe(broken)
    events = observed(kitchen)
    kitchen.blob_store.write("a", b"1")
    kitchen.blob_store.write("b", b"1")
    assert len(events) == 2
    assert capsys.readouterr().err.count("observer down") == 1


def test_an_observer_can_be_stopped() -> None:
    kitchen = Kitchen({"blob_store": memory()})
    events: list[Event] = []
    stop = kitchen.observe(events.append)
    kitchen.blob_store.exists("a")
    stop()
    stop()
    kitchen.blob_store.exists("a")
    assert len(events) == 1


# --- the contract itself ---


@pytest.mark.parametrize("port", PORTS.values(), ids=PORTS.keys())
def test_each_port_method_takes_the_arguments_of_its_spec(port: type) -> None:
    import inspect

    for name, spec in port.callbacks().items():  # type: ignore[attr-defined]
        if name == "around":
            continue
        arguments = [p for p in inspect.signature(spec).parameters if p not in ("self", "opts")]
        method = inspect.signature(getattr(port, name))
        assert [p for p in method.parameters if p != "self"] == arguments, name
        assert inspect.getdoc(spec), name


@pytest.mark.parametrize(
    ("port", "callback", "arguments", "repeatable"),
    [
        ("training_client", "forward_backward", {}, False),
        ("training_client", "optim_step", {}, False),
        ("training_client", "start_session", {}, False),
        ("training_client", "save_checkpoint", {}, False),
        ("training_client", "await_", {}, True),
        ("metrics_store", "record", {"step": 0}, True),
        ("metrics_store", "record_many", {"step": None}, False),
        ("training_client", "load_checkpoint", {}, True),
        ("training_client", "close_session", {}, True),
        ("training_client", "forward", {}, True),
        ("blob_store", "write", {"data": b""}, True),
        ("blob_store", "write", {"data": iter([b""])}, False),
        ("hub_client", "upload", {}, False),
        ("completer", "complete", {}, True),
    ],
)
def test_the_contract_says_what_may_be_repeated(
    port: str, callback: str, arguments: dict[str, Any], repeatable: bool
) -> None:
    assert PORTS[port].traits(callback).repeatable(arguments) is repeatable
