"""Several processes use one store."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pytest

from ...ports import BlobStore
from ..conformance import since, unless_synthetic
from ..processes import Elsewhere, ProcessDied
from ..processes.state import left_alone
from .fixtures import MIB, BlobStoreFixtures, holds


class Processes(BlobStoreFixtures):
    """What holds between processes that have the store open under equal options."""

    @since("1.5")
    @unless_synthetic
    def test_a_process_that_is_started_later_finds_every_blob(
        self, blob_store: BlobStore, folder: str, elsewhere: Elsewhere
    ) -> None:
        """A process that starts after `write` has returned, in another working directory, reads
        and lists every blob, whatever its name, and this one reads what that one has written.

        Usually broken by a dictionary of the module, a path that begins in the working directory,
        or names that are made of `hash`.
        """
        blobs = {f"{folder}/here/{name}": name.encode() for name in self.names}
        theirs = {f"{folder}/there/{name}": name.encode() for name in self.names}
        for path, content in blobs.items():
            blob_store.write(path, content)
        found, listed = elsewhere.run(_read, [*blobs], f"{folder}/")
        assert found == blobs
        elsewhere.run(_write, theirs)
        assert _read(blob_store, [*theirs], f"{folder}/")[0] == theirs
        if listed is not None:
            assert listed == sorted(blobs)
            assert blob_store.list(f"{folder}/") == sorted({**blobs, **theirs})

    @since("1.5")
    @unless_synthetic
    def test_two_processes_see_what_either_does_at_once(
        self, blob_store: BlobStore, folder: str, elsewhere: Elsewhere
    ) -> None:
        """While both have the store open, each sees at once what the other has written, replaced
        and deleted.

        Usually broken by a lock that the first process holds until it ends, or by a cache of
        listings and contents.
        """
        path = f"{folder}/blob"
        blob_store.write(path, b"first")
        assert elsewhere.run(_look, path) == b"first"
        for number in range(3):
            elsewhere.run(_write, {path: f"there {number}".encode()})
            holds(blob_store, path, f"there {number}".encode())
            blob_store.write(path, f"here {number}".encode())
            assert elsewhere.run(_look, path) == f"here {number}".encode()
            if blob_store.supports("delete"):
                blob_store.delete(path)
                assert elsewhere.run(_look, path) is None
                elsewhere.run(_write, {path: b"again"})
                elsewhere.run(BlobStore.delete, path)
                holds(blob_store, path, None)

    @since("1.5")
    @unless_synthetic
    def test_many_processes_write_many_blobs(
        self, blob_store: BlobStore, folder: str, elsewhere: Elsewhere
    ) -> None:
        """Three processes write to the same folders at once, and every blob is there.

        Usually broken by an index that each process rewrites as a whole, or by a race in making
        folders.
        """
        mine = [
            {f"{folder}/{n % 4}/{process} {n}": f"{process} {n}".encode() for n in range(24)}
            for process in range(3)
        ]
        writing = elsewhere.submit_together(_write, [(blobs,) for blobs in mine[1:]])
        _write(blob_store, mine[0])
        for each in writing:
            each.result()
        expected = {path: content for blobs in mine for path, content in blobs.items()}
        found, listed = _read(blob_store, [*expected], f"{folder}/")
        assert found == expected
        assert listed in (None, sorted(expected))
        assert elsewhere.run(_read, [*expected], f"{folder}/") == (found, listed)

    @since("1.5")
    @unless_synthetic
    def test_many_processes_write_one_blob(
        self, blob_store: BlobStore, folder: str, elsewhere: Elsewhere
    ) -> None:
        """Two processes write one path again and again; every reader, in any process, sees the
        whole content of one of them.

        Usually broken by a temporary file whose name is made of the path alone, or of the process
        id where processes run in containers.
        """
        path = f"{folder}/blob"
        contents = [bytes([process]) * (200_000 + process) for process in range(2)]
        blob_store.write(path, contents[0])
        writing = elsewhere.submit_together(
            _write_again_and_again, [(path, content) for content in contents]
        )
        while not all(each.done() for each in writing):
            assert blob_store.read(path) in contents, "a reader sees parts of two contents"
        for each in writing:
            each.result()
        assert blob_store.read(path) in contents
        if blob_store.supports("list"):
            assert blob_store.list(f"{folder}/") == [path]

    @since("1.5")
    @unless_synthetic
    def test_what_was_written_survives_a_kill(
        self, blob_store: BlobStore, folder: str, elsewhere: Elsewhere
    ) -> None:
        """A blob whose `write` has returned is there although its process was killed at that very
        moment, of bytes as of pieces.

        Usually broken by a thread that writes behind, or a buffer that is emptied at exit.
        """
        blobs = {f"{folder}/small": b"content", f"{folder}/large": b"x" * MIB}
        elsewhere.run_and_die(_write, blobs)
        for path, content in blobs.items():
            holds(blob_store, path, content)

    @since("1.5")
    @unless_synthetic
    def test_a_kill_amid_a_write_leaves_what_was_there(
        self, blob_store: BlobStore, folder: str, elsewhere: Elsewhere
    ) -> None:
        """When a process is killed while it writes, the old blob stays, or there is still none;
        nothing of the new one is listed, and the path can be written again.

        Usually broken by writing in place, and by the lock or the temporary file of the dead
        process, which keeps out whoever comes later.
        """
        old, new = f"{folder}/old", f"{folder}/new"
        blob_store.write(old, b"old content")
        for store, path in ((elsewhere, old), (elsewhere.another(), new)):
            with pytest.raises(ProcessDied, match="SIGKILL"):
                store.run(_write_and_die, path)
        holds(blob_store, old, b"old content")
        holds(blob_store, new, None)
        if blob_store.supports("list"):
            assert blob_store.list(f"{folder}/") == [old]
        for path in (old, new):
            blob_store.write(path, iter([b"another ", b"content"]))
            holds(blob_store, path, b"another content")

    @since("1.5")
    def test_the_process_stays_as_it_was(self, folder: str, elsewhere: Elsewhere) -> None:
        """No call changes the umask or the working directory, or seeds the generators of `random`
        and NumPy, which all threads share.

        Usually broken by `os.umask(0)` around the making of a file: what other threads make
        meanwhile, and everything after an error, may be written by everyone.
        """
        changed = elsewhere.run(_changed, folder)
        assert not changed, "what the calls have changed"


# --- in the other process ---


def _write(store: BlobStore, blobs: Mapping[str, bytes]) -> None:
    for number, (path, content) in enumerate(blobs.items()):
        store.write(path, content if number % 2 else iter([content[:3], content[3:]]))


def _write_again_and_again(store: BlobStore, path: str, content: bytes) -> None:
    for number in range(16):
        time.sleep(number * content[0] % 7 / 1000)  # else processes may go on in step
        store.write(path, iter([content[:90_000], content[90_000:]]))
        store.read(path)


def _read(
    store: BlobStore, paths: Sequence[str], prefix: str
) -> tuple[dict[str, bytes], list[str] | None]:
    """Return the blobs that exist, and the listing if there is one."""
    found = {path: store.read(path) for path in paths if store.exists(path)}
    return found, [*store.list(prefix)] if store.supports("list") else None


def _look(store: BlobStore, path: str) -> bytes | None:
    return store.read(path) if store.exists(path) else None


def _write_and_die(store: BlobStore, path: str) -> None:
    def pieces() -> Iterator[bytes]:
        for _ in range(12):  # more than any part of an upload holds
            yield b"x" * MIB
        os.kill(os.getpid(), signal.SIGKILL)

    store.write(path, pieces())


def _changed(store: BlobStore, folder: str) -> dict[str, Any]:
    """Return what the calls of a store change of its process."""

    def calls() -> None:
        path = f"{folder}/blob"
        store.write(path, b"content")
        store.write(path, iter([b"content"]))
        store.read(path)
        list(store.stream(path))
        if store.supports("list"):
            store.list(folder)
        if store.supports("delete"):
            store.delete(path)

    return left_alone(calls)
