"""What the blob store promises, in S3: a moto server on this machine."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from typing import Any

import crucible_adapter_fsspec.blob_store as blobs
import pytest
from crucible_kitchen import AdapterError, BlobStore, InvalidInput, Kitchen, NotFound, Unavailable

s3fs = pytest.importorskip("s3fs")
moto_server = pytest.importorskip("moto.server")

pytestmark = [
    pytest.mark.filterwarnings("ignore:datetime.datetime.utcnow:DeprecationWarning"),  # botocore
    pytest.mark.filterwarnings("ignore::ResourceWarning"),  # moto's own sockets
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    server = moto_server.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


def store_at(url: str, endpoint: str) -> BlobStore:
    options = {
        "key": "key",
        "secret": "hush",
        "endpoint_url": endpoint,
        "config_kwargs": {"retries": {"max_attempts": 0}, "connect_timeout": 2},
    }
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


def test_an_upload_of_several_parts_that_breaks_off_leaves_the_old_content(
    store: BlobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refuse(self: Any, method: str, *args: Any, **kwargs: Any) -> Any:
        if method in ("upload_part", "complete_multipart_upload"):
            raise ConnectionResetError("reset by peer")
        return await call_s3(self, method, *args, **kwargs)

    call_s3 = s3fs.S3FileSystem._call_s3
    store.write("blob", b"old")
    with monkeypatch.context() as patch:
        patch.setattr(s3fs.S3FileSystem, "_call_s3", refuse)
        with pytest.raises(Unavailable, match="reset by peer"):
            store.write("blob", (bytes(1 << 20) for _ in range(120)))
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
