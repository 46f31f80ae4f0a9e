"""The adapter that docs/adapters.md explains, docs/examples/sqlite_blob_store.py."""

import importlib.util
import re
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType

import pytest
from crucible_kitchen import BlobStore, InvalidInput, Kitchen, NotFound, Unsupported

DOCS = Path(__file__).parents[1] / "docs"


def load(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


EXAMPLE = load(DOCS / "examples" / "sqlite_blob_store.py")


@pytest.fixture
def store(tmp_path: Path) -> Iterator[BlobStore]:
    with Kitchen(
        adapters={"blob_store": {"use": EXAMPLE, "file": tmp_path / "blobs.db"}}
    ) as kitchen:
        yield kitchen.blob_store


def test_what_was_written_is_read_back(store: BlobStore) -> None:
    store.write("run 1/größe.txt", b"content")
    assert store.read("run 1/größe.txt") == b"content"
    assert store.exists("run 1/größe.txt")


def test_an_empty_blob_is_a_blob(store: BlobStore) -> None:
    store.write("empty", b"")
    assert store.read("empty") == b""
    assert list(store.stream("empty")) == []


def test_data_may_be_an_iterable_or_an_open_file(store: BlobStore, tmp_path: Path) -> None:
    store.write("parts", iter([b"a", b"", b"b"]))
    assert store.read("parts") == b"ab"
    (tmp_path / "source").write_bytes(b"one\ntwo\n\nthree")
    with (tmp_path / "source").open("rb") as file:
        store.write("file", file)
    assert store.read("file") == b"one\ntwo\n\nthree"


def test_a_failed_write_leaves_the_old_content(store: BlobStore) -> None:
    def data() -> Iterator[bytes]:
        yield b"new"
        raise RuntimeError("the source broke")

    store.write("blob", b"old")
    with pytest.raises(Exception, match="the source broke"):
        store.write("blob", data())
    assert store.read("blob") == b"old"


def test_a_stream_comes_in_chunks_and_sees_one_version_of_the_blob(store: BlobStore) -> None:
    store.write("blob", b"abcdefg")
    with store.stream("blob", chunk_size=3) as chunks:
        assert next(chunks) == b"abc"
        store.write("blob", b"ABCDEFG")
        assert list(chunks) == [b"def", b"g"]
    assert store.read("blob") == b"ABCDEFG"


def test_a_missing_blob_is_not_found(store: BlobStore) -> None:
    assert not store.exists("missing")
    with pytest.raises(NotFound, match="missing"):
        store.read("missing")
    with pytest.raises(NotFound, match="missing"):
        next(store.stream("missing"))


@pytest.mark.parametrize("path", ["../other", "a/../../b", "/etc/passwd", "", "."])
def test_a_path_that_leaves_the_store_is_invalid(store: BlobStore, path: str) -> None:
    with pytest.raises(InvalidInput):
        store.write(path, b"")


def test_delete_is_offered_and_list_is_not(store: BlobStore) -> None:
    store.write("blob", b"1")
    store.delete("blob")
    store.delete("blob")
    assert not store.exists("blob")
    assert not store.supports("list")
    with pytest.raises(Unsupported):
        store.list()


def test_the_helper_gives_space_back(store: BlobStore, tmp_path: Path) -> None:
    store.write("blob", b"x" * 1_000_000)
    store.delete("blob")
    store.helper("vacuum")()
    store.close()
    assert (tmp_path / "blobs.db").stat().st_size < 100_000


def test_threads_share_one_store(store: BlobStore) -> None:
    def work(number: int) -> None:
        for step in range(50):
            store.write(f"{number}/{step}", b"%d" % step)

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(work, range(4)))
    assert all(store.read(f"{n}/{s}") == b"%d" % s for n in range(4) for s in range(50))


def test_callbacks_are_plain_functions(tmp_path: Path) -> None:
    opts = EXAMPLE.Options(file=tmp_path / "blobs.db")
    EXAMPLE.write(opts, "a", b"1")
    assert EXAMPLE.read(opts, "a") == b"1"
    EXAMPLE.close(opts)


def test_the_guide_shows_the_code_that_is_tested() -> None:
    """Every snippet of Python that the guide takes from the example stands in it as it is."""
    source = (DOCS / "examples" / "sqlite_blob_store.py").read_text(encoding="utf-8")
    guide = (DOCS / "adapters.md").read_text(encoding="utf-8")
    taken = re.findall(r"<!-- from the example -->\n+```python\n(.*?)```", guide, re.DOTALL)
    assert taken
    for snippet in taken:
        for block in snippet.strip().split("\n\n\n"):
            assert block in source
