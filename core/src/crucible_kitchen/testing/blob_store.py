"""What a blob store promises."""

from __future__ import annotations

import contextlib
import io
import threading
import tracemalloc
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from ..errors import AdapterError, InvalidInput, NotFound, Unavailable
from ..ports import BlobStore
from .conformance import Conformance, needs, since, unless_synthetic

MIB = 1 << 20


class BlobStoreConformance(Conformance):
    """Tests of a blob store. Override the fixture `blob_store`, and `reopen` and `stored` if
    you can. Everything is written below a folder of its own, and deleted where that is supported.
    """

    port = BlobStore
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
    def blob_store(self) -> Any:
        """The adapter, bound. Required: `bound("blob_store", <name or module>, ...)`."""
        raise NotImplementedError(
            "give the fixture `blob_store`, which yields the adapter to be tested; "
            "crucible_kitchen.testing.bound makes one"
        )

    @pytest.fixture
    def reopen(self) -> Callable[[], contextlib.AbstractContextManager[BlobStore]] | None:
        """A function that binds the adapter once more, under equal options, as another process
        would. Optional.
        """
        return None

    @pytest.fixture
    def stored(self) -> Callable[[str], bytes | None] | None:
        """A function that looks up a path around the adapter, None where there is nothing.
        Optional: with it the kit does not have to believe the adapter's own `read`.
        """
        return None

    @pytest.fixture
    def folder(self, blob_store: BlobStore) -> Iterator[str]:
        """A folder that no other test writes to."""
        name = f"conformance-{uuid.uuid4().hex}"
        yield name
        if blob_store.supports("list") and blob_store.supports("delete"):
            with ThreadPoolExecutor(8) as pool:
                list(pool.map(blob_store.delete, blob_store.list(f"{name}/")))

    # --- what goes in comes out ---

    def test_what_was_written_is_read(self, blob_store: BlobStore, folder: str) -> None:
        """`read` returns the bytes that `write` was given, all 256 of them, in order.

        Usually broken by a text mode, which changes line ends and refuses what is no UTF-8.
        """
        content = bytes(range(256)) * 5 + b"\r\n\n\r\0"
        blob_store.write(f"{folder}/blob", content)
        assert blob_store.read(f"{folder}/blob") == content

    def test_what_was_written_is_stored(
        self,
        blob_store: BlobStore,
        folder: str,
        stored: Callable[[str], bytes | None] | None,
    ) -> None:
        """When `write` returns, the backend has the blob under its path, and nothing beside.

        Usually broken by a write that is still in a buffer, or under a temporary name.
        """
        if stored is None:
            pytest.skip("the fixture `stored` is not given")
        blob_store.write(f"{folder}/blob", b"content")
        assert stored(f"{folder}/blob") == b"content"

    @unless_synthetic
    def test_another_process_reads_it(
        self,
        blob_store: BlobStore,
        folder: str,
        reopen: Callable[[], contextlib.AbstractContextManager[BlobStore]] | None,
    ) -> None:
        """A blob is there for whoever opens the store under the same options, at once.

        Usually broken by a cache of listings, which shows the state of earlier.
        """
        if reopen is None:
            pytest.skip("the fixture `reopen` is not given")
        with reopen() as other:
            assert not other.exists(f"{folder}/blob")
            blob_store.write(f"{folder}/blob", b"first")
            assert other.exists(f"{folder}/blob")
            assert other.read(f"{folder}/blob") == b"first"
            blob_store.write(f"{folder}/blob", b"second")
            assert other.read(f"{folder}/blob") == b"second"

    def test_an_empty_blob_is_a_blob(self, blob_store: BlobStore, folder: str) -> None:
        """A blob of no bytes exists, and reads, streams and lists as one.

        Usually broken by `if content:`, and by object stores that take an empty object for a
        folder.
        """
        blob_store.write(f"{folder}/empty", b"")
        assert blob_store.exists(f"{folder}/empty")
        assert blob_store.read(f"{folder}/empty") == b""
        assert b"".join(blob_store.stream(f"{folder}/empty")) == b""

    def test_any_name_works(self, blob_store: BlobStore, folder: str) -> None:
        """Spaces, dots, Unicode and everything that means something to a URL, a shell or a glob
        are letters of a name like any other; two names are two blobs.

        Usually broken by a name that goes into a URL, a pattern or a query unquoted.
        """
        for name in self.names:
            blob_store.write(f"{folder}/{name}", name.encode())
        for name in self.names:
            assert blob_store.exists(f"{folder}/{name}"), name
            assert blob_store.read(f"{folder}/{name}") == name.encode(), name

    def test_names_that_differ_in_case_are_two_blobs(
        self, blob_store: BlobStore, folder: str
    ) -> None:
        """`Name` and `name` are two blobs.

        Usually broken by a file system that folds the case, as those of macOS and Windows do.
        """
        blob_store.write(f"{folder}/name", b"small")
        assert not blob_store.exists(f"{folder}/Name")
        blob_store.write(f"{folder}/Name", b"capital")
        assert blob_store.read(f"{folder}/name") == b"small"

    def test_a_write_replaces(self, blob_store: BlobStore, folder: str) -> None:
        """Writing again replaces the whole content, also by a shorter one.

        Usually broken by opening a file without truncating it.
        """
        blob_store.write(f"{folder}/blob", b"long content")
        blob_store.write(f"{folder}/blob", b"short")
        assert blob_store.read(f"{folder}/blob") == b"short"

    def test_any_source_of_bytes_can_be_written(self, blob_store: BlobStore, folder: str) -> None:
        """`data` may be bytes, an iterable of bytes (empty pieces too), or an open binary file.

        Usually broken by a file that is iterated by lines, or an iterator that is read twice
        because a first attempt failed.
        """
        content = b"a\nb\r\n" * 70_000
        pieces = [content[:1], b"", content[1:300_000], content[300_000:]]
        sources: dict[str, Any] = {
            "bytes": content,
            "list": pieces,
            "generator": (piece for piece in pieces),
            "file": io.BytesIO(content),
            "nothing": iter(()),
        }
        for kind, data in sources.items():
            blob_store.write(f"{folder}/{kind}", data)
        for kind in sources:
            expected = b"" if kind == "nothing" else content
            assert blob_store.read(f"{folder}/{kind}") == expected, kind

    # --- all or nothing ---

    @pytest.mark.parametrize("pieces", [0, 1, 40], ids="after {} pieces".format)
    @pytest.mark.parametrize("old", [None, b"old content"], ids=["new", "replacing"])
    def test_a_write_that_fails_leaves_what_was_there(
        self, blob_store: BlobStore, folder: str, old: bytes | None, pieces: int
    ) -> None:
        """When the data's own iterator raises, the old blob stays, or there is still none; the
        iterator's error is the cause of the one that is raised.

        Usually broken by `with fs.open(path, "wb")`, which publishes what was written so far when
        its body raises (fsspec, on disk and on S3). A truncated checkpoint is found weeks later.
        """
        if old is not None:
            blob_store.write(f"{folder}/blob", old)

        def failing() -> Iterator[bytes]:
            for _ in range(pieces):
                yield b"x" * (MIB // 4)
            raise ValueError("the source of the data failed")

        with pytest.raises(AdapterError) as failure:
            blob_store.write(f"{folder}/blob", failing())
        assert "the source of the data failed" in str(_root(failure.value))
        _holds(blob_store, f"{folder}/blob", old)
        if blob_store.supports("list"):
            listed = [] if old is None else [f"{folder}/blob"]
            assert blob_store.list(f"{folder}/") == listed

    def test_what_is_no_bytes_is_refused(self, blob_store: BlobStore, folder: str) -> None:
        """Text, or a piece of text behind pieces of bytes, is an error, and nothing is stored.

        Usually broken by an implicit encoding, or by finding out when a part was written.
        """
        blob_store.write(f"{folder}/blob", b"old")
        wrong: list[Any] = ["text", [b"bytes", "text"], [b"bytes", 3], 3, None]
        for data in wrong:
            with pytest.raises(AdapterError):
                blob_store.write(f"{folder}/blob", data)
            with pytest.raises(AdapterError):
                blob_store.write(f"{folder}/new", data)
            assert blob_store.read(f"{folder}/blob") == b"old", data
            assert not blob_store.exists(f"{folder}/new"), data

    def test_a_blob_that_is_being_written_is_not_seen(
        self, blob_store: BlobStore, folder: str
    ) -> None:
        """Until a write ends, everyone sees the old blob, or none; a listing neither shows the
        new one nor what it is written to.

        Usually broken by writing in place.
        """
        path = f"{folder}/blob"

        def watched(old: bytes | None) -> Iterator[bytes]:
            for _ in range(3):
                _holds(blob_store, path, old)
                if blob_store.supports("list"):
                    assert blob_store.list(f"{folder}/") == ([] if old is None else [path])
                yield b"x" * 100_000

        blob_store.write(path, watched(None))
        assert blob_store.read(path) == b"x" * 300_000
        blob_store.write(path, b"old")
        blob_store.write(path, watched(b"old"))
        assert blob_store.read(path) == b"x" * 300_000

    def test_readers_and_writers_at_once_see_whole_blobs(
        self, blob_store: BlobStore, folder: str
    ) -> None:
        """Two writers at once leave the content of one; a reader sees one content or another,
        whole, and never nothing once there was something. A stream of a blob that is replaced
        meanwhile may end in `Unavailable`, where the backend keeps no older version.

        Usually broken by a temporary file with a fixed name, or by delete and rename.
        """
        path = f"{folder}/blob"
        contents = [bytes([number]) * (100_000 + number) for number in range(6)]
        blob_store.write(path, contents[0])
        done = threading.Event()

        def write(content: bytes) -> None:
            for _ in range(8):
                blob_store.write(path, iter([content[:50_000], content[50_000:]]))

        def read() -> set[bytes]:
            seen = set()
            while not done.is_set():
                seen.add(blob_store.read(path))
                with contextlib.suppress(Unavailable):
                    seen.add(b"".join(blob_store.stream(path, chunk_size=30_000)))
            return seen

        with ThreadPoolExecutor(8) as pool:
            readers = [pool.submit(read) for _ in range(2)]
            writers = [pool.submit(write, content) for content in contents]
            try:
                for writer in writers:
                    writer.result()
            finally:
                done.set()
            seen = {content for reader in readers for content in reader.result()}
        assert seen <= set(contents)
        assert blob_store.read(path) in contents

    def test_many_threads_write_many_blobs(self, blob_store: BlobStore, folder: str) -> None:
        """Blobs of other paths are not disturbed, in folders that are made at the same moment
        neither.

        Usually broken by a client that is not safe under threads, or a race in making folders.
        """

        def write_and_read(number: int) -> None:
            path = f"{folder}/{number % 4}/{number}"
            blob_store.write(path, str(number).encode())
            assert blob_store.read(path) == str(number).encode()

        with ThreadPoolExecutor(8) as pool:
            list(pool.map(write_and_read, range(64)))
        for number in range(64):
            assert blob_store.read(f"{folder}/{number % 4}/{number}") == str(number).encode()

    # --- what is not there, and what may not be ---

    def test_what_is_missing_is_not_found(self, blob_store: BlobStore, folder: str) -> None:
        """`read` and `stream` of a blob that does not exist raise `NotFound`; `exists` is False.

        Usually broken by the backend's own exception, which callers cannot know.
        """
        blob_store.write(f"{folder}/there", b"content")
        for path in (f"{folder}/missing", f"{folder}/missing/deeper", f"{folder}/ther"):
            assert blob_store.exists(path) is False
            with pytest.raises(NotFound):
                blob_store.read(path)
            with pytest.raises(NotFound):
                list(blob_store.stream(path))

    def test_a_folder_is_no_blob(self, blob_store: BlobStore, folder: str) -> None:
        """`exists` is False for the folder of a blob, and reading it is an error.

        Usually broken by asking the file system whether "something" is there.
        """
        blob_store.write(f"{folder}/sub/blob", b"content")
        for path in (folder, f"{folder}/sub"):
            assert blob_store.exists(path) is False
            with pytest.raises(AdapterError):
                blob_store.read(path)
            with pytest.raises(AdapterError):
                list(blob_store.stream(path))

    @pytest.mark.parametrize(
        "path",
        ["../outside", "sub/../../outside", "/absolute", "..", "", ".", "sub/../../../etc/passwd"],
        ids=repr,
    )
    def test_a_path_that_leaves_the_store_is_refused(
        self, blob_store: BlobStore, path: str
    ) -> None:
        """A path with `..`, an absolute one, and one that names nothing are `InvalidInput`, in
        every callback.

        Usually broken by joining paths and trusting the result: a run id from the network then
        reads and writes any file.
        """
        attempts: dict[str, Callable[[], Any]] = {
            "read": lambda: blob_store.read(path),
            "stream": lambda: list(blob_store.stream(path)),
            "write": lambda: blob_store.write(path, b"content"),
            "exists": lambda: blob_store.exists(path),
            "delete": lambda: blob_store.delete(path),
            "read_range": lambda: blob_store.read_range(path, 0, 1),
        }
        for name, attempt in attempts.items():
            if blob_store.supports(name):
                with pytest.raises(InvalidInput):
                    attempt()

    # --- streams ---

    @pytest.mark.parametrize("chunk_size", [1000, MIB, 10 * MIB])
    def test_a_stream_is_the_blob_in_pieces(
        self, blob_store: BlobStore, folder: str, chunk_size: int
    ) -> None:
        """The pieces add up to the blob; none is empty, none is longer than `chunk_size`.

        Usually broken by the chunks of the transport, whose size is nobody's choice.
        """
        content = bytes(range(251)) * 5000
        blob_store.write(f"{folder}/blob", content)
        pieces = list(blob_store.stream(f"{folder}/blob", chunk_size=chunk_size))
        assert b"".join(pieces) == content
        assert max(map(len, pieces)) <= chunk_size
        assert min(map(len, pieces)) > 0

    def test_a_chunk_size_that_is_none_is_refused(self, blob_store: BlobStore, folder: str) -> None:
        """A `chunk_size` below 1 is `InvalidInput`.

        Usually broken by `read(-1)`, which is the whole file at once.
        """
        blob_store.write(f"{folder}/blob", b"content")
        for size in (0, -1):
            with pytest.raises(InvalidInput):
                list(blob_store.stream(f"{folder}/blob", chunk_size=size))

    def test_a_stream_takes_constant_memory(self, blob_store: BlobStore, folder: str) -> None:
        """A blob of any size is streamed in the memory of a few chunks.

        Usually broken by reading it whole and cutting it up.
        """
        size, chunk = 96 * MIB, 256 << 10
        blob_store.write(f"{folder}/large", (b"\0" * MIB for _ in range(size // MIB)))
        list(blob_store.stream(f"{folder}/large", chunk_size=8 * MIB))  # imports, connections
        tracemalloc.start()
        try:
            total = sum(map(len, blob_store.stream(f"{folder}/large", chunk_size=chunk)))
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert total == size
        assert peak < size // 3, f"streaming {size // MIB} MiB took {peak // MIB} MiB"

    def test_a_stream_may_be_left_early(self, blob_store: BlobStore, folder: str) -> None:
        """Closing a stream before its end frees what it holds: doing it often harms nobody.

        Usually broken by connections that are never given back.
        """
        blob_store.write(f"{folder}/blob", b"x" * (2 * MIB))
        for _ in range(40):
            with blob_store.stream(f"{folder}/blob", chunk_size=1000) as stream:
                assert next(iter(stream)) == b"x" * 1000
        assert len(blob_store.read(f"{folder}/blob")) == 2 * MIB

    # --- optional callbacks ---

    @needs("delete")
    def test_what_is_deleted_is_gone(self, blob_store: BlobStore, folder: str) -> None:
        """After `delete` there is no blob; its neighbours stay; deleting what is not there is fine.

        Usually broken by a backend that calls a repeated deletion an error, so that a deletion
        whose answer was lost cannot be repeated.
        """
        blob_store.write(f"{folder}/blob", b"content")
        blob_store.write(f"{folder}/blob2", b"neighbour")
        blob_store.delete(f"{folder}/blob")
        assert not blob_store.exists(f"{folder}/blob")
        with pytest.raises(NotFound):
            blob_store.read(f"{folder}/blob")
        blob_store.delete(f"{folder}/blob")
        blob_store.delete(f"{folder}/never/there")
        assert blob_store.read(f"{folder}/blob2") == b"neighbour"

    @needs("list")
    def test_a_listing_has_every_blob_below_a_prefix(
        self, blob_store: BlobStore, folder: str
    ) -> None:
        """`list` returns, sorted, the paths that start with the prefix, however deep; the prefix
        need not end where a folder does; folders are not listed.

        Usually broken by a listing that stops at one level, or takes a prefix for a pattern.
        """
        paths = sorted(f"{folder}/{name}" for name in (*self.names, "sub/other", "sub2/x"))
        for path in paths:
            blob_store.write(path, b"content")
        assert blob_store.list(f"{folder}/") == paths
        for prefix in ("sub", "sub/", "sub/folder/na", "with sp", "[br", "missing"):
            expected = [path for path in paths if path.startswith(f"{folder}/{prefix}")]
            assert blob_store.list(f"{folder}/{prefix}") == expected, prefix
        assert set(paths) <= set(blob_store.list())

    @needs("list")
    def test_a_listing_has_more_than_one_page(self, blob_store: BlobStore, folder: str) -> None:
        """All of many blobs are listed.

        Usually broken by a backend that answers in pages of 1,000, of which the first is taken
        for all.
        """
        paths = sorted(f"{folder}/{number}" for number in range(self.more_than_a_page))
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda path: blob_store.write(path, b""), paths))
        assert blob_store.list(f"{folder}/") == paths

    @since("1.2")
    @needs("clean")
    def test_cleaning_leaves_every_blob(self, blob_store: BlobStore, folder: str) -> None:
        """`clean` removes no blob, whatever its name and the prefix.

        Usually broken by a blob that is named as the store's own temporary files are.
        """
        names = (*self.names, "a.tmp", ".a.partial", "a~", ".crucible-a.tmp")
        for name in names:
            blob_store.write(f"{folder}/{name}", b"content")
        for prefix in ("", f"{folder}/"):
            would = blob_store.clean(prefix, dry_run=True)
            assert all(isinstance(name, str) for name in would)
            blob_store.clean(prefix)
            for name in names:
                assert blob_store.read(f"{folder}/{name}") == b"content", name

    @since("1.2")
    @needs("clean")
    def test_cleaning_spares_what_is_being_written(
        self, blob_store: BlobStore, folder: str
    ) -> None:
        """Without a prefix, `clean` removes nothing that somebody is writing at the moment.

        Usually broken by taking every temporary file for a dead process's.
        """

        def pieces() -> Iterator[bytes]:
            yield b"x" * MIB
            blob_store.clean()
            yield b"y"

        blob_store.write(f"{folder}/blob", pieces())
        assert blob_store.read(f"{folder}/blob") == b"x" * MIB + b"y"

    @needs("read_range")
    def test_a_range_is_what_a_slice_is(self, blob_store: BlobStore, folder: str) -> None:
        """`read_range(path, start, end)` is `read(path)[start:end]`, clamped like it.

        Usually broken by HTTP ranges, whose end is inclusive, and which are errors when empty or
        past the end.
        """
        content = bytes(range(256))
        blob_store.write(f"{folder}/blob", content)
        bounds = [0, 1, 100, 255, 256, 257, 10_000]
        for start in bounds:
            for end in [None, *bounds]:
                found = blob_store.read_range(f"{folder}/blob", start, end)
                assert found == content[start:end], (start, end)

    @needs("read_range")
    def test_a_range_that_is_none_is_refused(self, blob_store: BlobStore, folder: str) -> None:
        """A negative bound is `InvalidInput`, a missing blob `NotFound`.

        Usually broken by a bound that means "from the end" to the backend.
        """
        blob_store.write(f"{folder}/blob", b"content")
        for start, end in ((-1, None), (0, -1), (-3, -1)):
            with pytest.raises(InvalidInput):
                blob_store.read_range(f"{folder}/blob", start, end)
        with pytest.raises(NotFound):
            blob_store.read_range(f"{folder}/missing", 0, 1)

    # --- any sequence of calls ---

    def test_any_sequence_of_calls_does_what_a_dictionary_does(
        self, blob_store: BlobStore, folder: str
    ) -> None:
        """Whatever is written, replaced, deleted and listed, in whatever order, the store is at
        every moment what a dictionary of paths would be.

        Usually broken by what one operation leaves behind for another.
        """

        class Machine(RuleBasedStateMachine):
            def __init__(self) -> None:
                super().__init__()
                self.root = f"{folder}/{uuid.uuid4().hex}"
                self.model: dict[str, bytes] = {}

            @rule(path=_paths, content=_contents, whole=st.booleans())
            def write(self, path: str, content: bytes, whole: bool) -> None:
                data = content if whole else iter([content[:2], content[2:]])
                blob_store.write(f"{self.root}/{path}", data)
                self.model[path] = content

            @rule(path=_paths, content=_contents)
            def fail_to_write(self, path: str, content: bytes) -> None:
                def failing() -> Iterator[bytes]:
                    yield content
                    raise ValueError

                with pytest.raises(AdapterError):
                    blob_store.write(f"{self.root}/{path}", failing())

            @rule(path=_paths)
            def delete(self, path: str) -> None:
                if blob_store.supports("delete"):
                    blob_store.delete(f"{self.root}/{path}")
                    self.model.pop(path, None)

            @rule(path=_paths, start=st.integers(0, 6), end=st.none() | st.integers(0, 6))
            def read_range(self, path: str, start: int, end: int | None) -> None:
                if path in self.model and blob_store.supports("read_range"):
                    found = blob_store.read_range(f"{self.root}/{path}", start, end)
                    assert found == self.model[path][start:end]

            @rule(path=_paths)
            def read(self, path: str) -> None:
                _holds(blob_store, f"{self.root}/{path}", self.model.get(path))

            @invariant()
            def lists(self) -> None:
                if blob_store.supports("list"):
                    known = sorted(f"{self.root}/{path}" for path in self.model)
                    assert blob_store.list(f"{self.root}/") == known

        run_state_machine_as_test(
            Machine, settings=self.hypothesis_settings(stateful_step_count=12)
        )

    def test_any_content_under_any_name_comes_back(
        self, blob_store: BlobStore, folder: str
    ) -> None:
        """Any bytes, under any name of printable Unicode, are read as they were written.

        Usually broken by normalising Unicode, or folding the case, of names.
        """

        @self.hypothesis_settings()
        @given(
            name=st.text(st.characters(exclude_categories=("C", "Z")), min_size=1, max_size=20),
            content=st.binary(max_size=2000),
        )
        def check(name: str, content: bytes) -> None:
            path = f"{folder}/_{name.replace('/', '_')}"  # `.` and `..` are no names
            blob_store.write(path, content)
            assert blob_store.read(path) == content
            assert blob_store.exists(path)

        check()


_paths = st.sampled_from(["a", "b", "a.b", "folder/a", "folder/b", "folder/deep er/ü"])
_contents = st.binary(max_size=5)


def _holds(store: BlobStore, path: str, content: bytes | None) -> None:
    """Check that a blob has this content, or does not exist."""
    assert store.exists(path) == (content is not None)
    if content is None:
        with pytest.raises(NotFound):
            store.read(path)
    else:
        assert store.read(path) == content
        assert b"".join(store.stream(path, chunk_size=3)) == content


def _root(error: BaseException) -> BaseException:
    while (cause := error.__cause__) is not None:
        error = cause
    return error
