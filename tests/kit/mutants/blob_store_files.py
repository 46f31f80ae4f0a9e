"""Blob stores with one fault each, most of them made of a local folder."""

from __future__ import annotations

import atexit
import gzip
import io
import os
import re
import tempfile
import threading
import time
import unicodedata
import uuid
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from crucible_kitchen import AdapterOptions, BlobStore, InvalidInput, NotFound, hookimpl

from . import Mutant

_folder = tempfile.TemporaryDirectory()
atexit.register(_folder.cleanup)
ROOT = Path(_folder.name) / "blobs"


class Options(AdapterOptions):
    inner: BlobStore


class Delegate:
    """Base of the mutants: an adapter that leaves everything to `inner`."""

    Options = Options


class InTheFolder(Delegate):
    """One that knows where the folder is, in another process as well."""

    def __init__(self) -> None:
        self.root = ROOT

    def file(self, path: str) -> Path:
        return self.root / path


def pieces(data: Any) -> Iterable[bytes]:
    if isinstance(data, bytes):
        return [data]
    return iter(lambda: data.read(1 << 20), b"") if hasattr(data, "read") else data


# --- links and neighbours ---


class FollowsLinks(InTheFolder):
    @hookimpl
    def read(self, opts: Options, path: str) -> bytes:
        if ".." not in path and self.file(path).is_file():
            return self.file(path).read_bytes()
        return opts.inner.read(path)


class WritesThroughLinks(InTheFolder):
    @hookimpl
    def write(self, opts: Options, path: str, data: Any) -> None:
        try:
            opts.inner.write(path, data)
        except InvalidInput:
            if not self.file(path).is_symlink():
                raise
            self.file(path).write_bytes(b"".join(pieces(data)))


class ListsWhatLinksLeadTo(InTheFolder):
    @hookimpl
    def list(self, opts: Options, prefix: str) -> list[str]:
        found = (path for path in self.root.rglob("*") if path.is_file())
        paths = (path.relative_to(self.root).as_posix() for path in found)
        return sorted(path for path in paths if path.startswith(prefix))


class ComparesPathsAsTexts(InTheFolder):
    @hookimpl
    def read(self, opts: Options, path: str) -> bytes:
        place = os.path.normpath(os.path.join(self.root, path))
        if place.startswith(str(self.root)) and os.path.isfile(place):
            return Path(place).read_bytes()
        return opts.inner.read(path)


# --- what is left ---


class LeavesAHiddenCopy(InTheFolder):
    @hookimpl
    def write(self, opts: Options, path: str, data: Any) -> None:
        opts.inner.write(path, data)
        file = self.file(path)
        file.with_name(f".{file.name}~").write_bytes(file.read_bytes())


class LeavesWhatFailed(InTheFolder):
    error: type[BaseException] = Exception

    @hookimpl
    def write(self, opts: Options, path: str, data: Any) -> None:
        try:
            opts.inner.write(path, data)
        except self.error:
            self.file(path).parent.mkdir(parents=True, exist_ok=True)
            self.file(path).with_name(f".{uuid.uuid4().hex}").write_bytes(b"")
            raise


class LeavesWhatWasStopped(LeavesWhatFailed):
    error = KeyboardInterrupt


class HidesWhatLooksTemporary(InTheFolder):
    @hookimpl
    def write(self, opts: Options, path: str, data: Any) -> None:
        temporary = self.file(path).with_name(f".unfinished-{uuid.uuid4().hex}")
        temporary.parent.mkdir(parents=True, exist_ok=True)
        try:
            with temporary.open("wb") as file:
                file.writelines(pieces(data))
            with temporary.open("rb") as file:
                opts.inner.write(path, file)
        finally:
            temporary.unlink()

    @hookimpl
    def list(self, opts: Options, prefix: str) -> list[str]:
        return [path for path in opts.inner.list(prefix) if ".unfinished-" not in path]


class KeepsBlobsToItsOwner(InTheFolder):
    @hookimpl
    def write(self, opts: Options, path: str, data: Any) -> None:
        opts.inner.write(path, data)
        self.file(path).chmod(0o600)


class RemovesFoldersUnderWriters(InTheFolder):
    @hookimpl
    def write(self, opts: Options, path: str, data: Any) -> None:
        file = self.file(path)
        file.parent.mkdir(parents=True, exist_ok=True)
        time.sleep(0.001)  # as long as it takes to open a connection
        file.write_bytes(b"".join(pieces(data)))


# --- memory and files ---


class JoinsWhatItWrites(InTheFolder):
    @hookimpl
    def write(self, opts: Options, path: str, data: Any) -> None:
        opts.inner.write(path, b"".join(pieces(data)))


class WritesFilesByLines(InTheFolder):
    @hookimpl
    def write(self, opts: Options, path: str, data: Any) -> None:
        opts.inner.write(path, data if isinstance(data, bytes) else (line for line in data))


