"""What killed writers leave is found and removed; what is being written is not."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import crucible_adapter_fsspec.blob_store as blobs
import crucible_adapter_fsspec.remote as remote
import pytest
import s3fs
from crucible_adapter_fsspec.names import is_temporary, temporary_name
from crucible_adapter_fsspec.remote import RemoteFolder
from crucible_kitchen import BlobStore, CrucibleWarning, Kitchen
from fsspec.implementations.local import LocalFileSystem

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning"),  # os.fork
    pytest.mark.filterwarnings("ignore:datetime.datetime.utcnow:DeprecationWarning"),  # botocore
    pytest.mark.filterwarnings("ignore::ResourceWarning"),  # moto's own sockets
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


def bound(url: object, **options: Any) -> BlobStore:
    return Kitchen(adapters={"blob_store": {"use": blobs, "url": str(url), **options}}).blob_store


@pytest.fixture
def store(tmp_path: Path) -> BlobStore:
    return bound(tmp_path / "root")


def killed_writing(store: BlobStore, path: str) -> None:
    """Let another process die while it writes."""

    def dying() -> Iterator[bytes]:
        yield b"half"
        os.kill(os.getpid(), signal.SIGKILL)

    if (child := os.fork()) == 0:
        try:
            store.write(path, dying())
        finally:
            os._exit(0)
    os.waitpid(child, 0)


def temporary_files(folder: Path) -> list[Path]:
    return [file for file in folder.rglob("*") if is_temporary(file.name)]


# --- on disk ---


def test_what_a_killed_writer_left_is_named_then_removed_with_its_folder(
    store: BlobStore, tmp_path: Path
) -> None:
    store.write("other/blob", b"content")
    killed_writing(store, "run/deep/state")
    [left] = temporary_files(tmp_path)
    assert store.clean(dry_run=True) == [str(left)]
    assert left.exists()
    assert store.clean() == [str(left)]
    assert store.clean() == []
    assert os.listdir(tmp_path / "root") == ["other"]
    assert store.list() == ["other/blob"]


def test_under_a_prefix_only_what_begins_with_it_is_removed(
    store: BlobStore, tmp_path: Path
) -> None:
    for path in ("exp/1/state", "exp/10/state", "exp/state"):
        killed_writing(store, path)
    assert len(store.clean("exp/1/")) == 1
    assert {file.parent.name for file in temporary_files(tmp_path)} == {"10", "exp"}


def test_a_writer_that_lives_is_spared_unless_the_caller_holds_what_is_below_the_prefix(
    store: BlobStore, tmp_path: Path
) -> None:
    def pieces() -> Iterator[bytes]:
        yield b"half"
        assert store.clean() == []
        assert store.clean("other/") == []
        assert len(store.clean("run/", dry_run=True)) == 1
        yield b"whole"

    store.write("run/blob", pieces())
    assert store.read("run/blob") == b"halfwhole"


def test_a_pipe_named_as_a_temporary_file_does_not_block(store: BlobStore, tmp_path: Path) -> None:
    (tmp_path / "root").mkdir()
    os.mkfifo(tmp_path / "root" / temporary_name())
    store.write("blob", b"content")  # sweeps the folder
    store.clean()
    assert store.list() == ["blob"]


def test_nothing_is_made_where_there_is_nothing(store: BlobStore, tmp_path: Path) -> None:
    assert store.clean() == store.clean("run/") == []
    assert os.listdir(tmp_path) == []


# --- file systems that rename, without locks ---


def test_temporary_files_of_a_remote_folder_go_with_their_prefix_or_after_a_day(
    tmp_path: Path,
) -> None:
    folder = RemoteFolder(LocalFileSystem(), str(tmp_path))
    folder.write("run/blob", b"content")
    young, old, other = (tmp_path / each / temporary_name() for each in ("run", "run", "else"))
    other.parent.mkdir()
    for file in (young, old, other):
        file.write_bytes(b"half")
    yesterday = (datetime.now(UTC) - timedelta(days=1, minutes=1)).timestamp()
    os.utime(old, (yesterday, yesterday))
    assert folder.clean("", dry_run=True) == folder.clean("", dry_run=False)
    assert not old.exists()
    assert young.exists()
    assert len(folder.clean("run/", dry_run=False)) == 1
    assert not young.exists()
    assert other.exists()
    assert folder.list("") == ["run/blob"]


def test_a_remote_folder_writes_next_to_the_blob(tmp_path: Path) -> None:
    class Dies(LocalFileSystem):  # type: ignore[misc]
        def mv(self, *args: Any, **kwargs: Any) -> None:
            raise KeyboardInterrupt

        def rm_file(self, path: str) -> None:
            raise OSError

    with pytest.raises(KeyboardInterrupt):
        RemoteFolder(Dies(skip_instance_cache=True), str(tmp_path)).write("run/blob", b"content")
    assert [file.parent.name for file in temporary_files(tmp_path)] == ["run"]


# --- S3 ---


@pytest.fixture
def bucket(endpoint: str) -> s3fs.S3FileSystem:
    s3 = s3fs.S3FileSystem(
        key="key", secret="hush", endpoint_url=endpoint, skip_instance_cache=True
    )
    s3.name = uuid.uuid4().hex
    s3.mkdir(s3.name)
    return s3


def in_s3(s3: s3fs.S3FileSystem, endpoint: str) -> BlobStore:
    options = {"key": "key", "secret": "hush", "endpoint_url": endpoint}
    return bound(f"s3://{s3.name}/runs", storage_options=options)


def begin_upload(s3: s3fs.S3FileSystem, key: str) -> None:
    s3.call_s3("create_multipart_upload", Bucket=s3.name, Key=key)


def uploads(s3: s3fs.S3FileSystem) -> list[str]:
    return sorted(upload["Key"] for upload in s3.list_multipart_uploads(s3.name))


def test_uploads_of_killed_writers_under_a_prefix_are_aborted(
    bucket: s3fs.S3FileSystem, endpoint: str
) -> None:
    store = in_s3(bucket, endpoint)
    for key in ("runs/exp/1/a", "runs/exp/1/b", "runs/exp/10/a", "exp/1/a"):
        begin_upload(bucket, key)
    named = store.clean("exp/1/", dry_run=True)
    assert len(uploads(bucket)) == 4
    assert store.clean("exp/1/") == named
    assert [name.partition(" ")[0] for name in named] == [
        f"s3://{bucket.name}/runs/exp/1/{each}" for each in "ab"
    ]
    assert uploads(bucket) == ["exp/1/a", "runs/exp/10/a"]


def test_without_a_prefix_uploads_are_aborted_after_a_day(
    bucket: s3fs.S3FileSystem, endpoint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = in_s3(bucket, endpoint)
    for key in ("runs/a", "other/a"):
        begin_upload(bucket, key)
    [begun] = {upload["Initiated"] for upload in bucket.list_multipart_uploads(bucket.name)}

    class Clock(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> Any:
            return begun + age

    monkeypatch.setattr(remote, "datetime", Clock)
    age = timedelta(hours=23)
    assert store.clean() == []
    age = timedelta(hours=25)
    assert len(store.clean()) == 1
    assert uploads(bucket) == ["other/a"]


@pytest.mark.parametrize("error", [PermissionError("AccessDenied"), OSError(38, "NotImplemented")])
def test_who_may_not_look_for_uploads_gets_a_warning(
    bucket: s3fs.S3FileSystem, endpoint: str, monkeypatch: pytest.MonkeyPatch, error: OSError
) -> None:
    store = in_s3(bucket, endpoint)
    monkeypatch.setattr(remote.RemoteFolder, "_uploads", lambda *_: (_ for _ in ()).throw(error))
    with pytest.warns(CrucibleWarning, match="cannot look for unfinished writes in s3://"):
        assert store.clean("exp/") == []


def test_a_killed_writer_leaves_no_spool(
    bucket: s3fs.S3FileSystem, endpoint: str, tmp_path: Path
) -> None:
    child = """
import os, signal, sys
from crucible_kitchen import Kitchen
adapter = {"use": "fsspec", "url": sys.argv[1], "storage_options": {"endpoint_url": sys.argv[2]}}
def dying():
    yield b"half"
    os.kill(os.getpid(), signal.SIGKILL)
Kitchen(adapters={"blob_store": adapter}).blob_store.write("blob", dying())
"""
    killed = subprocess.run(
        [sys.executable, "-c", child, f"s3://{bucket.name}/runs", endpoint],
        env={**os.environ, "TMPDIR": str(tmp_path)},
        check=False,
    )
    assert killed.returncode == -signal.SIGKILL
    assert os.listdir(tmp_path) == []


def test_where_no_open_file_can_be_opened_a_spool_has_a_name(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(os.path, "exists", lambda path: False)
    with remote.spooled(iter([b"ab", b"c"])) as path:
        assert Path(path).read_bytes() == b"abc"
        assert Path(path).is_relative_to(tmp_path)
    assert os.listdir(tmp_path) == []
