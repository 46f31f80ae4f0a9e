"""What the blob store promises, in S3: a moto server on this machine."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import aiobotocore.client  # type: ignore[import-untyped]
import crucible_adapter_fsspec.blob_store as blobs
import crucible_adapter_fsspec.remote as remote
import crucible_adapter_fsspec.s3 as s3
import pytest
import s3fs
from crucible_kitchen import (
    AdapterError,
    AdapterTimeout,
    BlobStore,
    InvalidInput,
    Kitchen,
    NotFound,
    Unauthorized,
    Unavailable,
)
from crucible_kitchen.testing import LEVEL, BlobStoreConformance

PAGE = 50  # of the server in conftest.py

pytestmark = [
    pytest.mark.filterwarnings("ignore:datetime.datetime.utcnow:DeprecationWarning"),  # botocore
    pytest.mark.filterwarnings("ignore::ResourceWarning"),  # moto's own sockets
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


def store_at(url: str, endpoint: str, **config: Any) -> BlobStore:
    config = {"retries": {"max_attempts": 0}, "connect_timeout": 2, "read_timeout": 60, **config}
    options = {"key": "key", "secret": "hush", "endpoint_url": endpoint, "config_kwargs": config}
    adapter = {"use": blobs, "url": url, "storage_options": options}
    return Kitchen(adapters={"blob_store": adapter}).blob_store


@pytest.fixture
def store(endpoint: str) -> BlobStore:
    bucket = uuid.uuid4().hex
    s3fs.S3FileSystem(key="key", secret="hush", endpoint_url=endpoint).mkdir(bucket)
    return store_at(f"s3://{bucket}/runs", endpoint)


@pytest.mark.parametrize(
    "name", ["a/b", "with space", "ünï/日本", "a#b?c=d&e%2F%41", "[1]*?{a,b}", "a::b", "~", ".x"]
)
def test_what_was_written_is_read_under_any_name(store: BlobStore, name: str) -> None:
    store.write(name, b"0123456789")
    assert store.read(name) == b"0123456789"
    assert list(store.stream(name, 4)) == [b"0123", b"4567", b"89"]
    assert list(store.list()) == [name]
    store.delete(name)
    store.delete(name)
    assert not store.exists(name)
    assert list(store.list()) == []


@pytest.mark.parametrize(("start", "end"), [(0, None), (2, 5), (5, 2), (9, 99), (99, None)])
def test_a_range_is_clamped_as_a_slice_is(store: BlobStore, start: int, end: int | None) -> None:
    store.write("blob", b"0123456789")
    assert store.read_range("blob", start, end) == b"0123456789"[start:end]


def test_an_empty_blob_is_a_blob(store: BlobStore) -> None:
    store.write("bytes", b"")
    store.write("pieces", iter(()))
    assert store.read("bytes") == store.read("pieces") == b""
    assert list(store.stream("bytes")) == []
    assert store.read_range("bytes", 0, 5) == b""


def test_an_error_of_the_source_leaves_the_old_content(store: BlobStore) -> None:
    def source() -> Iterator[bytes]:
        yield b"x" * (6 << 20)  # more than s3fs holds back before it starts an upload
        raise OSError("the source broke off")

    store.write("blob", b"old")
    for path in ("blob", "never"):
        with pytest.raises(AdapterError, match="broke off"):
            store.write(path, source())
    assert store.read("blob") == b"old"
    assert list(store.list()) == ["blob"]


@pytest.mark.parametrize("refused", ["upload_part", "complete_multipart_upload"])
def test_an_upload_of_several_parts_that_breaks_off_leaves_the_old_content(
    store: BlobStore, monkeypatch: pytest.MonkeyPatch, refused: str
) -> None:
    def refuse(self: Any, method: str, *args: Any, **kwargs: Any) -> Any:
        if method == refused:
            raise ConnectionResetError("reset by peer")
        asked.append(method)
        return call_s3(self, method, *args, **kwargs)

    asked: list[str] = []
    call_s3 = s3fs.S3FileSystem.call_s3
    store.write("blob", b"old")
    with monkeypatch.context() as patch:
        patch.setattr(s3fs.S3FileSystem, "call_s3", refuse)
        with pytest.raises(Unavailable, match="reset by peer"):
            store.write("blob", (bytes(1 << 20) for _ in range(23)))
    assert asked[-1] == "abort_multipart_upload"
    assert store.read("blob") == b"old"
    assert list(store.list()) == ["blob"]


def test_a_listing_is_never_stale(store: BlobStore, endpoint: str) -> None:
    other = store_at(store.options.url, endpoint)  # type: ignore[attr-defined]
    for number in range(3):
        store.write(f"folder/{number}", b"")
        assert len(other.list("folder/")) == number + 1
        assert other.exists(f"folder/{number}")


def test_a_prefix_is_text_and_not_a_folder(store: BlobStore) -> None:
    for path in ("run-1/a", "run-1/b/c", "run-10/a", "run", "other"):
        store.write(path, b"")
    assert list(store.list("run-1")) == ["run-1/a", "run-1/b/c", "run-10/a"]
    assert list(store.list("run-1/")) == ["run-1/a", "run-1/b/c"]
    assert list(store.list("nothing/here")) == []


def test_what_is_missing_is_not_found(store: BlobStore) -> None:
    store.write("folder/blob", b"")
    for path in ("blob", "folder"):
        assert not store.exists(path)
        with pytest.raises(NotFound, match=path):
            store.read(path)
        with pytest.raises(NotFound, match=path):
            next(store.stream(path))


def test_a_missing_bucket_is_not_found(endpoint: str) -> None:
    store = store_at("s3://no-such-bucket/runs", endpoint)
    with pytest.raises(NotFound, match="blob"):
        store.write("blob", b"")
    assert list(store.list()) == []


def test_a_path_that_leaves_the_root_is_refused(store: BlobStore) -> None:
    with pytest.raises(InvalidInput):
        store.read("../other/blob")


def test_a_server_that_does_not_answer_is_unavailable_and_keeps_the_secret() -> None:
    store = store_at("s3://bucket", "http://127.0.0.1:9")
    with pytest.raises(Unavailable) as caught:
        store.exists("blob")
    assert caught.value.retryable
    assert "hush" not in str(caught.value)


# --- requests ---


@pytest.fixture
def asked(store: BlobStore, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The requests to the server, from now on."""
    names: list[str] = []
    request = aiobotocore.client.AioBaseClient._make_api_call

    async def counted(self: Any, operation_name: str, api_params: Any) -> Any:
        names.append(operation_name)
        return await request(self, operation_name, api_params)

    store.exists("connect")
    monkeypatch.setattr(aiobotocore.client.AioBaseClient, "_make_api_call", counted)
    return names


