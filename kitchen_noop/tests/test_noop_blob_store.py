"""The blob store in memory keeps every promise of its port."""

import contextlib
import io
from pathlib import Path
from typing import Any

import pytest
from crucible_kitchen import BlobStore, InvalidInput, Kitchen, NotFound, Unavailable

from kitchen_noop import blob_store


def noop(**options: Any) -> BlobStore:
    table = {"use": blob_store, "latency_scale": 0, **options}
    return Kitchen(adapters={"blob_store": table}).blob_store


@pytest.fixture
def store() -> BlobStore:
    return noop()


def test_data_may_be_bytes_an_iterable_or_an_open_file(store: BlobStore, tmp_path: Path) -> None:
    (tmp_path / "source").write_bytes(b"one\ntwo\n\nthree")
    with (tmp_path / "source").open("rb") as file:
        sources: list[tuple[Any, bytes]] = [
            (b"bytes", b"bytes"),
            (bytearray(b"array"), b"array"),
            (memoryview(b"view"), b"view"),
            (iter([b"a", b"", b"b"]), b"ab"),
            (io.BytesIO(b"x\ny"), b"x\ny"),
            (file, b"one\ntwo\n\nthree"),
            ([], b""),
        ]
        for data, content in sources:
            store.write("blob", data)
            assert store.read("blob") == content


def test_text_is_not_a_blob(store: BlobStore) -> None:
    with pytest.raises(Exception, match="str"):
        store.write("blob", "text")  # type: ignore[arg-type]
    assert not store.exists("blob")


def test_changing_the_data_afterwards_changes_no_blob(store: BlobStore) -> None:
    data: Any = bytearray(b"abc")
    store.write("blob", data)
    data[0] = 0
    assert store.read("blob") == b"abc"


def test_a_missing_blob_is_not_found(store: BlobStore) -> None:
    assert not store.exists("missing")
    for look in (
        lambda: store.read("missing"),
        lambda: list(store.stream("missing")),
        lambda: store.read_range("missing", 0),
    ):
        with pytest.raises(NotFound, match="missing"):
            look()


@pytest.mark.parametrize("path", ["../x", "a/../../x", "a/../x", "/etc/passwd", "", ".", ".."])
def test_a_path_that_leaves_the_store_is_invalid(store: BlobStore, path: str) -> None:
    for use in (
        lambda: store.write(path, b""),
        lambda: store.read(path),
        lambda: store.exists(path),
        lambda: store.delete(path),
        lambda: list(store.stream(path)),
        lambda: store.read_range(path, 0),
    ):
        with pytest.raises(InvalidInput):
            use()


def test_a_stream_comes_in_chunks_and_sees_one_version(store: BlobStore) -> None:
    store.write("blob", b"abcdefg")
    with store.stream("blob", chunk_size=3) as chunks:
        assert next(chunks) == b"abc"
        store.write("blob", b"new")
        assert list(chunks) == [b"def", b"g"]
    with pytest.raises(InvalidInput):
        list(store.stream("blob", chunk_size=0))


def test_a_failed_request_changes_nothing() -> None:
    store = noop(failure_rate=0.5, seed=1)
    stored = set()
    for number in range(30):
        with contextlib.suppress(Unavailable):
            store.write(str(number), b"")
            stored.add(str(number))
    assert 5 < len(stored) < 25
    assert set(blob_store._blobs(store.options)) == stored  # type: ignore[arg-type]


def test_two_kitchens_share_nothing(store: BlobStore) -> None:
    store.write("blob", b"")
    assert not noop().exists("blob")