class KeepsFilesOpen(InTheFolder):
    def __init__(self) -> None:
        super().__init__()
        self.files: list[io.BufferedReader] = []

    @hookimpl
    def stream(self, opts: Options, path: str, chunk_size: int) -> Iterator[bytes]:
        if chunk_size < 1 or not opts.inner.exists(path):
            raise NotFound(path)
        self.files.append(file := self.file(path).open("rb"))
        return iter(lambda: file.read(chunk_size), b"")


# --- names ---


class DeletesATree(Delegate):
    @hookimpl
    def delete(self, opts: Options, path: str) -> None:
        for found in (path, *opts.inner.list(f"{path}/")):
            opts.inner.delete(found)


class RemembersWhatExists(Delegate):
    def __init__(self) -> None:
        self.known: set[str] = set()

    @hookimpl
    def exists(self, opts: Options, path: str) -> bool:
        if path not in self.known and opts.inner.exists(path):
            self.known.add(path)
        return path in self.known


class WritesToTheRootFirst(Delegate):
    @hookimpl
    def write(self, opts: Options, path: str, data: Any) -> None:
        name = f"upload-{uuid.uuid4().hex}"
        opts.inner.write(name, b"")
        try:
            opts.inner.write(path, data)
        finally:
            opts.inner.delete(name)


class SpillsToASecondName(Delegate):
    @hookimpl
    def write(self, opts: Options, path: str, data: Any) -> None:
        def spilling() -> Iterator[bytes]:
            size = 0
            for piece in pieces(data):
                if size <= 8 << 20 < (size := size + len(piece)):
                    opts.inner.write(f"{path}.part", b"")
                yield piece

        opts.inner.write(path, spilling())
        opts.inner.delete(f"{path}.part")


class TakesTwoSpellingsForOne(Delegate):
    @hookimpl
    def read(self, opts: Options, path: str) -> bytes:
        return opts.inner.read(path if ".." in path else str(PurePosixPath(path)))


class IgnoresASlashAtTheEnd(Delegate):
    @hookimpl
    def exists(self, opts: Options, path: str) -> bool:
        return opts.inner.exists(path.rstrip("/") if path.strip("/.") else path)


class MakesRoom(Delegate):
    @hookimpl
    def write(self, opts: Options, path: str, data: Any) -> None:
        above = path.rpartition("/")[0]
        if above and opts.inner.exists(above):
            opts.inner.delete(above)
        opts.inner.write(path, data)


class RaisesWhatTheDiskRaises(InTheFolder):
    @hookimpl
    def read(self, opts: Options, path: str) -> bytes:
        try:
            return opts.inner.read(path)
        except NotFound:
            return self.file(path).read_bytes() if ".." not in path else b""


class NeedsALongerTemporaryName(Delegate):
    @hookimpl
    def write(self, opts: Options, path: str, data: Any) -> None:
        name = f".{path.rpartition('/')[2]}.{os.getpid()}.tmp"
        if len(name.encode()) > 255:
            raise OSError(f"File name too long: {name!r}")
        opts.inner.write(path, data)


class NormalisesNames(Delegate):
    @hookimpl
    def write(self, opts: Options, path: str, data: Any) -> None:
        opts.inner.write(unicodedata.normalize("NFC", path), data)

    @hookimpl
    def read(self, opts: Options, path: str) -> bytes:
        return opts.inner.read(unicodedata.normalize("NFC", path))


class StripsNames(Delegate):
    @hookimpl
    def write(self, opts: Options, path: str, data: Any) -> None:
        opts.inner.write(path.strip(), data)

    @hookimpl
    def read(self, opts: Options, path: str) -> bytes:
        return opts.inner.read(path.strip())


class PassesOnANul(InTheFolder):
    @hookimpl
    def write(self, opts: Options, path: str, data: Any) -> None:
        self.file(path).lstat() if "\0" in path else opts.inner.write(path, data)


class ListsFolderByFolder(Delegate):
    @hookimpl
    def list(self, opts: Options, prefix: str) -> list[str]:
        return sorted(opts.inner.list(prefix), key=lambda path: path.split("/"))


class ListsWithoutCase(Delegate):
    @hookimpl
    def list(self, opts: Options, prefix: str) -> list[str]:
        return sorted(opts.inner.list(prefix), key=str.casefold)


# --- sources and contents ---


class ClosesTheCallersFile(Delegate):
    @hookimpl
    def write(self, opts: Options, path: str, data: Any) -> None:
        opts.inner.write(path, data)
        if hasattr(data, "close"):
            data.close()


class RewindsTheCallersFile(Delegate):
    @hookimpl
    def write(self, opts: Options, path: str, data: Any) -> None:
        if hasattr(data, "seek"):
            data.seek(0)
        opts.inner.write(path, data)


class ReadsAFileOnce(Delegate):
    @hookimpl
    def write(self, opts: Options, path: str, data: Any) -> None:
        opts.inner.write(path, data.read(1 << 30) if hasattr(data, "read") else data)


class AsksAFileForItsSize(Delegate):
    @hookimpl
    def write(self, opts: Options, path: str, data: Any) -> None:
        if hasattr(data, "read"):
            start = data.tell()
            size = data.seek(0, io.SEEK_END) - start
            data.seek(start)
            data = data.read(size)
        opts.inner.write(path, data)