def test_a_small_blob_costs_one_request_a_call(store: BlobStore, asked: list[str]) -> None:
    store.write("blob", b"content")
    store.write("blob", iter([b"con", b"tent"]))
    assert store.read("blob") == b"content"
    assert list(store.stream("blob", 4)) == [b"cont", b"ent"]
    assert store.exists("blob")
    assert not store.exists("other")
    store.delete("blob")
    assert asked == [
        *("PutObject", "PutObject", "GetObject", "GetObject"),
        *("HeadObject", "HeadObject", "DeleteObject"),
    ]


def test_a_blob_in_pieces_is_uploaded_in_parts_as_they_come(
    store: BlobStore, asked: list[str]
) -> None:
    content = random.Random(0).randbytes(12 << 20)
    store.write("blob", (content[i : i + 700_000] for i in range(0, len(content), 700_000)))
    assert asked == ["CreateMultipartUpload", *["UploadPart"] * 3, "CompleteMultipartUpload"]
    assert store.read("blob") == content


def test_a_blob_larger_than_a_part_of_s3fs_is_read_in_several_requests(
    store: BlobStore, asked: list[str]
) -> None:
    blobs._folder(store.options)._fs.default_block_size = 100_000  # type: ignore[arg-type, union-attr]
    content = random.Random(0).randbytes(250_000)
    store.write("blob", content)
    assert store.read("blob") == content
    assert asked.count("GetObject") == 4  # of the first only the size is used


@pytest.mark.parametrize("failures", [1, 4])
def test_a_stream_whose_connection_is_lost_goes_on_where_it_was(
    store: BlobStore, monkeypatch: pytest.MonkeyPatch, failures: int
) -> None:
    content = random.Random(0).randbytes(3 << 20)
    store.write("blob", content)
    calls = itertools.count()
    filled = s3._filled

    async def lost(body: Any, size: int) -> bytes:
        if 2 <= next(calls) < 2 + failures:
            raise ConnectionResetError("reset by peer")
        return await filled(body, size)

    monkeypatch.setattr(s3, "_filled", lost)
    assert b"".join(store.stream("blob", 1 << 19)) == content


