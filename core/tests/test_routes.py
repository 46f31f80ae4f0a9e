"""Routes: what a call does was put together when the adapter was bound."""

from __future__ import annotations

import dataclasses
import itertools
import sys
import threading
from collections.abc import Callable
from types import FrameType, ModuleType
from typing import Any

import pytest
from crucible_kitchen import AdapterOptions, BlobStore, Event, Kitchen, hookimpl
from crucible_kitchen.events.event import sealed


class Options(AdapterOptions):
    inner: BlobStore | None = None


def store(**changed: Callable[..., Any]) -> ModuleType:
    callbacks: dict[str, Callable[..., Any]] = {
        "read": lambda path: b"",
        "stream": lambda path, chunk_size: (),
        "write": lambda path, data: None,
        "exists": lambda opts, path: True,
        **changed,
    }
    made = ModuleType("store")
    for name, function in callbacks.items():
        setattr(made, name, hookimpl(function))
    made.Options = Options  # type: ignore[attr-defined]
    return made


def test_the_options_may_stand_anywhere_among_the_arguments() -> None:
    seen: list[Any] = []
    stores = {
        "last": store(write=lambda path, data, opts: seen.append((opts, path, data))),
        "between": store(write=lambda path, opts, data: seen.append((opts, path, data))),
        "first": store(write=lambda opts, path, data: seen.append((opts, path, data))),
        "elsewhere": store(write=lambda data, path: seen.append((None, path, data))),
    }
    for made in stores.values():
        with Kitchen({"blob_store": made}) as kitchen:
            kitchen.blob_store.write("a", b"1")
            assert seen[-1] in [
                (kitchen.blob_store.options, "a", b"1"),
                (None, "a", b"1"),
            ]
    assert len(seen) == len(stores)


def test_arguments_may_be_positional_only() -> None:
    def write(opts: Any, path: str, data: bytes, /) -> None:
        written[path] = data

    written: dict[str, bytes] = {}
    with Kitchen({"blob_store": store(write=write)}) as kitchen:
        kitchen.blob_store.write("a", b"1")
    assert written == {"a": b"1"}


def functions_entered(call: Callable[[], object]) -> int:
    """Return how many Python functions a call enters, in this thread."""
    entered = 0

    def count(frame: FrameType, event: str, argument: object) -> None:
        nonlocal entered
        entered += event == "call"

    before = sys.getprofile()
    sys.setprofile(count)
    try:
        call()
    finally:
        sys.setprofile(before)
    return entered - 1  # the lambda itself


def nested(wrappers: int) -> dict[str, Any]:
    table: dict[str, Any] = {"use": store()}
    for _ in range(wrappers):
        outer = ModuleType("wrapper")
        outer.Options = Options  # type: ignore[attr-defined]
        outer.around = hookimpl(lambda opts, call: call())  # type: ignore[attr-defined]
        table = {"use": outer, "inner": table}
    return table


def test_a_call_enters_three_functions_besides_the_adapters() -> None:
    with Kitchen({"blob_store": store()}) as kitchen:
        port = kitchen.blob_store
        assert functions_entered(lambda: port.exists("a")) == 4
        # A kitchen finds a bound port by a property and a look-up.
        assert functions_entered(lambda: kitchen.blob_store.exists("a")) == 6


def test_a_wrapper_adds_its_own_function_and_three_more() -> None:
    counts = []
    for wrappers in range(4):
        with Kitchen({"blob_store": nested(wrappers)}) as kitchen:
            port = kitchen.blob_store
            counts.append(functions_entered(lambda port=port: port.exists("a")))  # type: ignore[misc]
    assert [after - before for before, after in itertools.pairwise(counts)] == [4, 4, 4]


def test_an_observer_adds_its_own_function_alone_to_what_observing_costs() -> None:
    counts = []
    for observers in range(4):
        with Kitchen({"blob_store": store()}) as kitchen:
            for _ in range(observers):
                kitchen.observe(lambda event: None)
            port = kitchen.blob_store
            counts.append(functions_entered(lambda port=port: port.exists("a")))  # type: ignore[misc]
    assert counts[2] - counts[1] == counts[3] - counts[2] == 1
    assert counts[1] - counts[0] <= 12


def test_an_event_that_was_made_quickly_is_one_like_any_other() -> None:
    made = sealed("adapter.call", {"port": "blob_store"}, 1.0, 2, None)
    assert made == Event("adapter.call", {"port": "blob_store"}, 1.0, 2, None)
    assert type(made) is Event
    with pytest.raises(dataclasses.FrozenInstanceError):
        made.name = "other"  # type: ignore[misc]
    fields = [field.name for field in dataclasses.fields(Event)]
    assert [getattr(made, name) for name in fields] == [
        "adapter.call",
        made.attributes,
        1.0,
        2,
        None,
    ]


def test_a_port_that_was_closed_is_bound_again_for_the_next_call() -> None:
    kitchen = Kitchen({"blob_store": store()})
    first = kitchen.blob_store
    assert kitchen.blob_store is first
    kitchen.close()
    assert kitchen.blob_store is not first
    assert kitchen.blob_store.exists("a")
    kitchen.close()


def test_threads_share_a_port_that_one_of_them_bound() -> None:
    found: list[BlobStore] = []
    with Kitchen({"blob_store": store()}) as kitchen:
        ready = threading.Barrier(4)

        def use() -> None:
            ready.wait(30)
            found.append(kitchen.blob_store)

        threads = [threading.Thread(target=use) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(found) == 4
    assert len(set(map(id, found))) == 1
