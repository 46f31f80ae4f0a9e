"""Blob stores with one fault each."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from typing import Any

from crucible_kitchen import AdapterOptions, BlobStore, InvalidInput, NotFound, hookimpl

from . import Mutant


class Options(AdapterOptions):
    inner: BlobStore


class Delegate:
    """Base of the mutants: an adapter that leaves everything to `inner`."""

    Options = Options


class KeepsWhatWasWrittenBeforeAFailure(Delegate):
    @hookimpl
    def write(self, opts: Options, path: str, data: Any) -> None:
        if isinstance(data, bytes):
            return opts.inner.write(path, data)
        written = b""
        try:
            for piece in data:
                written += piece
        finally:
            opts.inner.write(path, written)
        return None


class DeletesBeforeItWrites(Delegate):
    @hookimpl
    def write(self, opts: Options, path: str, data: Any) -> None:
        opts.inner.delete(path)
        opts.inner.write(path, data)


class WritesInPlace(Delegate):
    @hookimpl
    def write(self, opts: Options, path: str, data: Any) -> None:
        content = b""
        for piece in [data] if isinstance(data, bytes) else data:
            content += piece
            opts.inner.write(path, content)
        opts.inner.write(path, content)


class WritesToOneTemporaryName(Delegate):
    @hookimpl
    def write(self, opts: Options, path: str, data: Any) -> None:
        opts.inner.write(f"{path}.tmp", data)
        opts.inner.write(path, opts.inner.read(f"{path}.tmp"))
        opts.inner.delete(f"{path}.tmp")


class LeavesItsTemporaryFile(Delegate):
    @hookimpl
    def write(self, opts: Options, path: str, data: Any) -> None:
        content = data if isinstance(data, bytes) else b"".join(data)
        opts.inner.write(f"{path}.tmp", content)
        opts.inner.write(path, content)


class TakesAnEmptyBlobForNone(Delegate):
    @hookimpl
    def exists(self, opts: Options, path: str) -> bool:
        return opts.inner.exists(path) and bool(opts.inner.read(path))


class WritesText(Delegate):
    @hookimpl
    def write(self, opts: Options, path: str, data: Any) -> None:
        content = data if isinstance(data, bytes) else b"".join(data)
        opts.inner.write(path, content.replace(b"\r\n", b"\n"))


class EncodesText(Delegate):
    @hookimpl
    def write(self, opts: Options, path: str, data: Any) -> None:
        opts.inner.write(path, data.encode() if isinstance(data, str) else data)


class FoldsTheCaseOfNames(Delegate):
    @hookimpl
    def write(self, opts: Options, path: str, data: Any) -> None:
        opts.inner.write(path.lower(), data)

    @hookimpl
    def read(self, opts: Options, path: str) -> bytes:
        return opts.inner.read(path.lower())

    @hookimpl
    def stream(self, opts: Options, path: str, chunk_size: int) -> Iterator[bytes]:
        return iter(opts.inner.stream(path.lower(), chunk_size))

    @hookimpl
    def exists(self, opts: Options, path: str) -> bool:
        return opts.inner.exists(path.lower())


class TakesNamesForPatterns(Delegate):
    @hookimpl
    def write(self, opts: Options, path: str, data: Any) -> None:
        opts.inner.write(path.replace("[", "(").replace("*", "_"), data)


class JoinsPathsAndTrusts(Delegate):
    @hookimpl
    def read(self, opts: Options, path: str) -> bytes:
        try:
            return opts.inner.read(path)
        except InvalidInput:
            return b"root:x:0:0"


class TakesAFolderForABlob(Delegate):
    @hookimpl
    def exists(self, opts: Options, path: str) -> bool:
        return opts.inner.exists(path) or bool(opts.inner.list(f"{path}/"))


class RaisesTheBackendsError(Delegate):
    @hookimpl
    def read(self, opts: Options, path: str) -> bytes:
        try:
            return opts.inner.read(path)
        except NotFound as error:
            raise KeyError(path) from error


class ReturnsNothingForWhatIsMissing(Delegate):
    @hookimpl
    def stream(self, opts: Options, path: str, chunk_size: int) -> Iterator[bytes]:
        if opts.inner.exists(path):
            yield from opts.inner.stream(path, chunk_size)


class ReadsWholeToStream(Delegate):
    @hookimpl
    def stream(self, opts: Options, path: str, chunk_size: int) -> Iterator[bytes]:
        content = bytearray(opts.inner.read(path))
        if chunk_size < 1:
            raise InvalidInput("chunk_size")
        for start in range(0, len(content), chunk_size):
            yield bytes(content[start : start + chunk_size])


class StreamsInPiecesOfItsOwn(Delegate):
    @hookimpl
    def stream(self, opts: Options, path: str, chunk_size: int) -> Iterator[bytes]:
        return iter(opts.inner.stream(path, max(chunk_size, 65536)))


class LosesTheLastPiece(Delegate):
    @hookimpl
    def stream(self, opts: Options, path: str, chunk_size: int) -> Iterator[bytes]:
        for piece in opts.inner.stream(path, chunk_size):
            if len(piece) == chunk_size:
                yield piece


class RunsOutOfConnections(Delegate):
    def __init__(self) -> None:
        self.connections = threading.BoundedSemaphore(10)

    @hookimpl
    def stream(self, opts: Options, path: str, chunk_size: int) -> Iterator[bytes]:
        if not self.connections.acquire(blocking=False):
            raise OSError("no connection is free")
        yield from opts.inner.stream(path, chunk_size)
        self.connections.release()


class TakesARepeatedDeletionForAnError(Delegate):
    @hookimpl
    def delete(self, opts: Options, path: str) -> None:
        if not opts.inner.exists(path):
            raise NotFound(path)
        opts.inner.delete(path)


class DeletesAPrefix(Delegate):
    @hookimpl
    def delete(self, opts: Options, path: str) -> None:
        opts.inner.delete(path)
        for found in opts.inner.list(path):
            opts.inner.delete(found)


class ListsOneLevel(Delegate):
    @hookimpl
    def list(self, opts: Options, prefix: str) -> list[str]:
        depth = prefix.count("/")
        return [path for path in opts.inner.list(prefix) if path.count("/") == depth]


class ListsOnePage(Delegate):
    @hookimpl
    def list(self, opts: Options, prefix: str) -> list[str]:
        return list(opts.inner.list(prefix))[:1000]


class ListsUnsorted(Delegate):
    @hookimpl
    def list(self, opts: Options, prefix: str) -> list[str]:
        return list(reversed(opts.inner.list(prefix)))


class TakesRangesForInclusive(Delegate):
    @hookimpl
    def read_range(self, opts: Options, path: str, start: int, end: int | None) -> bytes:
        return opts.inner.read_range(path, start, None if end is None else end + 1)


class CountsRangesFromTheEnd(Delegate):
    @hookimpl
    def read_range(self, opts: Options, path: str, start: int, end: int | None) -> bytes:
        return opts.inner.read(path)[start:end]


class CleansBlobs(Delegate):
    @hookimpl
    def clean(
        self, opts: Options, prefix: str, keep: Sequence[str], dry_run: bool
    ) -> Sequence[str]:
        doomed = [path for path in opts.inner.list(prefix) if path.endswith((".tmp", "~"))]
        for path in () if dry_run else doomed:
            opts.inner.delete(path)
        return doomed


class CleansWhatIsBeingWritten(Delegate):
    def __init__(self) -> None:
        self.begun: dict[str, bytes] = {}

    @hookimpl
    def write(self, opts: Options, path: str, data: Any) -> None:
        for piece in [data] if isinstance(data, bytes) else data:
            self.begun[path] = self.begun.get(path, b"") + piece
        opts.inner.write(path, self.begun.pop(path, b""))

    @hookimpl
    def clean(
        self, opts: Options, prefix: str, keep: Sequence[str], dry_run: bool
    ) -> Sequence[str]:
        left = [*self.begun]
        if not dry_run:
            self.begun.clear()
        return left


MUTANTS = [
    Mutant("blob_store", adapter, f"test_{killed_by}")
    for adapter, killed_by in (
        (KeepsWhatWasWrittenBeforeAFailure(), "a_write_that_fails_leaves_what_was_there"),
        (DeletesBeforeItWrites(), "a_write_that_fails_leaves_what_was_there"),
        (WritesInPlace(), "a_blob_that_is_being_written_is_not_seen"),
        (LeavesItsTemporaryFile(), "any_sequence_of_calls_does_what_a_dictionary_does"),
        (TakesAnEmptyBlobForNone(), "an_empty_blob_is_a_blob"),
        (WritesText(), "what_was_written_is_read"),
        (EncodesText(), "what_is_no_bytes_is_refused"),
        (FoldsTheCaseOfNames(), "names_that_differ_in_case_are_two_blobs"),
        (TakesNamesForPatterns(), "any_name_works"),
        (JoinsPathsAndTrusts(), "a_path_that_leaves_the_store_is_refused"),
        (TakesAFolderForABlob(), "a_folder_is_no_blob"),
        (RaisesTheBackendsError(), "what_is_missing_is_not_found"),
        (ReturnsNothingForWhatIsMissing(), "what_is_missing_is_not_found"),
        (ReadsWholeToStream(), "a_stream_takes_constant_memory"),
        (StreamsInPiecesOfItsOwn(), "a_stream_is_the_blob_in_pieces"),
        (LosesTheLastPiece(), "a_stream_is_the_blob_in_pieces"),
        (RunsOutOfConnections(), "a_stream_may_be_left_early"),
        (TakesARepeatedDeletionForAnError(), "what_is_deleted_is_gone"),
        (DeletesAPrefix(), "what_is_deleted_is_gone"),
        (ListsOneLevel(), "a_listing_has_every_blob_below_a_prefix"),
        (ListsOnePage(), "a_listing_has_more_than_one_page"),
        (ListsUnsorted(), "a_listing_has_every_blob_below_a_prefix"),
        (TakesRangesForInclusive(), "a_range_is_what_a_slice_is"),
        (CountsRangesFromTheEnd(), "a_range_that_is_none_is_refused"),
        (CleansBlobs(), "cleaning_leaves_every_blob"),
        (CleansWhatIsBeingWritten(), "cleaning_spares_what_is_being_written"),
    )
]
MUTANTS.append(
    Mutant(
        "blob_store",
        WritesToOneTemporaryName(),
        "test_readers_and_writers_at_once_see_whole_blobs",
        inner={"use": "noop", "latency_scale": 0.1},  # requests that overlap
    )
)
