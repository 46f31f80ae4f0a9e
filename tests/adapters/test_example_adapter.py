"""The adapter that docs/adapters/write.md explains, docs/examples/sqlite_blob_store.py."""

from __future__ import annotations

import importlib.util
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from types import ModuleType

import pytest
from crucible_kitchen import BlobStore, Kitchen, Unsupported
from crucible_kitchen.testing import LEVEL, BlobStoreConformance, bound

DOCS = Path(__file__).parents[2] / "docs"


def load(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


sqlite_blob_store = load(DOCS / "examples" / "sqlite_blob_store.py")

Reopen = Callable[[], AbstractContextManager[BlobStore]]


@pytest.fixture
def store(tmp_path: Path) -> Iterator[BlobStore]:
    with Kitchen(
        adapters={"blob_store": {"use": sqlite_blob_store, "file": tmp_path / "blobs.db"}}
    ) as kitchen:
        yield kitchen.blob_store


class TestSqlite(BlobStoreConformance):
    @pytest.fixture
    def reopen(self, tmp_path: Path) -> Reopen:
        return lambda: bound("blob_store", sqlite_blob_store, file=tmp_path / "blobs.db")

    @pytest.fixture
    def blob_store(self, reopen: Reopen) -> Iterator[BlobStore]:
        with reopen() as store:
            yield store

    level = LEVEL


def test_a_stream_goes_on_seeing_the_blob_that_it_began_with(store: BlobStore) -> None:
    store.write("blob", b"abcdefg")
    with store.stream("blob", chunk_size=3) as chunks:
        assert next(chunks) == b"abc"
        store.write("blob", b"ABCDEFG")
        assert list(chunks) == [b"def", b"g"]
    assert store.read("blob") == b"ABCDEFG"


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


def test_callbacks_are_plain_functions(tmp_path: Path) -> None:
    opts = sqlite_blob_store.Options(file=tmp_path / "blobs.db")
    sqlite_blob_store.write(opts, "a", b"1")
    assert sqlite_blob_store.read(opts, "a") == b"1"
    sqlite_blob_store.close(opts)


SHOWN = {
    "adapters/write.md": ["docs/examples/sqlite_blob_store.py"],
    "adapters/testing.md": ["tests/adapters/test_example_adapter.py"],
    "adapters/training-client.md": [
        "docs/examples/platform_training_client.py",
        "tests/adapters/test_platform_training_client.py",
    ],
}


@pytest.mark.parametrize("page", SHOWN)
def test_a_guide_shows_code_that_is_tested(page: str) -> None:
    """Every snippet of Python that a guide takes from a file stands in it as it is."""
    source = "".join((DOCS.parent / file).read_text(encoding="utf-8") for file in SHOWN[page])
    guide = (DOCS / page).read_text(encoding="utf-8")
    taken = re.findall(r"<!-- from .* -->\n+```python\n(.*?)```", guide, re.DOTALL)
    assert taken
    for snippet in taken:
        for block in snippet.strip().split("\n\n\n"):
            assert block in source
