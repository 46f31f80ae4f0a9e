"""Disks that are full, fail, or may not be written, and what is no file: every way to say it."""

from __future__ import annotations

import errno
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import crucible_adapter_fsspec.blob_store as blobs
import pytest
from crucible_adapter_fsspec.names import temporary_name
from crucible_kitchen import (
    AdapterError,
    BlobStore,
    InvalidInput,
    Kitchen,
    NotFound,
    Unauthorized,
    Unavailable,
)
from restrictions import files_of_at_most, let_others_reach, not_root


def store_at(url: object, **options: Any) -> BlobStore:
    return Kitchen(adapters={"blob_store": {"use": blobs, "url": str(url), **options}}).blob_store


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "root"


@pytest.fixture
def local(root: Path) -> BlobStore:
    return store_at(root)


@pytest.fixture
def renaming(root: Path) -> BlobStore:
    inner = {"path": str(root.parent), "target_protocol": "file"}
    return store_at(f"dir://{root.name}", storage_options=inner)


def files_of(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*")}


# --- full ---


def one_piece(size: int) -> Any:
    return b"x" * size


def pieces(size: int) -> Any:
    return (b"x" * (size // 10) for _ in range(10))


@pytest.mark.parametrize("form", [one_piece, pieces])
@pytest.mark.parametrize(
    ("size", "space"),  # less and more than a buffer holds
    [(10, 0), (10, 5), (10_000, 0), (10_000, 9_000), (3_000_000, 9_000)],
)
def test_a_blob_that_does_not_fit_is_unavailable_and_had_no_effect(
    local: BlobStore, root: Path, form: Any, size: int, space: int
) -> None:
    local.write("run/old", b"old")
    for path in ("run/old", "run/new", "new/folder/blob"):
        with files_of_at_most(space), pytest.raises(Unavailable, match=str(root)) as caught:
            local.write(path, form(size))
        assert caught.value.no_effect
        assert caught.value.retryable
    assert local.read("run/old") == b"old"
    assert files_of(root) == {"run", "run/old"}


def test_a_blob_is_written_once_there_is_space_again(local: BlobStore) -> None:
    with files_of_at_most(10), pytest.raises(Unavailable):
        local.write("blob", b"x" * 100)
    local.write("blob", b"x" * 100)
    assert local.read("blob") == b"x" * 100


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 64 KiB."""
    folder = tmp_path / "small"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("no file system can be mounted here")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_disk_that_is_really_full_is_unavailable_and_keeps_what_it_had(small_disk: Path) -> None:
    store = store_at(small_disk / "blobs")
    store.write("run/old", b"old" * 10_000)
    for data in (b"x" * 60_000, (b"x" * 1000 for _ in range(60))):
        with pytest.raises(Unavailable, match=r"small/blobs: No space left") as caught:
            store.write("run/old", data)
        assert caught.value.no_effect
    assert store.read("run/old") == b"old" * 10_000
    assert files_of(small_disk) == {"blobs", "blobs/run", "blobs/run/old"}
    (small_disk / "rest").write_bytes(b"x" * 32_768)  # to the last block
    with pytest.raises(Unavailable, match=r"cannot write to the folder .*small/blobs: No space"):
        store.ping()
    assert files_of(small_disk) == {"blobs", "blobs/run", "blobs/run/old", "rest"}


# --- what an operating system may say ---

SAID = {
    "ENOSPC": Unavailable,
    "EDQUOT": Unavailable,
    "EFBIG": Unavailable,
    "EIO": Unavailable,
    "EMFILE": Unavailable,
    "ENFILE": Unavailable,
    "ENOMEM": Unavailable,
    "ESTALE": Unavailable,
    "EROFS": Unauthorized,
    "EACCES": Unauthorized,
    "EPERM": Unauthorized,
    "ENOTDIR": InvalidInput,
    "ELOOP": InvalidInput,
    "ENAMETOOLONG": InvalidInput,
    "EINVAL": AdapterError,
}


@pytest.mark.parametrize(("name", "kind"), SAID.items(), ids=list(SAID))
@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_what_the_system_says_of_a_write_is_what_it_is_and_changes_nothing(
    local: BlobStore,
    root: Path,
    monkeypatch: pytest.MonkeyPatch,
    call: str,
    name: str,
    kind: type[AdapterError],
) -> None:
    def failing(*_: object) -> None:
        raise OSError(getattr(errno, name), os.strerror(getattr(errno, name)))

    local.write("blob", b"old")
    with monkeypatch.context() as patch:
        patch.setattr(os, call, failing)
        with pytest.raises(AdapterError, match=f"'blob' in {root}") as caught:
            local.write("blob", b"new")
    assert type(caught.value) is kind
    assert caught.value.no_effect
    assert local.read("blob") == b"old"
    assert files_of(root) == {"blob"}


def test_a_disk_that_fails_after_the_blob_has_its_name_may_have_had_an_effect(
    local: BlobStore, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fsync = os.fsync

    def failing(descriptor: int) -> None:
        if os.path.isdir(f"/proc/self/fd/{descriptor}"):
            raise OSError(errno.EIO, "Input/output error")
        fsync(descriptor)

    local.write("blob", b"old")
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", failing)
        with pytest.raises(Unavailable, match=str(root)) as caught:
            local.write("blob", b"new")
    assert not caught.value.no_effect
    assert local.read("blob") == b"new"


def test_an_error_of_the_source_is_not_taken_for_one_of_the_disk(local: BlobStore) -> None:
    def source() -> Iterator[bytes]:
        yield b"x"
        raise OSError(errno.ENOSPC, "the source's own")

    with pytest.raises(AdapterError, match="the source's own") as caught:
        local.write("blob", source())
    assert not isinstance(caught.value, Unavailable)


# --- what is no file ---


def test_pipes_anywhere_in_the_root_hang_nothing_and_hide_nothing(
    local: BlobStore, root: Path
) -> None:
    local.write("run/blob", b"content")
    pipes = ("pipe", "run/pipe", f"run/{temporary_name()}", temporary_name(), "folder")
    for name in pipes:
        os.mkfifo(root / name)
    began = time.monotonic()
    fresh = store_at(root)  # which has swept nothing yet
    fresh.write("run/other", b"more")
    fresh.write("top", b"more")
    assert list(fresh.list()) == ["run/blob", "run/other", "top"]
    assert fresh.clean("", (), False) == []
    assert fresh.clean("run/", (), False) == []
    for path in ("pipe", "run/pipe"):
        assert not fresh.exists(path)
        for read in (fresh.read, lambda path: list(fresh.stream(path))):
            with pytest.raises(NotFound):
                read(path)
        fresh.delete(path)
    with pytest.raises(InvalidInput, match="folder is not a folder"):
        fresh.write("folder/blob", b"")
    fresh.ping()
    assert files_of(root) >= set(pipes)  # of another program
    fresh.write("pipe", b"a blob now")
    assert fresh.read("pipe") == b"a blob now"
    assert time.monotonic() - began < 10


def test_pipes_hang_nothing_on_another_file_system_either(renaming: BlobStore, root: Path) -> None:
    renaming.write("run/blob", b"content")
    os.mkfifo(root / "run" / "pipe")
    assert list(renaming.list()) == ["run/blob"]
    assert not renaming.exists("run/pipe")
    with pytest.raises(NotFound):
        renaming.read("run/pipe")


def test_a_root_that_can_be_no_folder_is_refused_by_every_call(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "loop").symlink_to("loop")
    for below in ("file", "loop", "x" * 300):
        store = store_at(tmp_path / below)
        for call in (store.ping, lambda: store.write("blob", b"")):  # noqa: B023
            with pytest.raises(InvalidInput, match=below):
                call()
    assert files_of(tmp_path) == {"file", "loop"}


def test_a_folder_that_may_not_be_listed_is_not_an_empty_one(local: BlobStore, root: Path) -> None:
    let_others_reach(root)
    local.write("run/blob", b"content")
    (root / "run").chmod(0)
    with not_root():
        with pytest.raises(Unauthorized, match=f"cannot list the blobs in {root}"):
            local.list()
        with pytest.raises(Unauthorized, match="run/blob"):
            local.read("run/blob")
    (root / "run").chmod(0o755)


# --- other file systems ---


@pytest.mark.parametrize(("name", "kind"), SAID.items(), ids=list(SAID))
def test_what_another_file_system_says_of_a_write_is_what_it_is_and_changes_nothing(
    renaming: BlobStore,
    root: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    kind: type[AdapterError],
) -> None:
    from fsspec.implementations.dirfs import DirFileSystem

    def failing(*_: object, **__: object) -> None:
        raise OSError(getattr(errno, name), os.strerror(getattr(errno, name)))

    renaming.write("blob", b"old")
    with monkeypatch.context() as patch:
        patch.setattr(DirFileSystem, "pipe_file", failing)
        patch.setattr(DirFileSystem, "put_file", failing)
        for data in (b"new", iter([b"new"])):
            with pytest.raises(AdapterError, match="'blob'") as caught:
                renaming.write("blob", data)
            assert type(caught.value) is kind
            assert caught.value.no_effect
    assert renaming.read("blob") == b"old"
    assert files_of(root) == {"blob"}


def test_a_full_disk_under_what_waits_for_its_upload_is_unavailable_and_named(
    renaming: BlobStore, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import tempfile

    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    renaming.write("blob", b"old")
    for size in (10, 100_000):
        with files_of_at_most(5), pytest.raises(Unavailable, match="temporary") as caught:
            renaming.write("blob", iter([b"x" * size]))
        assert caught.value.no_effect
    assert renaming.read("blob") == b"old"
    assert files_of(tmp_path / "temporary") == set()
