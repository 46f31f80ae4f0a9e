"""The contract grows without breaking the adapters that are out there."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import pytest
import sqlite_blob_store
from crucible_kitchen import AdapterOptions, BlobStore, Kitchen, Unsupported, hookimpl
from crucible_kitchen.adapters.binding import bind
from crucible_kitchen.hookspecs import BlobStoreOptionalSpec, BlobStoreSpec, _callback
from crucible_kitchen.testing import bound


def grown(old: type, **changed: Any) -> Any:
    """Return a class of callbacks like `old`, with some added or replaced."""
    kept = {n: f for n, f in vars(old).items() if hasattr(f, "crucible_traits")}
    return type(old.__name__, (), {**kept, **changed})


class Then:
    """Callbacks of some later day."""

    @_callback(repeatable=True)
    def read(self, opts: Any, path: str, version: str | None) -> bytes:
        """Return the whole blob, now also of an older version."""
        raise NotImplementedError

    @_callback()
    def copy(self, opts: Any, source: str, target: str) -> None:
        """Copy a blob, which no adapter of before can do."""

    @_callback(repeatable=True, deprecated="read_range goes in 2.0; `read` takes start and end")
    def read_range(self, opts: Any, path: str, start: int, end: int | None) -> bytes:
        """Return a part of a blob."""
        raise NotImplementedError


class NextBlobStore(BlobStore):
    """The port of some later day: `read` takes a version, and there is `copy`."""

    spec = grown(BlobStoreSpec, read=Then.read)
    optional = grown(BlobStoreOptionalSpec, copy=Then.copy)

    def read(self, path: str, version: str | None = None) -> bytes:
        result: bytes = self._run("read", {"path": path, "version": version})
        return result

    def copy(self, source: str, target: str) -> None:
        self._run("copy", {"source": source, "target": target})


@pytest.fixture(params=["sqlite", "noop", "fsspec"])
def store(request: pytest.FixtureRequest, tmp_path: Any) -> Any:
    """Adapters as they are today, bound to the port of that day."""
    adapters: dict[str, Mapping[str, Any]] = {
        "sqlite": {"use": sqlite_blob_store, "file": tmp_path / "blobs.db"},
        "noop": {"use": "noop", "latency_scale": 0},
        "fsspec": {"use": "fsspec", "url": str(tmp_path)},
    }
    with Kitchen(adapters={"blob_store": adapters[request.param]}) as kitchen:
        today = kitchen.blob_store
        yield bind(NextBlobStore, today.module, today.options, today.adapter)


def test_an_adapter_of_today_serves_the_port_of_then(store: NextBlobStore) -> None:
    store.write("blob", b"content")
    assert store.read("blob") == b"content"
    assert store.read("blob", version=None) == b"content"
    assert b"".join(store.stream("blob")) == b"content"
    assert store.exists("blob")


def test_an_argument_that_it_does_not_know_is_refused_not_ignored(store: NextBlobStore) -> None:
    store.write("blob", b"content")
    with pytest.raises(Unsupported, match="takes no 'version'"):
        store.read("blob", version="1")


def test_a_callback_that_it_does_not_know_is_unsupported(store: NextBlobStore) -> None:
    assert not store.supports("copy")
    with pytest.raises(Unsupported, match="does not implement copy"):
        store.copy("a", "b")


def test_a_new_adapter_takes_what_is_new() -> None:
    class Next:
        class Options(AdapterOptions):
            inner: NextBlobStore

        @hookimpl
        def read(self, path: str, version: str | None) -> bytes:
            return f"{path} of {version}".encode()

        @hookimpl
        def copy(self, source: str, target: str) -> None: ...

    with bound("blob_store", "noop", latency_scale=0) as today:
        inner = bind(NextBlobStore, today.module, today.options, "noop")
        new = bind(NextBlobStore, Next(), Next.Options(inner=inner), "next")
        assert new.read("blob", version="3") == b"blob of 3"
        assert new.supports("copy")


def test_a_deprecated_callback_works_and_warns_its_author() -> None:
    class Deprecating(BlobStore):
        optional = grown(BlobStoreOptionalSpec, read_range=Then.read_range)

    with bound("blob_store", "noop", latency_scale=0) as today:
        with pytest.warns(DeprecationWarning, match=r"read_range goes in 2\.0"):
            store = bind(Deprecating, today.module, today.options, "noop")
        store.write("blob", b"content")
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert store.read_range("blob", 0, 3) == b"con"
