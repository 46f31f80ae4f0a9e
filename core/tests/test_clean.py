"""`Port.clean` reaches every adapter that was bound, and none through a wrapper's `around`."""

from __future__ import annotations

from typing import Any

import pytest
from crucible_kitchen import AdapterOptions, BlobStore, Kitchen, Unsupported, hookimpl
from crucible_kitchen.ports import PORTS
from pydantic import Field


class Memory:
    """A blob store that has something to clean."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.asked: list[tuple[str, Any, bool]] = []

    @hookimpl
    def read(self, path: str) -> bytes:
        return b""

    @hookimpl
    def stream(self, path: str, chunk_size: int) -> list[bytes]:
        return []

    @hookimpl
    def write(self, path: str, data: Any) -> None: ...

    @hookimpl
    def exists(self, path: str) -> bool:
        return False


class Leaves(Memory):
    @hookimpl
    def clean(self, prefix: str, keep: Any, dry_run: bool) -> list[str]:
        self.asked.append((prefix, keep, dry_run))
        return [f"{self.name} {prefix}"]


class Several(AdapterOptions):
    inner: BlobStore
    others: list[BlobStore] = Field(default_factory=list)


class Wrapper:
    Options = Several

    @hookimpl
    def around(self, call: Any) -> Any:
        assert call.name != "clean"
        return call()


class CleansToo(Wrapper):
    @hookimpl
    def clean(self, opts: Several, prefix: str, keep: Any, dry_run: bool) -> list[str]:
        return ["its own"]


def bound(adapter: Any, **options: Any) -> BlobStore:
    return Kitchen({"blob_store": {"use": adapter, **options}}).blob_store


def test_the_adapter_is_asked_with_the_defaults_of_the_contract() -> None:
    leaves = Leaves("a")
    assert bound(leaves).clean() == ["a "]
    assert leaves.asked == [("", (), False)]


def test_an_adapter_that_leaves_nothing_behind_needs_no_callback() -> None:
    assert bound(Memory("a")).clean("run/") == []


def test_every_adapter_of_the_options_is_asked_and_around_is_not() -> None:
    names = "abc"
    a, b, c = (Leaves(name) for name in names)
    outer = bound(Wrapper(), inner=a, others=[b, {"use": Wrapper(), "inner": c}])
    assert outer.clean("run/", ["kept"], True) == [f"{name} run/" for name in names]
    assert a.asked == b.asked == c.asked == [("run/", ["kept"], True)]


def test_a_wrapper_cleans_what_is_its_own_first() -> None:
    assert bound(CleansToo(), inner=Leaves("a")).clean() == ["its own", "a "]


def test_an_adapter_that_cannot_only_look_is_not_asked_to() -> None:
    class RemovesAtOnce(Memory):
        @hookimpl
        def clean(self, prefix: str, keep: Any) -> list[str]:
            raise AssertionError

    with pytest.raises(Unsupported, match="dry_run"):
        bound(RemovesAtOnce("a")).clean(dry_run=True)


@pytest.mark.parametrize("port", PORTS.values(), ids=PORTS)
def test_every_port_may_clean_and_again_is_fine(port: Any) -> None:
    assert port.traits("clean").repeatable({})


@pytest.mark.parametrize("callback", ["get_info", "check_storage"])
def test_asking_a_session_again_is_fine(callback: str) -> None:
    assert PORTS["training_client"].traits(callback).repeatable({})
