"""What the blob store promises, on local disk, in memory, and on a file system that renames."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import tracemalloc
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from pathlib import Path
from types import FrameType
from typing import Any

import crucible_adapter_fsspec.blob_store as blobs
import crucible_adapter_fsspec.local as local_module
import pytest
from crucible_adapter_fsspec.local import LocalFolder
from crucible_adapter_fsspec.names import is_temporary, temporary_name
from crucible_adapter_fsspec.remote import RemoteFolder
from crucible_kitchen import (
    AdapterError,
    BlobStore,
    InvalidInput,
    Kitchen,
    NotFound,
    Unauthorized,
    Unavailable,
)
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from restrictions import let_others_reach, not_root

fork = pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")

ODD_NAMES = [
    "with space/and more",
    "dots...v1.2.tar.gz",
    ".hidden",
    "ünïcödé/日本語/🦜",
    "a#b?c=d&e%2F%41",
    "[1]*?{a,b}",
    "back\\slash" if os.name != "nt" else "plain",
    "colon::colon://x".replace("//", "/"),
    "~/home",
    "$HOME",
    "-rf",
    "new\nline",
    "x" * 200,
]


def store_at(url: object, **options: Any) -> BlobStore:
    return Kitchen(adapters={"blob_store": {"use": blobs, "url": str(url), **options}}).blob_store


def options_of(kind: str, folder: Path) -> dict[str, Any]:
    """The store's root: a folder, a place in memory, or the folder seen as a remote file system
    that renames.
    """
    if kind == "local":
        return {"url": str(folder)}
    if kind == "memory":
        return {"url": f"memory://{uuid.uuid4().hex}"}
    inner = {"path": str(folder.parent), "target_protocol": "file"}
    return {"url": f"dir://{folder.name}", "storage_options": inner}


@pytest.fixture(params=["local", "memory", "renaming"])
def options(request: pytest.FixtureRequest, root: Path) -> dict[str, Any]:
    return options_of(request.param, root)


@pytest.fixture
def store(options: dict[str, Any]) -> BlobStore:
    return store_at(**options)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "root"


@pytest.fixture
def local(root: Path) -> BlobStore:
    return store_at(root)


def files_of(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


# --- reading and writing ---


def as_bytes(content: bytes) -> Any:
    return content


def as_pieces(content: bytes) -> Any:
    return (content[i : i + 7] for i in range(0, len(content), 7))


def as_file(content: bytes) -> Any:
    return io.BytesIO(content)


FORMS = [as_bytes, as_pieces, as_file, bytearray, memoryview]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("content", [b"", b"hello", bytes(range(256)) * 100])
def test_what_was_written_is_read(
    store: BlobStore, form: Callable[[bytes], Any], content: bytes
) -> None:
    store.write("run-1/blob", form(content))
    assert store.read("run-1/blob") == content
    assert b"".join(store.stream("run-1/blob", 1000)) == content
    assert store.exists("run-1/blob")


@pytest.mark.parametrize("name", ODD_NAMES)
def test_odd_names_are_names_like_others(store: BlobStore, name: str) -> None:
    store.write("other", b"other")
    store.write(name, b"content")
    assert store.read(name) == b"content"
    assert list(store.list()) == sorted([name, "other"])
    assert list(store.list(name)) == [name]
    store.delete(name)
    assert list(store.list()) == ["other"]


def test_a_write_replaces(store: BlobStore) -> None:
    store.write("blob", b"a long old content")
    store.write("blob", iter([b"new"]))
    assert store.read("blob") == b"new"


@pytest.mark.parametrize("missing", ["blob", "a/b/c", "folder", "whole/below"])
def test_what_is_missing_is_not_found_by_its_name(store: BlobStore, missing: str) -> None:
    store.write("folder/blob", b"")
    store.write("whole", b"")
    for read in (
        store.read,
        lambda path: list(store.stream(path)),
        lambda p: store.read_range(p, 0),
    ):
        with pytest.raises(NotFound, match=missing):
            read(missing)
    assert not store.exists(missing)


def test_chunks_are_as_large_as_asked_for(store: BlobStore) -> None:
    store.write("blob", b"0123456789")
    assert list(store.stream("blob", 4)) == [b"0123", b"4567", b"89"]
    assert list(store.stream("blob", 10)) == [b"0123456789"]
    with pytest.raises(InvalidInput, match="chunk_size"):
        store.stream("blob", 0)


def test_two_streams_of_a_blob_do_not_disturb_each_other(store: BlobStore) -> None:
    store.write("blob", b"0123456789")
    first, second = store.stream("blob", 2), store.stream("blob", 3)
    pieces = [next(first), next(second), next(first), next(second)]
    first.close()
    second.close()
    assert pieces == [b"01", b"012", b"23", b"345"]


def test_a_stream_continues_with_the_content_it_began_with(store: BlobStore) -> None:
    store.write("blob", b"old" * 100_000)
    stream = store.stream("blob", 1000)
    first = next(stream)
    store.write("blob", b"new" * 100_000)
    assert first + b"".join(stream) == b"old" * 100_000


@pytest.mark.parametrize(
    ("start", "end"), [(0, None), (2, 5), (5, 2), (0, 0), (9, 99), (10, None), (99, None), (0, 99)]
)
def test_a_range_is_clamped_as_a_slice_is(store: BlobStore, start: int, end: int | None) -> None:
    store.write("blob", b"0123456789")
    assert store.read_range("blob", start, end) == b"0123456789"[start:end]


def test_what_one_read_of_the_system_cuts_short_is_read_to_its_end(
    local: BlobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Short(io.FileIO):
        def read(self, size: int | None = -1, /) -> bytes:
            return super().read(size if size is None else min(size, 3))

    local.write("blob", b"0123456789")
    monkeypatch.setattr(local_module, "FileIO", Short)
    assert local.read_range("blob", 1, 9) == b"12345678"
    assert local.read_range("blob", 1, 10**12) == b"123456789"
    assert local.read("blob") == b"0123456789"
    assert list(local.stream("blob", 8)) == [b"01234567", b"89"]


def test_a_range_far_beyond_the_end_asks_for_no_memory(
    local: BlobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []

    class Noted(io.FileIO):
        def read(self, size: int | None = -1, /) -> bytes:
            asked.append(size or 0)
            return super().read(size)

    local.write("blob", b"0123456789")
    monkeypatch.setattr(local_module, "FileIO", Noted)
    assert local.read_range("blob", 8, 10**12) == b"89"
    assert max(asked) == 2


@pytest.mark.parametrize(("start", "end"), [(-1, None), (0, -1)])
def test_a_negative_range_is_refused(store: BlobStore, start: int, end: int | None) -> None:
    store.write("blob", b"0123456789")
    with pytest.raises(InvalidInput, match="negative"):
        store.read_range("blob", start, end)


def test_a_prefix_is_text_and_not_a_folder(store: BlobStore) -> None:
    for path in ("run-1/a", "run-1/b/c", "run-10/a", "run", "other"):
        store.write(path, b"")
    assert list(store.list("run-1")) == ["run-1/a", "run-1/b/c", "run-10/a"]
    assert list(store.list("run-1/")) == ["run-1/a", "run-1/b/c"]
    assert list(store.list("run-1/b")) == ["run-1/b/c"]
    assert list(store.list("run-1/b/c/d")) == []
    assert list(store.list("nothing/here")) == []
    assert list(store.list("*")) == []
    assert len(store.list()) == 5


def test_files_that_no_path_can_name_are_not_listed(store: BlobStore, root: Path) -> None:
    store.write("blob", b"")
    if root.exists():
        (root / UNFINISHED).touch()
    assert list(store.list()) == ["blob"]


def test_an_empty_store_lists_nothing(store: BlobStore) -> None:
    assert list(store.list()) == []
    assert list(store.list("a/b")) == []


def test_a_listing_is_never_stale(store: BlobStore, options: dict[str, Any]) -> None:
    other = store_at(**options)
    for number in range(3):
        store.write(f"folder/{number}", b"")
        assert len(other.list("folder/")) == number + 1
    store.delete("folder/0")
    assert not other.exists("folder/0")
    assert list(other.list()) == ["folder/1", "folder/2"]


def test_deleting_twice_is_fine(store: BlobStore) -> None:
    store.write("a/b", b"")
    store.delete("a/b")
    store.delete("a/b")
    store.delete("a")
    assert list(store.list()) == []


# --- paths ---


def test_a_temporary_name_is_one_that_no_blob_may_have() -> None:
    assert is_temporary(temporary_name())
    assert is_temporary(UNFINISHED)
    assert temporary_name() != temporary_name()


UNFINISHED = f".crucible-{'0' * 32}.tmp"
BAD_PATHS = ["", "/", "/etc/passwd", "..", "../x", "a/../../x", "a/..", "a//b", "a/", "./a", "a\0b"]


@pytest.mark.parametrize("path", [*BAD_PATHS, "\ud800", UNFINISHED, f"a/{UNFINISHED}/b"])
def test_a_path_that_leaves_the_root_or_is_not_a_name_is_refused(
    store: BlobStore, tmp_path: Path, path: str
) -> None:
    for call in (
        store.read,
        lambda path: next(store.stream(path)),
        store.exists,
        store.delete,
        lambda path: store.write(path, b""),
        lambda path: store.read_range(path, 0),
    ):
        with pytest.raises(InvalidInput, match="blob path"):
            call(path)
    assert list(tmp_path.rglob("*")) == []


@pytest.mark.parametrize("prefix", ["/", "/etc/", "../", "a/../../", "\0/"])
def test_a_prefix_that_leaves_the_root_lists_nothing(store: BlobStore, prefix: str) -> None:
    store.write("a/b", b"")
    assert list(store.list(prefix)) == []


@pytest.mark.parametrize("then", ["nothing", "a file in place of its folder"])
def test_a_blob_that_is_deleted_while_others_are_listed_is_left_out(
    local: BlobStore, root: Path, monkeypatch: pytest.MonkeyPatch, then: str
) -> None:
    walk = os.walk

    def interrupted(*given: Any, **named: Any) -> Iterator[Any]:
        found = [*walk(*given, **named)]
        local.delete("a/b")
        if then != "nothing":
            (root / "a").write_bytes(b"")
        yield from found

    local.write("a/b", b"")
    local.write("c", b"")
    monkeypatch.setattr(os, "walk", interrupted)
    assert list(local.list()) == ["c"]


def test_a_blob_cannot_be_below_a_blob(store: BlobStore) -> None:
    store.write("a/b", b"blob")
    for path in ("a/b/c", "a/b/c/d", "a"):
        with pytest.raises(InvalidInput, match="blob path"):
            store.write(path, b"")
    assert list(store.list()) == ["a/b"]
    assert store.read("a/b") == b"blob"


def test_a_name_that_was_a_folder_is_free_once_nothing_is_below(local: BlobStore) -> None:
    local.write("a/b/c", b"")
    local.delete("a/b/c")
    local.write("a", b"blob")
    assert local.read("a") == b"blob"


def test_a_failed_write_leaves_no_folder_behind(local: BlobStore, root: Path) -> None:
    with pytest.raises(AdapterError, match="broke off"):
        local.write("a/b/c", breaks_off(b"new"))
    assert list(root.iterdir()) == []


def test_a_name_too_long_for_the_disk_is_refused(local: BlobStore) -> None:
    with pytest.raises(InvalidInput, match="too long"):
        local.write("x" * 300, b"")
    assert list(local.list()) == []


def test_a_link_out_of_the_root_is_refused_and_not_listed(
    local: BlobStore, root: Path, tmp_path: Path
) -> None:
    local.write("blob", b"inside")
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "secret").write_bytes(b"secret")
    (root / "folder").symlink_to(tmp_path / "outside")
    (root / "file").symlink_to(tmp_path / "outside" / "secret")
    (root / "up").symlink_to("..")
    (root / "loop").symlink_to("loop")
    for path in ("folder/secret", "folder/new", "file", "up/outside/secret", "loop", "loop/x"):
        for call in (local.read, local.exists, local.delete, lambda path: local.write(path, b"")):
            with pytest.raises(InvalidInput, match="blob path"):
                call(path)
    assert list(local.list()) == ["blob"]
    assert list(local.list("folder/")) == []
    assert files_of(tmp_path / "outside") == {"secret"}


def test_links_within_the_root_are_followed(local: BlobStore, root: Path) -> None:
    local.write("runs/1/blob", b"content")
    (root / "latest").symlink_to("runs/1")
    (root / "alias").symlink_to("runs/1/blob")
    assert local.read("latest/blob") == b"content"
    assert local.read("alias") == b"content"
    assert list(local.list()) == ["alias", "runs/1/blob"]


def test_a_pipe_is_not_a_blob(local: BlobStore, root: Path) -> None:
    root.mkdir()
    os.mkfifo(root / "pipe")
    with pytest.raises(NotFound):
        local.read("pipe")
    assert list(local.list()) == []


def test_the_root_may_itself_be_a_link(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    store = store_at(tmp_path / "link")
    store.write("a/blob", b"content")
    assert store.read("a/blob") == b"content"
    assert list(store.list("a/")) == ["a/blob"]


def test_a_relative_root_is_a_folder_of_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    store_at("runs").write("blob", b"content")
    assert (tmp_path / "runs" / "blob").read_bytes() == b"content"


# --- calls of the system ---


@pytest.fixture
def looked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The paths that were looked at so far."""
    paths: list[str] = []

    def watched(name: str) -> Any:
        call = getattr(os, name)

        def look(path: Any, *arguments: Any, **named: Any) -> Any:
            paths.append(os.fspath(path))
            return call(path, *arguments, **named)

        return look

    for name in ("stat", "lstat", "scandir", "listdir", "readlink"):
        monkeypatch.setattr(os, name, watched(name))
    return paths


