"""A state machine that compares a dataset store with lists."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, multiple, rule

from ...errors import Unsupported
from ...ports import DatasetStore
from .rows import read, texts


class ListMachine(RuleBasedStateMachine):
    """Calls a dataset store, and does the same to lists."""

    handles: Bundle[tuple[Any, list[str]]] = Bundle("handles")

    def __init__(
        self, store: DatasetStore, handle: Any, streaming: bool, stored: list[str]
    ) -> None:
        super().__init__()
        self.store = store
        self.handle = handle
        self.streaming = streaming
        self.stored = stored
        self.known: list[tuple[Any, list[str]]] = []

    def keep(self, made: Any, rows: list[str]) -> tuple[Any, list[str]]:
        self.known.append((made, rows))
        return made, rows

    @initialize(target=handles, count=st.integers(10, 20))
    def start(self, count: int) -> tuple[Any, list[str]]:
        return self.keep(self.store.take(self.handle, count), self.stored[:count])

    @rule(target=handles, old=handles, count=st.integers(0, 22))
    def take(self, old: tuple[Any, list[str]], count: int) -> tuple[Any, list[str]]:
        return self.keep(self.store.take(old[0], count), old[1][:count])

    @rule(target=handles, old=handles, count=st.integers(0, 22))
    def skip(self, old: tuple[Any, list[str]], count: int) -> tuple[Any, list[str]]:
        return self.keep(self.store.skip(old[0], count), old[1][count:])

    @rule(target=handles, old=handles, picks=st.lists(st.integers(0, 19), max_size=8))
    def select(self, old: tuple[Any, list[str]], picks: list[int]) -> Any:
        made, rows = old
        indices = [pick % len(rows) for pick in picks] if rows else []
        try:
            chosen = self.store.select(made, indices)
        except Unsupported:
            assert self.streaming
            return multiple()
        return self.keep(chosen, [rows[index] for index in indices])

    @rule(
        target=handles,
        old=handles,
        seed=st.integers(0, 3),
        buffer_size=st.none() | st.integers(1, 25),
    )
    def shuffle(
        self, old: tuple[Any, list[str]], seed: int, buffer_size: int | None
    ) -> tuple[Any, list[str]]:
        shuffled = self.store.shuffle(old[0], seed, buffer_size)
        order = read(self.store, shuffled)
        assert sorted(order) == sorted(old[1])
        assert read(self.store, self.store.shuffle(old[0], seed, buffer_size)) == order
        return self.keep(shuffled, order)

    @rule(old=handles)
    def to_list(self, old: tuple[Any, list[str]]) -> None:
        assert read(self.store, old[0]) == old[1]

    @rule(old=handles, size=st.integers(1, 22), batches=st.none() | st.integers(0, 2))
    def stream(self, old: tuple[Any, list[str]], size: int, batches: int | None) -> None:
        made, rows = old
        if self.store.supports("stream"):
            whole = [rows[place : place + size] for place in range(0, len(rows), size)]
            with self.store.stream(made, size) as found:
                for expected in whole[:batches]:
                    assert texts(next(found)) == expected
                if batches is None:
                    assert list(found) == []

    def teardown(self) -> None:
        for made, rows in self.known:
            assert read(self.store, made) == rows