@pytest.mark.parametrize("answers", [1, 4, 99])
def test_an_answer_that_ends_early_is_a_lost_connection(
    store: BlobStore, monkeypatch: pytest.MonkeyPatch, answers: int
) -> None:
    content = random.Random(0).randbytes(3000)
    store.write("blob", content)
    calls = itertools.count()
    filled = s3._filled

    async def cut(body: Any, size: int) -> bytes:
        return b"" if 2 <= next(calls) < 2 + answers else await filled(body, size)

    monkeypatch.setattr(s3, "_filled", cut)
    if answers < 5:
        assert b"".join(store.stream("blob", 500)) == content
    else:
        with pytest.raises(Unavailable, match="1000 of 3000 bytes"):
            list(store.stream("blob", 500))


@pytest.mark.parametrize("block_size", [100, 10_000])
@pytest.mark.parametrize("always", [False, True])
def test_what_is_read_is_as_long_as_the_server_said(
    store: BlobStore, monkeypatch: pytest.MonkeyPatch, block_size: int, always: bool
) -> None:
    store.write("blob", b"0123456789" * 100)
    folder = blobs._folder(store.options)  # type: ignore[arg-type]
    assert isinstance(folder, s3.S3Folder)
    folder._fs.default_block_size = block_size
    monkeypatch.setattr(s3, "sync", lambda *_: b"01234")
    if always:
        monkeypatch.setattr(folder._fs, "cat_file", lambda *_: b"01234")
        with pytest.raises(Unavailable, match="5 of 1000 bytes"):
            store.read("blob")
    else:
        assert store.read("blob") == b"0123456789" * 100


