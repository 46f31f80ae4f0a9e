"""The blob store in memory keeps every promise of its port."""

import contextlib
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from crucible_kitchen import BlobStore, InvalidInput, Kitchen, NotFound, Unavailable
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, rule

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


def test_a_failed_write_leaves_the_old_content(store: BlobStore) -> None:
    def data() -> Iterator[bytes]:
        yield b"new"
        raise RuntimeError("the source broke")

    with pytest.raises(Exception, match="the source broke"):
        store.write("blob", data())
    assert not store.exists("blob")
    store.write("blob", b"old")
    with pytest.raises(Exception, match="the source broke"):
        store.write("blob", data())
    assert store.read("blob") == b"old"


def test_text_is_no_blob(store: BlobStore) -> None:
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


def test_a_folder_is_not_a_blob(store: BlobStore) -> None:
    store.write("folder/blob", b"")
    assert not store.exists("folder")
    assert store.list() == ["folder/blob"]


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


def test_one_blob_has_one_name(store: BlobStore) -> None:
    store.write("a//b/./c", b"1")
    assert store.read("a/b/c") == b"1"
    assert store.list() == ["a/b/c"]


def test_a_stream_comes_in_chunks_and_sees_one_version(store: BlobStore) -> None:
    store.write("blob", b"abcdefg")
    with store.stream("blob", chunk_size=3) as chunks:
        assert next(chunks) == b"abc"
        store.write("blob", b"new")
        assert list(chunks) == [b"def", b"g"]
    with pytest.raises(InvalidInput):
        list(store.stream("blob", chunk_size=0))


@pytest.mark.parametrize(("start", "end"), [(-1, None), (0, -1)])
def test_a_range_has_no_negative_bounds(store: BlobStore, start: int, end: int | None) -> None:
    store.write("blob", b"abc")
    with pytest.raises(InvalidInput):
        store.read_range("blob", start, end)


def test_a_failed_request_changes_nothing() -> None:
    store = noop(failure_rate=0.5, seed=1)
    stored = set()
    for number in range(30):
        with contextlib.suppress(Unavailable):
            store.write(str(number), b"")
            stored.add(str(number))
    assert 5 < len(stored) < 25
    assert set(blob_store.blobs(store.options)) == stored  # type: ignore[arg-type]


def test_two_kitchens_share_nothing(store: BlobStore) -> None:
    store.write("blob", b"")
    assert not noop().exists("blob")


class Blobs(RuleBasedStateMachine):
    """Any sequence of calls equals the same on a dictionary."""

    paths = Bundle("paths")

    def __init__(self) -> None:
        super().__init__()
        self.store = noop()
        self.model: dict[str, bytes] = {}

    @rule(
        target=paths,
        parts=st.lists(
            st.text(st.characters(exclude_characters="/"), min_size=1).filter(
                lambda part: part not in (".", "..")
            ),
            min_size=1,
            max_size=3,
        ),
    )
    def name(self, parts: list[str]) -> str:
        return "/".join(parts)

    @rule(path=paths, data=st.binary(), whole=st.booleans())
    def write(self, path: str, data: bytes, whole: bool) -> None:
        self.store.write(path, data if whole else (data[i : i + 1] for i in range(len(data))))
        self.model[path] = data

    @rule(path=paths)
    def delete(self, path: str) -> None:
        self.store.delete(path)
        self.model.pop(path, None)

    @rule(path=paths, size=st.integers(1, 10))
    def read(self, path: str, size: int) -> None:
        assert self.store.exists(path) == (path in self.model)
        if path in self.model:
            assert self.store.read(path) == self.model[path]
            chunks = list(self.store.stream(path, chunk_size=size))
            assert b"".join(chunks) == self.model[path]
            assert all(0 < len(chunk) <= size for chunk in chunks)

    @rule(path=paths, start=st.integers(0, 20), end=st.none() | st.integers(0, 20))
    def read_range(self, path: str, start: int, end: int | None) -> None:
        if path in self.model:
            assert self.store.read_range(path, start, end) == self.model[path][start:end]

    @rule(path=paths, length=st.integers(0, 5))
    def list(self, path: str, length: int) -> None:
        prefix = path[:length]
        expected = sorted(name for name in self.model if name.startswith(prefix))
        assert self.store.list(prefix) == expected

    @invariant()
    def nothing_else_is_there(self) -> None:
        assert self.store.list() == sorted(self.model)


TestBlobs = Blobs.TestCase
TestBlobs.settings = settings(stateful_step_count=20, max_examples=50)
