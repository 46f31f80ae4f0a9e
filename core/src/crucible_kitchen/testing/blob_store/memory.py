"""The memory, and the open files, that blobs of any size take."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator
from typing import Any

import pytest

from ...ports import BlobStore
from ..conformance import since, unless_synthetic
from ..processes import Elsewhere
from ..usage import open_files, peak_of
from .fixtures import MIB, BlobStoreFixtures

SIZE = 96 * MIB
CHUNK = 256 << 10
STREAMS = 40


class Memory(BlobStoreFixtures):
    """Blobs that are larger than memory."""

    def test_a_stream_takes_constant_memory(
        self, blob_store: BlobStore, folder: str, elsewhere: Elsewhere
    ) -> None:
        """A blob of any size is streamed in the memory of a few chunks.

        Usually broken by reading it whole and cutting it up.
        """
        total, peak = elsewhere.run(_streamed, f"{folder}/large")
        assert total == SIZE
        assert peak < SIZE // 3, f"streaming {SIZE // MIB} MiB took {peak // MIB} MiB"

    @since("1.5")
    def test_a_stream_keeps_no_file_open(
        self, blob_store: BlobStore, folder: str, elsewhere: Elsewhere
    ) -> None:
        """A stream that has ended, and one that was left, keep no file and no connection of their
        own.

        Usually broken by a file that is closed behind a loop which was left: after a thousand of
        them the process cannot open any.
        """
        before, after = elsewhere.run(_opened, f"{folder}/blob")
        assert after < before + STREAMS // 4, f"{after - before} more files are open"

    @since("1.5")
    @unless_synthetic
    @pytest.mark.parametrize("source", ["pieces", "file"])
    def test_a_write_takes_constant_memory(
        self, blob_store: BlobStore, folder: str, elsewhere: Elsewhere, source: str
    ) -> None:
        """A blob of any size is written in the memory of a few pieces, if it is given in pieces,
        or as a file.

        Usually broken by `b"".join(data)`, and by a file that is iterated by lines, one of which
        may be all of it: a checkpoint of 100 GB that is streamed to the store ends the process
        that trained it.
        """
        total, peak = elsewhere.run(_written, f"{folder}/large", source)
        assert total == SIZE
        assert peak < SIZE // 3, f"writing {SIZE // MIB} MiB took {peak // MIB} MiB"


# --- in the other process ---


def _pieces() -> Iterator[bytes]:
    # Made one by one: one object many times would take the memory of one, even if all are kept.
    return (bytes(MIB) for _ in range(SIZE // MIB))


def _streamed(store: BlobStore, path: str) -> tuple[int, int]:
    """Return the size of a streamed blob, and the most memory that streaming it took."""
    store.write(path, _pieces())
    list(store.stream(path, chunk_size=8 * MIB))  # imports, connections
    return peak_of(lambda: sum(map(len, store.stream(path, chunk_size=CHUNK))))


def _opened(store: BlobStore, path: str) -> tuple[int, int]:
    """Return how many files were open after two streams, and how many after many."""
    store.write(path, bytes(MIB))
    counts = []
    with contextlib.ExitStack() as alive:  # as in a frame that still refers to them
        for number in range(2 + STREAMS):
            stream = store.stream(path, chunk_size=1000 if number % 2 else MIB)
            alive.callback(id, stream)
            with stream as pieces:
                next(iter(pieces))
                if number % 4 < 2:
                    list(pieces)
            if number == 1:
                counts.append(open_files())
        counts.append(open_files())
    return counts[0], counts[1]


class _File(io.RawIOBase):
    """A file of zeros: one line, and larger than it should be held."""

    def __init__(self, size: int) -> None:
        self._left = size

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        count = min(len(buffer), self._left)
        buffer[:count] = bytes(count)
        self._left -= count
        return count


def _written(store: BlobStore, path: str, source: str) -> tuple[int, int]:
    """Return the size of a written blob, and the most memory that writing it took."""
    store.write(path, iter([bytes(10 * MIB), b"!"]))  # imports, connections
    data = _pieces() if source == "pieces" else io.BufferedReader(_File(SIZE))
    _, peak = peak_of(lambda: store.write(path, data))
    return sum(map(len, store.stream(path))), peak
