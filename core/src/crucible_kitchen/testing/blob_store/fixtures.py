"""The fixtures of a blob store's tests."""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, ClassVar

import pytest

from ...errors import InvalidInput, NotFound
from ...ports import BlobStore
from ..conformance import Conformance
from ..refusal import refuses

MIB = 1 << 20


class BlobStoreFixtures(Conformance):
    """The fixtures of the suite."""

    names: ClassVar[tuple[str, ...]] = (
        "plain",
        "with space",
        ".hidden",
        "trailing.",
        "a.b.c",
        "naïve-Übung-数据-🙂",
        "percent%20and%2F",
        "plus+and&and=and#and?",
        "quote'and\"and`",
        "[bracket]*{brace}",
        "back\\slash",
        "-dash",
        "~tilde",
        "sub/folder/name",
    )
    """Names of blobs that must work."""
    more_than_a_page: ClassVar[int] = 1050
    """How many blobs no listing has in one page. Object stores answer with 1,000 at a time."""

    @pytest.fixture
    def stored(self) -> Callable[[str], bytes | None] | None:
        """A function that reads a path behind the adapter's back; None if there is nothing.
        Optional: with it the kit does not have to believe the adapter's own `read`.
        """
        return None

    @pytest.fixture
    def root(self) -> Path | str | None:
        """The folder of this machine in which each blob is a file at its path, and there is
        nothing else. Optional: with it the kit sees what the adapter leaves there, and where it
        follows links to. It need not exist yet.
        """
        return None

    @pytest.fixture
    def folder(self, blob_store: BlobStore, root: Path | str | None) -> Iterator[str]:
        """A folder that no other test writes to. Its blobs are deleted; with `root`, all of it."""
        name = f"conformance-{uuid.uuid4().hex}"
        yield name
        if blob_store.supports("list") and blob_store.supports("delete"):
            with ThreadPoolExecutor(8) as pool:
                list(pool.map(blob_store.delete, blob_store.list(f"{name}/")))
        if root is not None:  # empty folders, links, and what a killed process left
            shutil.rmtree(Path(str(root)) / name, ignore_errors=True)


def holds(store: BlobStore, path: str, content: bytes | None) -> None:
    """Check that a blob has this content, or does not exist."""
    assert store.exists(path) == (content is not None)
    if content is None:
        refuses(NotFound, store.read, path)
    else:
        assert store.read(path) == content
        size = max(3, len(content) // 100)
        assert b"".join(store.stream(path, chunk_size=size)) == content


def refuses_everywhere(store: BlobStore, path: str) -> None:
    """Check that a path is `InvalidInput` in every callback that takes one."""
    calls: list[tuple[Callable[..., Any], Any]] = [
        (store.read, ()),
        (store.stream, ()),
        (store.write, [b"overwritten"]),
        (store.write, [iter([b"over", b"written"])]),
        (store.exists, ()),
    ]
    if store.supports("delete"):
        calls.append((store.delete, ()))
    if store.supports("read_range"):
        calls.append((store.read_range, [0, 1]))
    for callback, others in calls:
        refuses(InvalidInput, callback, path, *others)
