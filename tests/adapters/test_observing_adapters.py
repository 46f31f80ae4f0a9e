"""An adapter with the helper `observe` is called with every event while it is bound."""

from __future__ import annotations

from collections.abc import Iterator
from types import ModuleType
from typing import Any

import pytest
from crucible_kitchen import AdapterOptions, BlobStore, Event, Kitchen, helper, hookimpl

Seen = list[tuple[str, str]]


class Options(AdapterOptions):
    bucket: str = "b"


class Wraps(AdapterOptions):
    inner: BlobStore


def store(seen: Seen) -> ModuleType:
    """Return a blob store that keeps nothing, and notes what it observes."""

    def read(path: str) -> bytes:
        return b""

    def stream(path: str, chunk_size: int) -> Iterator[bytes]:
        yield b""

    def write(path: str, data: bytes) -> None: ...

    def exists(path: str) -> bool:
        return True

    def observe(opts: Options, event: Event) -> None:
        seen.append((opts.bucket, event.name))

    made = ModuleType("observing")
    callbacks: dict[str, Any] = {"read": read, "stream": stream, "write": write, "exists": exists}
    for name, function in callbacks.items():
        setattr(made, name, hookimpl(function))
    made.observe, made.Options = helper(observe), Options  # type: ignore[attr-defined]
    return made


@pytest.fixture
def seen() -> Seen:
    return []


def test_it_observes_from_when_it_is_bound_until_the_kitchen_closes(seen: Seen) -> None:
    kitchen = Kitchen({"blob_store": {"use": store(seen), "bucket": "x"}})
    kitchen.observers.emit("before")
    kitchen.bind(["blob_store"])
    kitchen.observers.emit("while")
    kitchen.close()
    kitchen.observers.emit("after")
    assert seen == [("x", "while")]


def test_inside_a_wrapper_it_observes_once(seen: Seen) -> None:
    wrapper = ModuleType("passing")
    wrapper.Options, wrapper.around = Wraps, hookimpl(lambda call: call())  # type: ignore[attr-defined]
    with Kitchen({"blob_store": {"use": wrapper, "inner": store(seen)}}) as kitchen:
        kitchen.bind(["blob_store"])
        kitchen.observers.emit("while")
    assert seen == [("b", "while")]


def test_bound_again_it_observes_again_once(seen: Seen) -> None:
    kitchen = Kitchen({"blob_store": store(seen)})
    for _ in range(3):
        kitchen.bind(["blob_store"])
        kitchen.close()
    kitchen.bind(["blob_store"])
    kitchen.observers.emit("while")
    kitchen.close()
    assert seen == [("b", "while")]


def test_a_function_of_that_name_that_is_no_helper_is_not_called(seen: Seen) -> None:
    made = store(seen)
    made.observe = lambda opts, event: seen.append(("", ""))  # type: ignore[attr-defined]
    with Kitchen({"blob_store": made}) as kitchen:
        kitchen.bind(["blob_store"])
        kitchen.observers.emit("while")
    assert seen == []


def test_one_that_fails_is_reported_by_its_name(capsys: pytest.CaptureFixture[str]) -> None:
    def observe(opts: Options, event: Event) -> None:
        raise RuntimeError("no")

    made = store([])
    made.observe = helper(observe)  # type: ignore[attr-defined]
    with Kitchen({"blob_store": made}) as kitchen:
        kitchen.bind(["blob_store"])
        kitchen.observers.emit("while")
        assert kitchen.observers.failed == ["observing"]
    assert "observer observing failed at while (RuntimeError: no)" in capsys.readouterr().err
