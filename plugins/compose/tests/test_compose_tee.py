"""Where `tee` writes, what it reads, and how it reports failures."""

from __future__ import annotations

import io
import threading
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from crucible_adapter_compose import tee
from crucible_kitchen import (
    AdapterError,
    Call,
    Event,
    InvalidInput,
    Kitchen,
    MetricsStore,
    NotFound,
    RateLimited,
    Unavailable,
    Unsupported,
    hookimpl,
)
from crucible_kitchen.testing import bound

import kitchen_noop

Bind = Callable[..., Any]


def over(bind: Bind, port: str, *inner: Any) -> Any:
    return bind(port, getattr(tee, port), inner=[one.table for one in inner])


def values(store: Any) -> list[float]:
    return [entry.value for entry in store.read("run")]


def test_every_store_gets_what_is_written_and_the_first_is_read(bind: Bind, scripted: Any) -> None:
    first, second = scripted("metrics_store"), scripted("metrics_store")
    store = over(bind, "metrics_store", first, second)
    store.record("run", "x", 1.0, 0)
    store.record_many("run", {"x": 2.0, "y": 3.0}, 1)
    store.flush("run")
    assert values(store) == [1.0, 2.0, 3.0]
    assert store.runs() == ["run"]
    assert first.calls == ["record", "record_many", "flush", "read", "runs"]
    assert second.calls == ["record", "record_many", "flush"]
    assert values(store.options.inner[1]) == [1.0, 2.0, 3.0]


def test_blobs_go_to_every_store_and_are_deleted_in_every_store(bind: Bind, scripted: Any) -> None:
    store = over(bind, "blob_store", scripted("blob_store"), scripted("blob_store"))
    store.write("a", b"1")
    store.write("b", b"2")
    store.delete("a")
    assert [inner.list() for inner in store.options.inner] == [["b"], ["b"]]


@pytest.mark.parametrize(
    "make",
    [
        lambda: iter([b"on", b"", b"e"]),
        lambda: io.BytesIO(b"one"),
        lambda: [b"o", b"ne"],
        lambda: bytearray(b"one"),
        lambda: memoryview(b"one"),
    ],
)
def test_every_store_gets_the_whole_of_a_source_that_can_be_read_once(
    bind: Bind, scripted: Any, make: Callable[[], Any]
) -> None:
    store = over(bind, "blob_store", *(scripted("blob_store") for _ in range(3)))
    store.write("a", make())
    assert [inner.read("a") for inner in store.options.inner] == [b"one"] * 3


def test_a_source_that_fails_writes_to_no_store(bind: Bind, scripted: Any) -> None:
    def source() -> Iterator[bytes]:
        yield b"half"
        raise RuntimeError("the source broke")

    first, second = scripted("blob_store"), scripted("blob_store")
    store = over(bind, "blob_store", first, second)
    with pytest.raises(AdapterError, match="the source broke"):
        store.write("a", source())
    assert first.calls == second.calls == []


def test_a_large_blob_is_not_held_in_memory(bind: Bind, tmp_path: Path) -> None:
    import tracemalloc

    stores = [{"use": "fsspec", "url": str(tmp_path / name)} for name in ("one", "two")]
    store = bind("blob_store", tee.blob_store, inner=stores)
    store.write("warm", iter([b"1"]))
    tracemalloc.start()
    try:
        store.write("a", (bytes(1 << 20) for _ in range(96)))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 48 << 20
    assert (tmp_path / "two" / "a").stat().st_size == 96 << 20


# --- failures ---


@pytest.mark.parametrize("refusal", [InvalidInput("no such name"), Unsupported("no metadata")])
@pytest.mark.parametrize("port", ["metrics_store", "blob_store"])
def test_what_the_first_store_refuses_is_written_nowhere(
    bind: Bind, scripted: Any, port: str, refusal: AdapterError
) -> None:
    first, second = scripted(port, refusal), scripted(port)
    store = over(bind, port, first, second)
    with pytest.raises(type(refusal), match=refusal.reason):
        store.write("a", b"1") if port == "blob_store" else store.record("run", "x", 1.0, 0)
    assert second.calls == []


@pytest.mark.parametrize(
    ("second", "no_effect"),
    [(Unavailable("b", no_effect=True), True), (Unavailable("b"), False)],
)
def test_a_failure_of_all_had_no_effect_only_if_none_had_one(
    bind: Bind, scripted: Any, second: AdapterError, no_effect: bool
) -> None:
    stores = scripted("metrics_store", RateLimited("a")), scripted("metrics_store", second)
    with pytest.raises(RateLimited) as caught:
        over(bind, "metrics_store", *stores).record("run", "x", 1.0)
    assert caught.value.no_effect is no_effect


def test_what_another_store_refuses_is_reported(bind: Bind, scripted: Any) -> None:
    first, second = scripted("metrics_store"), scripted("metrics_store", Unsupported("no metadata"))
    store = over(bind, "metrics_store", first, second)
    with pytest.warns(RuntimeWarning, match="inner.1 .Scripted. failed in record: no metadata"):
        store.record("run", "x", 1.0, 0)
    assert values(store) == [1.0]


@pytest.mark.parametrize("broken", [0, 1])
def test_a_metrics_store_that_fails_half_way_is_reported_once_and_the_other_is_complete(
    bind: Bind, scripted: Any, broken: int
) -> None:
    failures = [None] * 5 + [Unavailable("the disk is full")] * 5
    inner = [scripted("metrics_store"), scripted("metrics_store")]
    inner[broken].failures += failures
    store = over(bind, "metrics_store", *inner)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        for step in range(10):
            store.record("run", "x", float(step), step)
    store.flush("run")
    [warning] = told
    assert str(warning.message).startswith(
        f"metrics_store.tee: inner.{broken} (Scripted) failed in record: the disk is full."
    )
    assert values(store.options.inner[1 - broken]) == [float(step) for step in range(10)]
    assert values(store.options.inner[broken]) == [float(step) for step in range(5)]


