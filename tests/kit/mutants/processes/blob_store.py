"""Blob stores that are right while one process uses them."""

from __future__ import annotations

import fcntl
import json
import os
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from crucible_kitchen import AdapterOptions, BlobStore, NotFound, Unavailable, hookimpl

from .. import Mutant
from .places import FOLDER

DISK = {"use": "fsspec", "url": str(FOLDER / "blobs")}


class Options(AdapterOptions):
    inner: BlobStore


class Delegate:
    """Base of the mutants: an adapter that leaves everything to `inner`."""

    Options = Options


TURN = threading.Lock()
"""What a mutant does in turn, it does so in one process."""


def folder(opts: Options) -> Path:
    """Return a folder in which all processes have the store."""
    found = Path(str(vars(opts.inner.options)["url"])).parent
    found.mkdir(exist_ok=True)
    return found


def joined(data: Any) -> bytes:
    return data if isinstance(data, bytes) else b"".join(data)


class Renamed(Delegate):
    """Base of mutants that keep a blob under another name, in this process always the same."""

    def name(self, path: str) -> str:
        raise NotImplementedError

    @hookimpl
    def write(self, opts: Options, path: str, data: Any) -> None:
        opts.inner.write(self.name(path), data)

    @hookimpl
    def read(self, opts: Options, path: str) -> bytes:
        return opts.inner.read(self.name(path))

    @hookimpl
    def stream(self, opts: Options, path: str, chunk_size: int) -> Iterator[bytes]:
        return iter(opts.inner.stream(self.name(path), chunk_size))

    @hookimpl
    def exists(self, opts: Options, path: str) -> bool:
        return opts.inner.exists(self.name(path))


class NamesFilesByHash(Renamed):
    def name(self, path: str) -> str:
        return f"{path}-{hash(path)}"


class BeginsInTheWorkingDirectory(Renamed):
    def name(self, path: str) -> str:
        return f"{Path.cwd().name}/{path}"


class NumbersItsFolderByTheProcess(Renamed):
    def name(self, path: str) -> str:
        return f"{path}/{os.getpid()}"


BLOBS: dict[str, bytes] = {}


class KeepsBlobsInItsModule(Delegate):
    @hookimpl
    def write(self, opts: Options, path: str, data: Any) -> None:
        BLOBS[path] = joined(data)

    @hookimpl
    def read(self, opts: Options, path: str) -> bytes:
        if path not in BLOBS:
            raise NotFound(path)
        return BLOBS[path]

    @hookimpl
    def stream(self, opts: Options, path: str, chunk_size: int) -> Iterator[bytes]:
        content = self.read(opts, path)
        for start in range(0, len(content), chunk_size):
            yield content[start : start + chunk_size]

    @hookimpl
    def exists(self, opts: Options, path: str) -> bool:
        return path in BLOBS


class KeepsWhatItHasRead(Delegate):
    def __init__(self) -> None:
        self.known: dict[str, bytes] = {}

    @hookimpl
    def read(self, opts: Options, path: str) -> bytes:
        if path not in self.known:
            self.known[path] = opts.inner.read(path)
        return self.known[path]

    @hookimpl
    def write(self, opts: Options, path: str, data: Any) -> None:
        self.known[path] = joined(data)
        opts.inner.write(path, self.known[path])

    @hookimpl
    def delete(self, opts: Options, path: str) -> None:
        self.known.pop(path, None)
        opts.inner.delete(path)


LOCKS: dict[str, Any] = {}


class HoldsItsLockUntilItEnds(Delegate):
    @hookimpl
    def write(self, opts: Options, path: str, data: Any) -> None:
        name = str(folder(opts) / f"{path.partition('/')[0]}.lock")
        if name not in LOCKS:
            lock = Path(name).open("w")  # noqa: SIM115
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                raise Unavailable("another process has the store open") from error
            LOCKS[name] = lock
        opts.inner.write(path, data)


class LeavesItsLockWhenItIsKilled(Delegate):
    @hookimpl
    def write(self, opts: Options, path: str, data: Any) -> None:
        lock = folder(opts) / f"{path.replace('/', '-')}.lock"
        with TURN:
            try:
                lock.touch(exist_ok=False)
            except FileExistsError as error:
                raise Unavailable(f"another process is writing {path}") from error
            try:
                opts.inner.write(path, data)
            finally:
                lock.unlink()


