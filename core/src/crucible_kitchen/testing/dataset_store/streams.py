"""Streams of rows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ...calls.streams import Stream
from ...errors import InvalidInput
from ...ports import DatasetStore
from ..conformance import needs, since, unless_synthetic
from ..processes import Elsewhere
from ..processes.places import absolute
from ..usage import open_files, peak_of
from .fixtures import DatasetStoreFixtures, open_dataset
from .rows import read, texts

STREAMS = 40
LARGE, WIDTH = 5000, 16 << 10
"""Rows of a data set that should not be held whole, and characters of each."""


class Streams(DatasetStoreFixtures):
    """`stream`."""

    @needs("stream")
    @unless_synthetic
    def test_a_stream_takes_bounded_memory(
        self, dataset_store: DatasetStore, tmp_path: Path, elsewhere: Elsewhere
    ) -> None:
        """What is opened with `streaming=True` is streamed, even shuffled, in the memory of a part
        of it.

        Usually broken by reading it whole first. It is measured in a process of the adapter's own.
        """
        self.needs_rows_of_the_kit()
        sizes = {"small": 100, "large": LARGE}
        for name, count in sizes.items():
            with (tmp_path / f"{name}.jsonl").open("w") as lines:
                lines.writelines(f'{{"id": {n}, "text": "{"x" * WIDTH}"}}\n' for n in range(count))
        open_dataset(
            dataset_store, str(tmp_path / "small.jsonl"), None, True
        )  # skips where nothing streams
        files = [str(tmp_path / f"{name}.jsonl") for name in sizes]
        found, peak = elsewhere.run(_streamed, *files)
        assert found == LARGE - 7
        mib = 1 << 20
        message = f"{LARGE * WIDTH // mib} MiB were streamed in {peak // mib} MiB of memory"
        assert peak < LARGE * WIDTH // 2, message

    @since("1.5")
    @needs("stream")
    @unless_synthetic
    def test_batches_are_full_whatever_the_size_of_the_data(
        self, dataset_store: DatasetStore, streaming: bool, tmp_path: Path
    ) -> None:
        """Of thousands of rows, too, every batch but the last has `batch_size` rows.

        Usually broken by batches that end where a file, a shard or a buffer of the reader does.
        """
        rows = [{"n": n} for n in range(4500)]
        handle = self.written(dataset_store, streaming, tmp_path / "many.jsonl", rows)
        for size in (7, 999, 1000, 1024, 4499):
            batches = list(dataset_store.stream(handle, size))
            assert [row for batch in batches for row in batch] == rows
            assert {len(batch) for batch in batches[:-1]} == {size}

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

    @since("1.5")
    @needs("stream")
    def test_a_stream_that_was_left_keeps_no_file_open(
        self,
        dataset_store: DatasetStore,
        dataset_id: str,
        split: str | None,
        streaming: bool,
        handle: Any,
        elsewhere: Elsewhere,
    ) -> None:
        """Streams that were left before their end keep no file, and no connection, open.

        Usually broken by a reader that is closed at its end alone: an evaluation that looks at the
        first rows, every few steps, is out of files on the third day.
        """
        where = absolute(dataset_id), split, streaming
        before, after = elsewhere.run(_opened, where)
        assert after < before + STREAMS // 4, f"{after - before} more files are open"

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


# --- in the other process ---


def _streamed(store: DatasetStore, small: str, large: str) -> tuple[int, int]:
    """Return how many rows were streamed, and the most memory that opening and streaming took."""
    next(_shuffled(store, small)).clear()  # what is imported and opened once
    return peak_of(lambda: sum(len(batch) for batch in _shuffled(store, large)))


def _opened(store: DatasetStore, where: tuple[str, str | None, bool]) -> tuple[int, int]:
    """Return how many files were open after two streams that were left, and how many after many."""
    handle = store.load_dataset(where[0], where[1], streaming=where[2])
    counts = []
    for number in range(2 + STREAMS):
        with store.stream(handle, 3) as batches:
            next(batches)
        if number in (1, 1 + STREAMS):
            counts.append(open_files())
    return counts[0], counts[1]


def _shuffled(store: DatasetStore, file: str) -> Stream[list[dict[str, Any]]]:
    handle = store.shuffle(store.load_dataset(file, streaming=True), 1, buffer_size=50)
    return store.stream(store.skip(handle, 7), 50)