def test_each_store_that_fails_is_reported(bind: Bind, scripted: Any) -> None:
    down = [Unavailable("down")] * 4
    inner = [scripted("metrics_store", *failures) for failures in ([], down, down)]
    store = over(bind, "metrics_store", *inner)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        store.record("run", "x", 1.0)
        store.record("run", "x", 2.0)
    assert [str(w.message).split()[1] for w in told] == ["inner.1", "inner.2"]


def test_where_all_fail_the_call_fails(bind: Bind, scripted: Any) -> None:
    inner = [scripted("metrics_store", Unavailable(f"{n} is down")) for n in range(2)]
    with pytest.raises(Unavailable, match="0 is down"):
        over(bind, "metrics_store", *inner).record("run", "x", 1.0)


def test_a_wrong_argument_is_refused_as_any_store_would(bind: Bind, scripted: Any) -> None:
    store = over(bind, "metrics_store", scripted("metrics_store"), scripted("metrics_store"))
    with pytest.raises(AdapterError, match="must be a number"):
        store.record("run", "x", "much")


def test_a_blob_that_the_first_store_does_not_take_is_an_error_and_the_others_have_it(
    bind: Bind, scripted: Any
) -> None:
    """What was written must be there to be read, and the first store is read."""
    store = over(
        bind, "blob_store", scripted("blob_store", Unavailable("down")), scripted("blob_store")
    )
    with (
        pytest.warns(RuntimeWarning, match=r"inner\.0 .* down"),
        pytest.raises(Unavailable, match="down"),
    ):
        store.write("a", b"1")
    assert store.options.inner[1].read("a") == b"1"


def test_a_blob_that_a_further_store_does_not_take_is_reported(bind: Bind, scripted: Any) -> None:
    store = over(
        bind, "blob_store", scripted("blob_store"), scripted("blob_store", Unavailable("down"))
    )
    with pytest.warns(RuntimeWarning, match=r"inner\.1"):
        store.write("a", b"1")
    assert store.read("a") == b"1"


def test_a_missing_blob_of_the_first_is_not_looked_for_in_the_others(
    bind: Bind, scripted: Any
) -> None:
    store = over(bind, "blob_store", scripted("blob_store"), scripted("blob_store"))
    store.options.inner[1].write("a", b"1")
    with pytest.raises(NotFound):
        store.read("a")


def test_many_threads_report_a_failing_store_once(bind: Bind, scripted: Any) -> None:
    inner = [scripted("metrics_store"), scripted("metrics_store", *[Unavailable("down")] * 80)]
    store = over(bind, "metrics_store", *inner)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        threads = [
            threading.Thread(target=store.record, args=("run", f"{n}", 1.0)) for n in range(80)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(told) == 1
    assert len(values(store)) == 80


# --- what the stores differ in ---


class Plain:
    """A metrics store without optional callbacks."""

    def __init__(self) -> None:
        self.rows: list[Any] = []

    @hookimpl
    def record(self, run_id: str, metric: str, value: float, step: int | None) -> None:
        self.rows.append((metric, value, step))

    @hookimpl
    def flush(self, run_id: str) -> None: ...

    @hookimpl
    def read(self, run_id: str) -> list[Any]:
        return self.rows


@pytest.mark.parametrize("plain_first", [True, False])
def test_a_store_that_takes_no_many_at_once_gets_them_one_by_one(
    bind: Bind, plain_first: bool
) -> None:
    plain, noop = Plain(), {"use": kitchen_noop.metrics_store, "latency_scale": 0}
    inner = [{"use": plain}, noop] if plain_first else [noop, {"use": plain}]
    store = bind("metrics_store", tee.metrics_store, inner=inner)
    assert store.supports("runs") is not plain_first
    store.record_many("run", {"x": 1.0, "y": 2.0}, 3)
    assert plain.rows == [("x", 1.0, 3), ("y", 2.0, 3)]
    assert len(store.options.inner[plain_first].read("run")) == 2


def test_it_can_be_reached_if_all_can(bind: Bind) -> None:
    class Pings(Plain):
        @hookimpl
        def ping(self) -> None:
            raise Unavailable("down")

    class Answers(Plain):
        @hookimpl
        def ping(self) -> None: ...

    def stack(*inner: Any) -> Any:
        return bind("metrics_store", tee.metrics_store, inner=[{"use": one} for one in inner])

    stack(Answers(), Plain()).ping()
    with pytest.raises(Unavailable):
        stack(Answers(), Pings()).ping()


def test_a_callback_that_it_does_not_know_is_refused_not_guessed() -> None:
    with bound("metrics_store", kitchen_noop.metrics_store, latency_scale=0) as store:
        opts = tee.TeeOptions[MetricsStore](inner=[store])
        call = Call(store, lambda *about: None, "merge", {}, None, None)
        with pytest.raises(AdapterError, match="does not know whether merge goes to one store"):
            tee.metrics_store.around(opts, call)


def test_an_observer_hears_of_each_store_and_of_each_failure(scripted: Any) -> None:
    inner = [scripted("metrics_store"), scripted("metrics_store", *[Unavailable("down")] * 2)]
    table = {"use": tee.metrics_store, "inner": [one.table for one in inner]}
    events: list[Event] = []
    with Kitchen({"metrics_store": table}) as kitchen, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        kitchen.observe(events.append)
        for step in range(2):
            kitchen.metrics_store.record("run", "x", 1.0, step)
    errors = [e.attributes["error"] for e in events if e.attributes["adapter"] == "Scripted"]
    assert errors == [None, "Unavailable"] * 2