class WritesBehind(Delegate):
    def __init__(self) -> None:
        self.writing: dict[str, threading.Thread] = {}

    @hookimpl
    def write(self, opts: Options, path: str, data: Any) -> None:
        content = joined(data)
        self.wait(path)

        def later() -> None:
            time.sleep(0.5)
            opts.inner.write(path, content)

        self.writing[path] = threading.Thread(target=later)
        self.writing[path].start()

    def wait(self, path: str) -> None:
        if path in self.writing:
            self.writing[path].join()

    @hookimpl
    def read(self, opts: Options, path: str) -> bytes:
        self.wait(path)
        return opts.inner.read(path)

    @hookimpl
    def stream(self, opts: Options, path: str, chunk_size: int) -> Iterator[bytes]:
        self.wait(path)
        return iter(opts.inner.stream(path, chunk_size))

    @hookimpl
    def exists(self, opts: Options, path: str) -> bool:
        self.wait(path)
        return opts.inner.exists(path)


class WritesPieceByPiece(Delegate):
    """A source that fails is noticed; a kill is not."""

    @hookimpl
    def write(self, opts: Options, path: str, data: Any) -> None:
        before = opts.inner.read(path) if opts.inner.exists(path) else None
        written = b""
        try:
            for piece in [data] if isinstance(data, bytes) else data:
                written += piece
                opts.inner.write(path, written)
            opts.inner.write(path, written)
        except Exception:
            if before is None:
                opts.inner.delete(path)
            else:
                opts.inner.write(path, before)
            raise


class RewritesItsIndex(Delegate):
    def index(self, opts: Options, path: str) -> tuple[str, list[str]]:
        name = f"index-{path.partition('/')[0]}"
        return name, json.loads(opts.inner.read(name)) if opts.inner.exists(name) else []

    @hookimpl
    def write(self, opts: Options, path: str, data: Any) -> None:
        opts.inner.write(path, data)
        with TURN:
            name, paths = self.index(opts, path)
            time.sleep(0.005)
            opts.inner.write(name, json.dumps([*paths, path]).encode())

    @hookimpl
    def list(self, opts: Options, prefix: str) -> Sequence[str]:
        with TURN:
            _, paths = self.index(opts, prefix)
        return sorted({path for path in paths if path.startswith(prefix)})


class NamesItsTemporaryFileByThePath(Delegate):
    @hookimpl
    def write(self, opts: Options, path: str, data: Any) -> None:
        content = joined(data)
        with TURN:
            opts.inner.write(f"{path}.tmp", content)
            time.sleep(0.005)
            opts.inner.write(path, opts.inner.read(f"{path}.tmp"))
            opts.inner.delete(f"{path}.tmp")


class OpensTheUmask(Delegate):
    @hookimpl
    def write(self, opts: Options, path: str, data: Any) -> None:
        os.umask(0)
        opts.inner.write(path, data)


LATER = "test_a_process_that_is_started_later_finds_every_blob"
MUTANTS = [
    Mutant("blob_store", adapter, killed_by, DISK)
    for adapter, killed_by in [
        (NamesFilesByHash(), LATER),
        (BeginsInTheWorkingDirectory(), LATER),
        (NumbersItsFolderByTheProcess(), LATER),
        (KeepsBlobsInItsModule(), LATER),
        (KeepsWhatItHasRead(), "test_two_processes_see_what_either_does_at_once"),
        (HoldsItsLockUntilItEnds(), "test_two_processes_see_what_either_does_at_once"),
        (RewritesItsIndex(), "test_many_processes_write_many_blobs"),
        (NamesItsTemporaryFileByThePath(), "test_many_processes_write_one_blob"),
        (WritesBehind(), "test_what_was_written_survives_a_kill"),
        (WritesPieceByPiece(), "test_a_kill_amid_a_write_leaves_what_was_there"),
        (LeavesItsLockWhenItIsKilled(), "test_a_kill_amid_a_write_leaves_what_was_there"),
        (OpensTheUmask(), "test_the_process_stays_as_it_was"),
    ]
]