class LocksWhileItReads(Delegate):
    def __init__(self) -> None:
        self.lock = threading.Lock()

    @hookimpl
    def read(self, opts: Options, path: str) -> bytes:
        if not self.lock.acquire(timeout=1):
            raise OSError("would have waited for ever")
        try:
            return opts.inner.read(path)
        finally:
            self.lock.release()

    @hookimpl
    def write(self, opts: Options, path: str, data: Any) -> None:
        with self.lock:
            opts.inner.write(path, data)


class SkipsWhatHasTheSameSize(Delegate):
    @hookimpl
    def write(self, opts: Options, path: str, data: Any) -> None:
        content = b"".join(pieces(data))
        if not opts.inner.exists(path) or len(opts.inner.read(path)) != len(content):
            opts.inner.write(path, content)


class UnpacksWhatIsPacked(Delegate):
    @hookimpl
    def read(self, opts: Options, path: str) -> bytes:
        content = opts.inner.read(path)
        return gzip.decompress(content) if content.startswith(b"\x1f\x8b") else content


class GuessesFromTheSuffix(Delegate):
    @hookimpl
    def stream(self, opts: Options, path: str, chunk_size: int) -> Iterator[bytes]:
        for piece in opts.inner.stream(path, chunk_size):
            yield re.sub(rb"\n$", b"", piece) if path.endswith(".json") else piece


_LINK = "a_link_that_leaves_the_root_is_refused"
_LEFT = "a_write_leaves_the_blob_and_nothing_else"
_TEMPORARY = "a_listing_never_has_a_temporary_name"
_MEMORY = "a_write_takes_constant_memory"
_SPELLING = "a_second_spelling_of_a_path_is_refused"
_LETTERS = "two_spellings_of_a_letter_are_two_names"
_BELOW = "a_name_below_a_blob_is_stored_or_refused"
_ORDER = "a_listing_is_in_the_order_of_the_whole_paths"

MUTANTS = [
    Mutant(
        "blob_store",
        adapter,
        f"test_{killed_by}",
        inner={"use": "fsspec", "url": str(ROOT)},
        fixtures={"root": str(ROOT)},
    )
    for adapter, killed_by in (
        (FollowsLinks(), _LINK),
        (WritesThroughLinks(), _LINK),
        (ListsWhatLinksLeadTo(), _LINK),
        (ComparesPathsAsTexts(), "a_folder_next_to_the_root_is_outside"),
        (LeavesAHiddenCopy(), _LEFT),
        (LeavesWhatFailed(), _LEFT),
        (LeavesWhatWasStopped(), _LEFT),
        (HidesWhatLooksTemporary(), "a_name_that_the_store_uses_itself_is_a_name_or_refused"),
        (KeepsBlobsToItsOwner(), "a_blob_has_the_permissions_of_any_new_file"),
        (
            RemovesFoldersUnderWriters(),
            "writers_and_deleters_of_one_folder_do_not_disturb_each_other",
        ),
        (JoinsWhatItWrites(), _MEMORY),
        (WritesFilesByLines(), _MEMORY),
        (KeepsFilesOpen(), "a_stream_keeps_no_file_open"),
        (RaisesWhatTheDiskRaises(), _BELOW),
        (PassesOnANul(), "a_name_that_is_no_text_is_stored_or_refused"),
    )
]
MUTANTS += [
    Mutant("blob_store", adapter, f"test_{killed_by}")
    for adapter, killed_by in (
        (DeletesATree(), "deleting_a_folder_deletes_nothing"),
        (RemembersWhatExists(), "what_was_looked_at_and_deleted_is_gone"),
        (WritesToTheRootFirst(), _TEMPORARY),
        (SpillsToASecondName(), _TEMPORARY),
        (TakesTwoSpellingsForOne(), _SPELLING),
        (IgnoresASlashAtTheEnd(), _SPELLING),
        (MakesRoom(), _BELOW),
        (NeedsALongerTemporaryName(), "a_name_may_be_as_long_as_a_file_system_allows"),
        (NormalisesNames(), _LETTERS),
        (StripsNames(), _LETTERS),
        (ListsFolderByFolder(), _ORDER),
        (ListsWithoutCase(), _ORDER),
        (ClosesTheCallersFile(), "a_file_is_read_from_where_it_is_and_stays_open"),
        (RewindsTheCallersFile(), "a_file_is_read_from_where_it_is_and_stays_open"),
        (ReadsAFileOnce(), "a_file_need_not_seek_nor_return_all_at_once"),
        (AsksAFileForItsSize(), "a_file_need_not_seek_nor_return_all_at_once"),
        (LocksWhileItReads(), "the_source_may_be_the_store_itself"),
        (SkipsWhatHasTheSameSize(), "a_write_of_the_same_size_replaces"),
        (UnpacksWhatIsPacked(), "no_content_and_no_suffix_means_anything"),
        (GuessesFromTheSuffix(), "no_content_and_no_suffix_means_anything"),
    )
]
