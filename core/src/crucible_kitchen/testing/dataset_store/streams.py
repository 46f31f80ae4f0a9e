"""Streams of rows."""

from __future__ import annotations

import tracemalloc
from pathlib import Path
from typing import Any

import pytest

from ...errors import InvalidInput
from ...ports import DatasetStore
from ..conformance import needs, unless_synthetic
from .fixtures import DatasetStoreFixtures, open_dataset
from .rows import read, texts


class Streams(DatasetStoreFixtures):
    """`stream`."""

    @needs("stream")
    @unless_synthetic
    def test_a_stream_takes_bounded_memory(
        self, dataset_store: DatasetStore, tmp_path: Path
    ) -> None:
        """What was opened with `streaming=True` is streamed, even shuffled, in the memory of a part
        of it.

        Usually broken by reading it whole first.
        """
        self.needs_rows_of_the_kit()
        count, size = 5000, 16 << 10
        file = tmp_path / "conformance-large.jsonl"
        with file.open("w") as lines:
            lines.writelines(f'{{"id": {n}, "text": "{"x" * size}"}}\n' for n in range(count))
        handle = open_dataset(dataset_store, str(file), None, True)
        handle = dataset_store.skip(dataset_store.shuffle(handle, 1, buffer_size=50), 7)
        next(dataset_store.stream(handle, 1)).clear()  # what is imported and opened once
        tracemalloc.start()
        try:
            found = sum(len(batch) for batch in dataset_store.stream(handle, 50))
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert found == count - 7
        mib = 1 << 20
        message = f"{count * size // mib} MiB were streamed in {peak // mib} MiB of memory"
        assert peak < count * size // 2, message

    @needs("stream")
    def test_a_stream_is_the_rows_in_batches(
        self, dataset_store: DatasetStore, handle: Any, stored: list[str]
    ) -> None:
        """`stream` yields what `to_list` returns, in lists of exactly `batch_size` rows, the last
        one shorter and never empty, of whatever handle.

        Usually broken by dropping the last batch, or by batches that follow those of a file.
        """
        store, count = dataset_store, len(stored)
        shuffled = store.shuffle(handle, 4, buffer_size=7)
        handles = [handle, shuffled, store.skip(shuffled, 8), store.take(handle, 13)]
        for one in handles:
            expected = read(store, one)
            for size in (1, 2, 7, 13, count - 1, count, count + 1, 10_000):
                batches = list(store.stream(one, size))
                sizes = [len(batch) for batch in batches]
                full, rest = divmod(len(expected), size)
                assert sizes == [size] * full + [rest] * bool(rest), size
                assert [text for batch in batches for text in texts(batch)] == expected, size
        assert [len(batch) for batch in store.stream(handle)] == [count] or count > 1000

    @needs("stream")
    def test_a_stream_of_no_rows_has_no_batches(
        self, dataset_store: DatasetStore, handle: Any
    ) -> None:
        """A handle without rows streams nothing: not one empty batch.

        Usually broken by yielding the rest without looking at it.
        """
        assert list(dataset_store.stream(dataset_store.take(handle, 0), 5)) == []
        assert list(dataset_store.stream(dataset_store.skip(handle, 2**31), 5)) == []

    @needs("stream")
    @pytest.mark.parametrize("batch_size", [0, -1])
    def test_a_batch_of_no_rows_is_refused(
        self, dataset_store: DatasetStore, handle: Any, batch_size: int
    ) -> None:
        """A `batch_size` below one is `InvalidInput`, at the call or at the first batch.

        Usually broken by a loop that never ends, or ends at once.
        """
        with pytest.raises(InvalidInput):  # its first batch, for there might be no last one
            next(iter(dataset_store.stream(handle, batch_size)))

    @needs("stream")
    def test_a_stream_may_be_left_early(
        self, dataset_store: DatasetStore, handle: Any, stored: list[str]
    ) -> None:
        """A stream may be closed before its end, again and again, and the next one starts at the
        first row; concurrent streams of one handle do not take each other's rows.

        Usually broken by an iterator in the handle, or a file that each stream leaves open.
        """
        for _ in range(100):
            with dataset_store.stream(handle, 3) as batches:
                assert texts(next(batches)) == stored[:3]
        with dataset_store.stream(handle, 3) as one, dataset_store.stream(handle, 3) as other:
            for start in range(0, 18, 3):
                assert texts(next(one)) == stored[start : start + 3]
                assert texts(next(other)) == stored[start : start + 3]
        assert read(dataset_store, handle) == stored
