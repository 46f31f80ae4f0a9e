"""A dataset store of rows that a test gives."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeAlias

from crucible_kitchen import NotFound, hookimpl

Row: TypeAlias = dict[str, Any]


class RowsInMemory:
    """Its handles are lists of rows, by split. `read` counts the rows that were handed out."""

    def __init__(self, splits: Mapping[str, Sequence[Row]]) -> None:
        self.splits = splits
        self.read = 0
        self.streamed = False

    @hookimpl
    def load_dataset(self, dataset_id: str, split: str | None, streaming: bool) -> list[Row]:
        self.streamed = streaming
        if split is None and len(self.splits) == 1:
            [split] = self.splits
        if split is None or split not in self.splits:
            raise NotFound(f"no split {split!r}; there are {', '.join(self.splits)}")
        return list(self.splits[split])

    @hookimpl
    def get_split(self, handle: list[Row], split: str) -> list[Row]:
        return list(self.splits[split])

    @hookimpl
    def shuffle(self, handle: list[Row], seed: int, buffer_size: int | None) -> list[Row]:
        return handle if buffer_size == 1 else random.Random(seed).sample(handle, len(handle))

    @hookimpl
    def take(self, handle: list[Row], count: int) -> list[Row]:
        return handle[:count]

    @hookimpl
    def skip(self, handle: list[Row], count: int) -> list[Row]:
        return handle[count:]

    @hookimpl
    def select(self, handle: list[Row], selection: Sequence[int]) -> list[Row]:
        return [handle[index] for index in selection]

    @hookimpl
    def to_list(self, handle: list[Row]) -> list[Row]:
        self.read += len(handle)
        return handle


class StreamedRows(RowsInMemory):
    """The same, which can also be streamed."""

    @hookimpl
    def stream(self, handle: list[Row], batch_size: int) -> Iterator[list[Row]]:
        for start in range(0, len(handle), batch_size):
            self.read += len(handle[start : start + batch_size])
            yield handle[start : start + batch_size]
