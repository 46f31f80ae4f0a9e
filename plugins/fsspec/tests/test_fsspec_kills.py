"""A writer that is killed with SIGKILL at any instant: readers only ever see whole blobs."""

from __future__ import annotations

import os
import random
import signal
import socket
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import crucible_adapter_fsspec.blob_store as blobs
import pytest
import s3fs
from crucible_kitchen import BlobStore, Kitchen

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning"),  # os.fork
    pytest.mark.filterwarnings("ignore:datetime.datetime.utcnow:DeprecationWarning"),  # botocore
    pytest.mark.filterwarnings("ignore::ResourceWarning"),  # moto's own sockets
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

PIECE = bytes(range(256)) * 4096  # 1 MiB
PIECES = 17  # more than s3fs uploads in one part
OLD, NEW = b"old", PIECE * PIECES


class Wire:
    """A port that forwards to a server, and calls `cut` when it has carried `budget` bytes to it.

    Nothing is carried beyond, so that the server sees a part of what was sent.
    """

    def __init__(self, endpoint: str, budget: int, cut: Callable[[], None]) -> None:
        host, port = endpoint.removeprefix("http://").split(":")
        self._server = (host, int(port))
        self._left = budget
        self._cut = cut
        self._lock = threading.Lock()
        self._sockets = [socket.create_server(("127.0.0.1", 0))]
        self.endpoint = f"http://127.0.0.1:{self._sockets[0].getsockname()[1]}"
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def close(self) -> None:
        for each in self._sockets:
            with suppress(OSError):  # closed by its other end
                each.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()
        for each in self._sockets:
            each.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._sockets[0].accept()
            except OSError:
                return
            server = socket.create_connection(self._server)
            self._sockets += [client, server]
            for source, sink, counted in ((client, server, True), (server, client, False)):
                pump = threading.Thread(target=self._carry, args=(source, sink, counted))
                self._threads.append(pump)
                pump.start()

    def _carry(self, source: socket.socket, sink: socket.socket, counted: bool) -> None:
        try:
            while data := source.recv(1 << 16):
                if counted:
                    with self._lock:
                        data, before = data[: self._left], self._left
                        self._left -= len(data)
                    if data:
                        sink.sendall(data)
                    if before and not self._left:
                        self._cut()
                else:
                    sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)
        except OSError:  # the other end is gone
            pass


class Victim:
    """A forked process that writes a blob."""

    def __init__(self, write: Callable[[Any], None], source: Callable[[], Any]) -> None:
        self._pid = os.fork()
        if self._pid == 0:
            try:
                write(source())
            finally:
                os._exit(0)

    def kill(self) -> None:
        os.kill(self._pid, signal.SIGKILL)

    def was_killed(self) -> bool:
        return os.WIFSIGNALED(os.waitpid(self._pid, 0)[1])


def store_with(**options: Any) -> BlobStore:
    return Kitchen(adapters={"blob_store": {"use": blobs, **options}}).blob_store


def check(store: BlobStore, old: bytes | None) -> bool:
    """Say whether it is the new content; fail if it is neither that nor the old."""
    found = store.read("blob") if store.exists("blob") else None
    assert found in (old, NEW)
    assert list(store.list()) == ([] if found is None else ["blob"])
    return found == NEW


def dying_after(pieces: int) -> Iterator[bytes]:
    for number in range(PIECES):
        if number == pieces:
            os.kill(os.getpid(), signal.SIGKILL)
        yield PIECE


INSTANTS = random.Random(20).sample(range(PIECES), 10)


@pytest.mark.parametrize("old", [None, OLD])
def test_a_writer_killed_at_a_random_piece_leaves_whole_blobs_on_disk(
    tmp_path: Path, old: bytes | None
) -> None:
    store = store_with(url=str(tmp_path / "root"))
    if old is not None:
        store.write("blob", old)
    for instant in INSTANTS:
        victim = Victim(lambda data: store.write("blob", data), lambda: dying_after(instant))  # noqa: B023
        assert victim.was_killed()
        assert not check(store, old)
    store.write("blob", NEW)
    assert check(store, old)


def s3_options(endpoint: str, bucket: str) -> dict[str, Any]:
    options = {"key": "key", "secret": "hush", "endpoint_url": endpoint}
    return {"url": f"s3://{bucket}/runs", "storage_options": options}


def whole() -> bytes:
    return NEW


def in_pieces() -> Iterator[bytes]:
    return iter([PIECE] * PIECES)


@pytest.mark.parametrize("source", [whole, in_pieces], ids=["one upload", "several parts"])
@pytest.mark.parametrize("old", [None, OLD])
def test_a_writer_killed_at_a_random_byte_of_the_upload_leaves_whole_blobs_in_s3(
    endpoint: str, source: Callable[[], Any], old: bytes | None
) -> None:
    bucket = uuid.uuid4().hex
    s3fs.S3FileSystem(
        key="key", secret="hush", endpoint_url=endpoint, skip_instance_cache=True
    ).mkdir(bucket)
    store = store_with(**s3_options(endpoint, bucket))
    # The last ones fall into what comes behind the data: the order to join the parts.
    random_bytes = random.Random(f"{source.__name__} {old!r}")
    instants = [random_bytes.randrange(100, len(NEW)) for _ in range(4)] + [len(NEW) + 1500]
    for instant in instants:
        if old is None:
            store.delete("blob")
        else:
            store.write("blob", old)
        begun = threading.Event()

        def cut() -> None:
            begun.wait()  # noqa: B023
            victim.kill()  # noqa: B023

        wire = Wire(endpoint, instant, cut)
        mine = store_with(**s3_options(wire.endpoint, bucket))
        victim = Victim(lambda data: mine.write("blob", data), source)  # noqa: B023
        begun.set()
        killed = victim.was_killed()
        wire.close()
        new = check(store, old)
        assert killed or new
        assert killed or instant > len(NEW)
    store.write("blob", source())
    assert check(store, old)
