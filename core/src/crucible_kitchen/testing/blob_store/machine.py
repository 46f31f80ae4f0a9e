"""A state machine that compares a blob store with a dictionary."""

from __future__ import annotations

import uuid
from collections.abc import Iterator

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from ...errors import AdapterError
from ...ports import BlobStore
from ..refusal import refuses
from .fixtures import holds

_paths = st.sampled_from(["a", "b", "a.b", "folder/a", "folder/b", "folder/deep er/ü"])
_contents = st.binary(max_size=5)


class DictionaryMachine(RuleBasedStateMachine):
    """Calls a blob store, and a dictionary of what it should hold."""

    def __init__(self, store: BlobStore, folder: str) -> None:
        super().__init__()
        self.store = store
        self.root = f"{folder}/{uuid.uuid4().hex}"
        self.model: dict[str, bytes] = {}

    @rule(path=_paths, content=_contents, whole=st.booleans())
    def write(self, path: str, content: bytes, whole: bool) -> None:
        data = content if whole else iter([content[:2], content[2:]])
        self.store.write(f"{self.root}/{path}", data)
        self.model[path] = content

    @rule(path=_paths, content=_contents)
    def fail_to_write(self, path: str, content: bytes) -> None:
        def failing() -> Iterator[bytes]:
            yield content
            raise ValueError

        refuses(AdapterError, self.store.write, f"{self.root}/{path}", failing())

    @rule(path=_paths)
    def delete(self, path: str) -> None:
        if self.store.supports("delete"):
            self.store.delete(f"{self.root}/{path}")
            self.model.pop(path, None)

    @rule(path=_paths, start=st.integers(0, 6), end=st.none() | st.integers(0, 6))
    def read_range(self, path: str, start: int, end: int | None) -> None:
        if path in self.model and self.store.supports("read_range"):
            found = self.store.read_range(f"{self.root}/{path}", start, end)
            assert found == self.model[path][start:end]

    @rule(path=_paths)
    def read(self, path: str) -> None:
        holds(self.store, f"{self.root}/{path}", self.model.get(path))

    @invariant()
    def lists(self) -> None:
        if self.store.supports("list"):
            known = sorted(f"{self.root}/{path}" for path in self.model)
            assert self.store.list(f"{self.root}/") == known