def test_a_stream_of_a_blob_that_was_replaced_does_not_go_on_with_the_other(
    store: BlobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.write("blob", b"old" * 1000)
    stream = store.stream("blob", 1000)
    next(stream)
    store.write("blob", b"new" * 1000)

    filled = s3._filled

    async def lost(*_: object) -> bytes:
        monkeypatch.setattr(s3, "_filled", filled)
        raise ConnectionResetError("reset by peer")

    monkeypatch.setattr(s3, "_filled", lost)
    with pytest.raises(AdapterError, match="blob"):
        next(stream)


# --- what the libraries below do, and the store does not ---


def raw(endpoint: str, **options: Any) -> Any:
    return s3fs.S3FileSystem(
        key="key", secret="hush", endpoint_url=endpoint, skip_instance_cache=True, **options
    )


def root_of(store: BlobStore) -> str:
    assert isinstance(store.options, blobs.Options)
    return store.options.url.removeprefix("s3://")


def test_s3fs_publishes_what_it_has_when_a_write_is_broken_off_and_the_store_does_not(
    store: BlobStore, endpoint: str
) -> None:
    def source() -> Iterator[bytes]:
        yield b"the first half"
        raise KeyError("no second half")

    fs = raw(endpoint)
    with pytest.raises(KeyError), fs.open(f"{root_of(store)}/raw", "wb") as file:
        file.writelines(source())
    with pytest.raises(AdapterError, match="no second half"):
        store.write("ours", source())
    assert store.read("raw") == b"the first half"
    assert not store.exists("ours")


def test_s3fs_continues_seeing_an_old_listing_and_the_store_does_not(
    store: BlobStore, endpoint: str
) -> None:
    store.write("folder/old", b"")
    fs, folder = raw(endpoint), f"{root_of(store)}/folder"
    assert fs.ls(folder) == [f"{folder}/old"]
    assert list(store.list("folder/")) == ["folder/old"]
    raw(endpoint).pipe_file(f"{folder}/new", b"")  # by another program
    assert fs.ls(folder) == [f"{folder}/old"]
    assert not fs.exists(f"{folder}/new")
    assert list(store.list("folder/")) == ["folder/new", "folder/old"]
    assert store.exists("folder/new")


@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")
def test_a_forked_process_uses_a_file_system_of_its_own(store: BlobStore) -> None:
    store.write("blob", b"old")
    child = os.fork()
    if child == 0:  # no assertion may leave this branch
        signal.alarm(60)
        status = 1
        try:
            seen = store.read("blob")
            store.write("blob", b"new")
            status = int(seen != b"old")
        finally:
            os._exit(status)
    assert os.waitpid(child, 0)[1] == 0
    assert store.read("blob") == b"new"


def test_streaming_takes_constant_memory_in_both_directions(store: BlobStore) -> None:
    # In a process of its own, since the server keeps the blobs in this one's memory.
    assert isinstance(store.options, blobs.Options)
    storage_options = store.options.storage_options.get_secret_value()
    program = """
import json, resource, sys
import aiobotocore.client  # type: ignore[import-untyped]
import crucible_adapter_fsspec.blob_store as blobs
import crucible_adapter_fsspec.remote as remote
import crucible_adapter_fsspec.s3 as s3
opts = blobs.Options(**json.loads(sys.argv[1]))
def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
blobs.write(opts, "small", iter([b"x"]))
list(blobs.stream(opts, "small", 1 << 20))
before = peak()
blobs.write(opts, "blob", (bytes(1 << 20) for _ in range(96)))
print(sum(map(len, blobs.stream(opts, "blob", 1 << 20))), peak() - before)
"""
    options = json.dumps({"url": store.options.url, "storage_options": storage_options})
    command = [sys.executable, "-W", "ignore", "-c", program, options]
    size, grown_kib = map(
        int, subprocess.run(command, capture_output=True, check=True).stdout.split()
    )
    assert size == 96 << 20
    assert grown_kib < 64 << 10


# --- servers that refuse, and that do not answer ---


@contextmanager
def a_server_that_answers(status: int, code: str) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"  # or it would not say "continue", for which botocore waits

        def answer(self) -> None:
            body = f"<Error><Code>{code}</Code><Message>{code}</Message></Error>".encode()
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.send_header("Connection", "close")
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        do_GET = do_PUT = do_HEAD = do_POST = answer  # noqa: N815 (http.server's names)

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def calls_of(store: BlobStore) -> list[Callable[[], object]]:
    return [
        lambda: store.read("blob"),
        lambda: store.write("blob", b"content"),
        lambda: store.write("blob", iter([b"content"])),
        lambda: store.exists("blob"),
        lambda: store.list(),
        lambda: next(store.stream("blob")),
        store.ping,
    ]


def test_no_access_is_unauthorized() -> None:
    with a_server_that_answers(403, "AccessDenied") as endpoint:
        for call in calls_of(store_at("s3://bucket/runs", endpoint)):
            with pytest.raises(Unauthorized) as caught:
                call()
            assert "hush" not in str(caught.value)


def test_a_server_that_is_too_busy_is_unavailable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(s3fs.S3FileSystem, "retries", 1)
    with a_server_that_answers(503, "SlowDown") as endpoint:
        store = store_at("s3://bucket/runs", endpoint)
        for call in (lambda: store.write("blob", b"content"), lambda: store.list()):
            with pytest.raises(Unavailable) as caught:
                call()
            assert caught.value.retryable


def test_a_server_that_accepts_and_says_nothing_is_a_timeout(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(s3fs.S3FileSystem, "retries", 1)
    monkeypatch.setattr(remote, "PING_TIMEOUT", 0.1)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        endpoint = f"http://127.0.0.1:{silent.getsockname()[1]}"
        store = store_at("s3://bucket/runs", endpoint, read_timeout=0.2)
        reading = [*calls_of(store)[:1], *calls_of(store)[3:]]
        for call in reading:  # a write would wait for ever in aiohttp for "100 Continue"
            with pytest.raises(AdapterTimeout) as caught:
                call()
            assert caught.value.retryable


def test_a_ping_asks_for_the_bucket_and_changes_nothing(store: BlobStore, endpoint: str) -> None:
    store.ping()
    assert list(store.list()) == []
    with pytest.raises(NotFound, match="no-such-bucket"):
        store_at("s3://no-such-bucket/runs", endpoint).ping()
    with pytest.raises(Unavailable):
        store_at("s3://bucket", "http://127.0.0.1:9").ping()


class TestConformance(BlobStoreConformance):
    variant = "S3"
    level = LEVEL
    max_examples = 5
    more_than_a_page = PAGE + 5

    @pytest.fixture
    def bucket(self, endpoint: str) -> str:
        bucket = uuid.uuid4().hex
        s3fs.S3FileSystem(key="key", secret="hush", endpoint_url=endpoint).mkdir(bucket)
        return bucket

    @pytest.fixture
    def reopen(
        self, endpoint: str, bucket: str
    ) -> Callable[[], contextlib.AbstractContextManager[BlobStore]]:
        # With the retries of botocore: moto fails now and then when requests come at once.
        retries = {"max_attempts": 5}
        return lambda: contextlib.closing(
            store_at(f"s3://{bucket}/runs", endpoint, retries=retries)
        )

    @pytest.fixture
    def blob_store(
        self, reopen: Callable[[], contextlib.AbstractContextManager[BlobStore]]
    ) -> Iterator[BlobStore]:
        with reopen() as store:
            yield store

    @pytest.fixture
    def stored(self, endpoint: str, bucket: str) -> Callable[[str], bytes | None]:
        s3 = s3fs.S3FileSystem(
            key="key", secret="hush", endpoint_url=endpoint, use_listings_cache=False
        )

        def look_up(path: str) -> bytes | None:
            at = f"{bucket}/runs/{path}"
            return bytes(s3.cat_file(at)) if s3.isfile(at) else None

        return look_up