@pytest.mark.skipif(os.name == "nt", reason="which has other links, so that all are resolved")
def test_a_blob_costs_one_look_at_each_part_of_its_path(
    local: BlobStore, root: Path, looked: list[str]
) -> None:
    local.write("a/b/first", b"content")
    parts = [str(root / "a"), str(root / "a" / "b"), str(root / "a" / "b" / "blob")]
    for call in (
        lambda: local.write("a/b/blob", b"content"),
        lambda: local.read("a/b/blob"),
        lambda: local.exists("a/b/blob"),
        lambda: list(local.stream("a/b/blob")),
    ):
        looked.clear()
        call()
        assert looked == parts


def test_a_blob_that_was_replaced_while_it_is_opened_is_read_whole(
    local: BlobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    for new in (b"", b"new", b"a longer new content"):
        local.write("blob", b"content")

        def late(path: str) -> Any:
            Path(path).write_bytes(new)  # noqa: B023
            return io.FileIO(path)

        with monkeypatch.context() as patch:
            patch.setattr(local_module, "FileIO", late)
            assert local.read("blob") == new


# --- all or nothing ---


class Broken(Exception):
    pass


def breaks_off(content: bytes) -> Iterator[bytes]:
    yield content
    raise Broken("the source broke off")


@pytest.mark.parametrize("bad", ["text", [b"bytes", "text"], [1, 2], 7, io.StringIO("text")])
def test_what_is_not_bytes_is_refused_and_changes_nothing(store: BlobStore, bad: Any) -> None:
    store.write("blob", b"old")
    with pytest.raises(InvalidInput, match="bytes"):
        store.write("blob", bad)
    assert store.read("blob") == b"old"
    assert list(store.list()) == ["blob"]


def test_an_error_of_the_source_leaves_the_old_content_and_stays_the_cause(
    store: BlobStore, tmp_path: Path
) -> None:
    store.write("blob", b"old")
    for path in ("blob", "never/written"):
        with pytest.raises(AdapterError, match="broke off") as caught:
            store.write(path, breaks_off(b"new" * 100_000))
        assert isinstance(caught.value.__cause__, Broken)
    assert store.read("blob") == b"old"
    assert list(store.list()) == ["blob"]
    assert files_of(tmp_path) <= {"root/blob"}  # no debris anywhere


def test_a_missing_file_in_the_source_is_not_taken_for_a_missing_blob(store: BlobStore) -> None:
    def source() -> Iterator[bytes]:
        yield Path("/no/such/file").read_bytes()

    with pytest.raises(AdapterError) as caught:
        store.write("blob", source())
    assert not isinstance(caught.value, NotFound)


def test_an_interrupt_leaves_the_old_content_and_passes(store: BlobStore) -> None:
    def source() -> Iterator[bytes]:
        yield b"new"
        raise KeyboardInterrupt

    store.write("blob", b"old")
    with pytest.raises(KeyboardInterrupt):
        store.write("blob", source())
    assert store.read("blob") == b"old"
    assert list(store.list()) == ["blob"]


def test_nothing_is_seen_of_a_blob_while_it_is_written(store: BlobStore) -> None:
    seen = []

    def source() -> Iterator[bytes]:
        for _ in range(3):
            yield b"piece"
            seen.append((list(store.list()), store.exists("blob")))

    store.write("blob", source())
    assert seen == [([], False)] * 3
    assert store.read("blob") == b"piece" * 3


def test_a_disk_that_is_full_leaves_the_old_content(
    local: BlobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(fd: int) -> None:
        raise OSError(28, "No space left on device")

    local.write("blob", b"old")
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(Unavailable, match="No space left"):
        local.write("blob", b"new")
    monkeypatch.undo()
    assert local.read("blob") == b"old"
    assert list(local.list()) == ["blob"]


def test_an_upload_that_breaks_off_publishes_nothing(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fsspec.implementations.dirfs import DirFileSystem

    store = store_at(**options_of("renaming", root))
    store.write("blob", b"old")

    def half(self: DirFileSystem, source: str, path: str) -> None:
        self.pipe_file(path, Path(source).read_bytes()[:5])
        raise ConnectionResetError("reset by peer")

    monkeypatch.setattr(DirFileSystem, "put_file", half)
    with pytest.raises(Unavailable, match="reset by peer") as caught:
        store.write("blob", iter([b"the new content"]))
    assert caught.value.retryable
    assert store.read("blob") == b"old"
    assert files_of(root) == {"blob"}


def test_the_content_is_on_the_disk_before_its_name_and_the_name_before_the_return(
    local: BlobStore, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []
    fsync, replace = os.fsync, os.replace

    def watched_fsync(fd: int) -> None:
        path = Path(os.readlink(f"/proc/self/fd/{fd}"))
        done.append("content" if is_temporary(path.name) else path.name)
        fsync(fd)

    def watched_replace(source: str, target: str) -> None:
        done.append("rename")
        replace(source, target)

    monkeypatch.setattr(os, "fsync", watched_fsync)
    monkeypatch.setattr(os, "replace", watched_replace)
    local.write("new/folder/blob", b"content")
    assert set(done[:3]) == {root.parent.name, "root", "new"}  # new folders need names, too
    assert done[3:] == ["content", "rename", "folder"]


def kill_at_line(number: int) -> None:
    """Kill this process when it comes to the n-th line of the store's code."""
    lines = count(1)

    def trace(frame: FrameType, event: str, _: object) -> Any:
        if "crucible_adapter_fsspec" not in frame.f_code.co_filename:
            return None
        if event == "line" and next(lines) == number:
            os.kill(os.getpid(), signal.SIGKILL)
        return trace

    sys.settrace(trace)


def in_a_fork(work: Callable[[], object]) -> int:
    child = os.fork()
    if child == 0:
        try:
            work()
        finally:
            os._exit(0)
    return child


@fork
@pytest.mark.slow
@pytest.mark.parametrize("kind", ["local", "renaming"])
@pytest.mark.parametrize("old", [None, b"old" * 10_000])
def test_a_kill_at_any_line_leaves_the_old_content_or_the_new(
    kind: str, root: Path, old: bytes | None
) -> None:
    options = options_of(kind, root)
    store = store_at(**options)

    def content() -> bytes | None:
        return store.read("run/blob") if store.exists("run/blob") else None

    new = b"new" * 20_000
    store.write("run/warm up", b"")
    for line in range(1, 400):
        if content() != old:
            store.delete("run/blob") if old is None else store.write("run/blob", old)
        opts = blobs.Options(**options)
        blobs._folder(opts)

        def work(opts: blobs.Options = opts, line: int = line) -> None:
            kill_at_line(line)
            blobs.write(opts, "run/blob", as_pieces_of(new, 20_000))

        _, status = os.waitpid(in_a_fork(work), 0)
        assert content() in (old, new)
        assert set(store.list()) <= {"run/warm up", "run/blob"}
        if os.WIFEXITED(status):
            break
    assert 50 < line < 399
    assert store.read("run/blob") == new
    if kind == "local":
        store_at(root).write("run/other", b"")  # which removes what the killed ones left
        assert files_of(root) == {"run/warm up", "run/blob", "run/other"}


def as_pieces_of(content: bytes, size: int) -> Iterator[bytes]:
    return (content[i : i + size] for i in range(0, len(content), size))


@fork
def test_a_kill_from_outside_while_pieces_are_written_leaves_the_old_content(root: Path) -> None:
    store = store_at(root)
    store.write("blob", b"old")
    for last in range(30):
        reader, writer = os.pipe()

        def work(writer: int = writer) -> None:
            def source() -> Iterator[bytes]:
                for _ in range(1000):
                    yield b"x" * 100_000
                    os.write(writer, b".")

            blobs.write(blobs.Options(url=str(root)), "blob", source())

        child = in_a_fork(work)
        os.close(writer)
        for _ in range(last + 1):
            os.read(reader, 1)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        os.close(reader)
        assert store.read("blob") == b"old"
        assert list(store.list()) == ["blob"]
    assert len(files_of(root)) <= 2  # each writer removed what the one before had left


def test_a_writer_at_work_is_not_taken_for_a_killed_one(root: Path) -> None:
    def source() -> Iterator[bytes]:
        yield b"first "
        store_at(root).write("other", b"")  # another process's first write to the folder
        yield b"second"

    store_at(root).write("blob", source())
    assert store_at(root).read("blob") == b"first second"


def test_a_writer_about_to_rename_is_not_taken_for_a_killed_one(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    replace = os.replace

    def late_replace(source: str, target: str) -> None:
        monkeypatch.undo()
        store_at(root).write("other", b"")  # another process's first write to the folder
        replace(source, target)

    monkeypatch.setattr(os, "replace", late_replace)
    store_at(root).write("blob", b"content")
    assert store_at(root).read("blob") == b"content"


def test_two_writers_at_once_leave_the_content_of_one(store: BlobStore) -> None:
    contents = [bytes([65 + n]) * 50_000 for n in range(4)]

    def write(content: bytes) -> None:
        for _ in range(10):
            store.write("blob", as_pieces_of(content, 10_000))
            assert store.read("blob") in contents

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(write, contents))
    assert list(store.list()) == ["blob"]


def test_writing_and_deleting_in_one_folder_at_once_never_fails(local: BlobStore) -> None:
    def work(number: int) -> None:
        for _ in range(100):
            local.write(f"folder/below/{number}", b"")
            local.delete(f"folder/below/{number}")

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(4)))
    assert list(local.list()) == []


# --- memory, processes, settings ---


@pytest.mark.parametrize("kind", ["local", "renaming"])
def test_streaming_takes_constant_memory_in_both_directions(kind: str, root: Path) -> None:
    store = store_at(**options_of(kind, root))
    piece = bytes(1 << 20)
    store.write("warm up", b"")
    tracemalloc.start()
    try:
        store.write("blob", (piece for _ in range(64)))
        with store.stream("blob") as stream:
            size = sum(map(len, stream))
        with (root / "blob").open("rb") as file:
            store.write("copy", file)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert size == 64 << 20
    assert peak < 16 << 20


@pytest.mark.parametrize("kind", ["local", "memory", "renaming"])
def test_leaving_a_stream_early_closes_the_file(kind: str, root: Path) -> None:
    store = store_at(**options_of(kind, root))
    store.write("blob", bytes(1000))
    before = len(os.listdir("/proc/self/fd"))
    with store.stream("blob", 10) as stream:
        next(stream)
    assert len(os.listdir("/proc/self/fd")) == before


@fork
def test_a_forked_process_opens_a_file_system_of_its_own(tmp_path: Path) -> None:
    opts = blobs.Options(**options_of("renaming", tmp_path / "root"))
    blobs.write(opts, "blob", b"old")
    mine = blobs._folder(opts)
    assert isinstance(mine, RemoteFolder)
    child = os.fork()
    if child == 0:
        status = 1
        try:
            theirs = blobs._folder(opts)
            assert isinstance(theirs, RemoteFolder)
            blobs.write(opts, "blob", b"new")
            status = int(theirs._fs is mine._fs)
        finally:
            os._exit(status)
    assert os.waitpid(child, 0)[1] == 0
    assert blobs.read(opts, "blob") == b"new"


def test_each_kitchen_has_a_file_system_of_its_own_until_it_is_closed(tmp_path: Path) -> None:
    a, b = (blobs.Options(**options_of("renaming", tmp_path)) for _ in range(2))
    first, second = blobs._folder(a), blobs._folder(b)
    assert isinstance(first, RemoteFolder)
    assert isinstance(second, RemoteFolder)
    assert first._fs is not second._fs
    blobs.close(a)
    blobs.close(a)
    assert blobs._folder(a) is not first


def test_storage_options_are_handed_over_and_never_shown(tmp_path: Path) -> None:
    store = store_at(
        f"file://{tmp_path}", storage_options={"use_listings_cache": True, "key": "hush"}
    )
    store.write("blob", b"")
    assert isinstance(blobs._folder(store.options), LocalFolder)  # type: ignore[arg-type]
    assert "hush" not in repr(store.options) + repr(store.describe())


@pytest.mark.parametrize("url", ["nosuch://bucket", "foo::bar://x"])
def test_an_unknown_protocol_is_refused_by_its_url(url: str) -> None:
    with pytest.raises(InvalidInput, match=url):
        store_at(url).read("blob")


def test_a_folder_that_may_not_be_written_is_unauthorized(local: BlobStore, root: Path) -> None:
    local.write("folder/blob", b"old")
    (root / "folder").chmod(0o500)
    root.parent.chmod(0o700)
    os.chown(root.parent, os.geteuid(), -1)
    with not_root():
        for call in (lambda: local.write("folder/blob", b"new"), lambda: local.read("folder/blob")):
            with pytest.raises(AdapterError):
                call()
        with pytest.raises(Unauthorized, match=r"folder/blob"):
            local.write("folder/blob", b"new")
    assert local.read("folder/blob") == b"old"


def test_a_ping_is_answered_where_the_root_is_or_can_be_made_and_changes_nothing(
    store: BlobStore, root: Path
) -> None:
    store.ping()
    assert not root.exists()
    store.write("blob", b"")
    store.ping()
    assert list(store.list()) == ["blob"]


def test_a_ping_to_a_root_that_may_not_be_made_is_unauthorized(root: Path) -> None:
    let_others_reach(root.parent)
    root.parent.chmod(0o555)
    with not_root(), pytest.raises(Unauthorized, match="Permission denied"):
        store_at(root / "below").ping()
    root.parent.chmod(0o755)


def test_a_ping_to_a_root_below_a_file_is_refused(root: Path) -> None:
    root.touch()
    with pytest.raises(InvalidInput, match="is a file"):
        store_at(root / "below").ping()


def test_importing_the_adapter_does_not_import_fsspec() -> None:
    program = "import crucible_adapter_fsspec.blob_store, sys; print('fsspec' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    assert found.stdout.strip() == b"False"


# --- any sequence of calls, against a dictionary ---

part = st.sampled_from(["a", "b", "c d", "é", "x.y", "#?", "%41", "[1]*"])
path = st.lists(part, min_size=1, max_size=3).map("/".join)


class BlobMachine(RuleBasedStateMachine):
    """The store does what a dictionary does, in which no key is below another."""

    kind: str
    folder: Path

    def __init__(self) -> None:
        super().__init__()
        self.store = store_at(**options_of(self.kind, self.folder / uuid.uuid4().hex))
        self.model: dict[str, bytes] = {}
        self.folders: set[str] = set()

    def fits(self, path: str) -> bool:
        above = {path.rsplit("/", n)[0] for n in range(1, path.count("/") + 1)}
        return not above & self.model.keys() and path not in self.folders

    def note_folders(self) -> None:
        below = [key.split("/") for key in self.model]
        self.folders = {"/".join(parts[:n]) for parts in below for n in range(1, len(parts))}

    @rule(path=path, content=st.binary(max_size=50), form=st.sampled_from(FORMS))
    def write(self, path: str, content: bytes, form: Callable[[bytes], Any]) -> None:
        if self.fits(path):
            self.store.write(path, form(content))
            self.model[path] = content
            self.note_folders()
        else:
            with pytest.raises(InvalidInput):
                self.store.write(path, form(content))

    @rule(path=path)
    def fail_to_write(self, path: str) -> None:
        with pytest.raises(AdapterError):
            self.store.write(path, breaks_off(b"new"))

    @rule(path=path)
    def delete(self, path: str) -> None:
        self.store.delete(path)
        self.model.pop(path, None)
        self.note_folders()

    @rule(path=path, start=st.integers(0, 60), end=st.none() | st.integers(0, 60))
    def read(self, path: str, start: int, end: int | None) -> None:
        assert self.store.exists(path) == (path in self.model)
        if path in self.model:
            assert self.store.read(path) == self.model[path]
            assert self.store.read_range(path, start, end) == self.model[path][start:end]
        else:
            with pytest.raises(NotFound):
                self.store.read(path)

    @rule(path=path, length=st.integers(0, 10))
    def list(self, path: str, length: int) -> None:
        prefix = path[:length]
        found = [key for key in sorted(self.model) if key.startswith(prefix)]
        assert [*self.store.list(prefix)] == found

    @invariant()
    def every_blob_is_there(self) -> None:
        assert [*self.store.list()] == sorted(self.model)


class RenamingMachine(BlobMachine):
    def note_folders(self) -> None:
        """An fsspec file system keeps a folder when its last blob goes, or a write fails."""
        before = self.folders
        super().note_folders()
        self.folders |= before

    @rule(path=path)
    def fail_to_write(self, path: str) -> None:
        with pytest.raises(AdapterError):
            self.store.write(path, breaks_off(b"new"))


@pytest.mark.parametrize("kind", ["local", "memory", "renaming"])
def test_any_sequence_of_calls_does_what_a_dictionary_does(kind: str, tmp_path: Path) -> None:
    base = RenamingMachine if kind == "renaming" else BlobMachine
    machine: Any = type(kind, (base,), {"kind": kind, "folder": tmp_path})
    machine.TestCase.settings = settings(max_examples=30, stateful_step_count=25, deadline=None)
    machine.TestCase().runTest()
