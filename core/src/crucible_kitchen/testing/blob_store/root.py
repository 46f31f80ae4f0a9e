"""What a store that keeps its blobs as files does in its folder."""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ...errors import AdapterError, InvalidInput
from ...ports import BlobStore
from ..conformance import since
from ..refusal import refuses
from .fixtures import MIB, BlobStoreFixtures, holds, refuses_everywhere


class _Stopped(KeyboardInterrupt):
    """Ctrl-C, which is not an `Exception`."""


class Root(BlobStoreFixtures):
    """Links, leftovers, permissions. Each test needs the fixture `root`."""

    @pytest.fixture
    def files(self, root: Path | str | None) -> Path:
        """The folder of the blobs."""
        return Path(str(self.given(root, "root")))

    @pytest.fixture
    def sibling(self, folder: str, files: Path) -> Iterator[Path]:
        """A folder next to that of the blobs, whose name begins with the same letters."""
        path = files.with_name(f"{files.name}-{folder}")
        path.mkdir(parents=True)
        yield path
        shutil.rmtree(path)

    @since("1.5")
    def test_a_link_that_leaves_the_root_is_refused(
        self, blob_store: BlobStore, folder: str, files: Path, tmp_path_factory: Any
    ) -> None:
        """A symbolic link out of the root, to a file, a folder or nothing, is `InvalidInput` on
        the way of every callback, and is not listed; what it leads to stays as it is.

        Usually broken by looking at the text of a path alone: whoever may write a link into the
        folder then reads and overwrites any file of whoever trains.
        """
        outside = tmp_path_factory.mktemp("outside")
        (outside / "secret").write_bytes(b"secret")
        blob_store.write(f"{folder}/blob", b"content")
        (files / folder / "file").symlink_to(outside / "secret")
        (files / folder / "folder").symlink_to(outside, target_is_directory=True)
        (files / folder / "nothing").symlink_to(outside / "new")
        for name in ("file", "folder/secret", "folder/new", "folder/sub/new", "nothing"):
            refuses_everywhere(blob_store, f"{folder}/{name}")
        if blob_store.supports("list"):
            assert blob_store.list(f"{folder}/") == [f"{folder}/blob"]
            assert blob_store.list(f"{folder}/folder/") == []
        assert [path.name for path in outside.iterdir()] == ["secret"]
        assert (outside / "secret").read_bytes() == b"secret"

    @since("1.5")
    def test_a_folder_next_to_the_root_is_outside(
        self, blob_store: BlobStore, folder: str, files: Path, sibling: Path
    ) -> None:
        """A folder whose name begins with that of the root is not below it, however it is named:
        by `..`, by its absolute path, or by a link.

        Usually broken by comparing paths as texts, by `startswith`.
        """
        blob_store.write(f"{folder}/blob", b"content")
        (sibling / "blob").write_bytes(b"secret")
        (files / folder / "link").symlink_to(sibling, target_is_directory=True)
        inside = str((files / folder / "blob").absolute())
        for path in (f"../{sibling.name}/blob", str(sibling / "blob"), inside, f"{folder}/link/x"):
            refuses_everywhere(blob_store, path)
        assert [path.read_bytes() for path in sibling.iterdir()] == [b"secret"]

    @since("1.5")
    def test_a_write_leaves_the_blob_and_nothing_else(
        self, blob_store: BlobStore, folder: str, files: Path
    ) -> None:
        """Once a write has ended, the folder holds the blobs and no other file: after a success,
        after a failure of the source, and when the program is stopped meanwhile.

        Usually broken by `except Exception`, which Ctrl-C is not, and by a hidden name that is
        never removed: a disk is full of them a year later.
        """

        def ending(error: BaseException) -> Iterator[bytes]:
            for _ in range(12):
                yield bytes(MIB)
            raise error

        for path in (f"{folder}/blob", f"{folder}/sub/blob"):
            refuses(
                AdapterError,
                blob_store.write,
                path,
                ending(ValueError("the source of the data failed")),
            )
            with pytest.raises(_Stopped):
                blob_store.write(path, ending(_Stopped()))
            assert _below(files / folder) == set()
        for content in (b"first", bytes(12 * MIB), b"second"):
            blob_store.write(f"{folder}/blob", content)
            blob_store.write(f"{folder}/blob", iter([content, b"!"]))
            assert _below(files / folder) == {"blob"}
        for error in (ValueError("the source of the data failed"), _Stopped()):
            with pytest.raises((AdapterError, _Stopped)):
                blob_store.write(f"{folder}/blob", ending(error))
            assert _below(files / folder) == {"blob"}
            holds(blob_store, f"{folder}/blob", b"second!")

    @since("1.5")
    def test_a_name_that_the_store_uses_itself_is_a_name_or_refused(
        self, blob_store: BlobStore, folder: str, files: Path
    ) -> None:
        """A blob may be named as an unfinished write is: then it is read and listed like any
        other, or the name is `InvalidInput`; what a caller stores is never hidden.

        Usually broken by a listing that leaves out whatever looks temporary.
        """
        before = _below(files)
        seen: set[str] = set()

        def watching() -> Iterator[bytes]:
            for _ in range(12):
                yield bytes(MIB)
                seen.update(_below(files) - before)

        blob_store.write(f"{folder}/blob", watching())
        for used in sorted(seen - {f"{folder}/blob"}):
            path = f"{folder}/{used.rpartition('/')[2]}"
            try:
                blob_store.write(path, b"mine")
            except InvalidInput:
                continue
            holds(blob_store, path, b"mine")
            if blob_store.supports("list"):
                assert path in blob_store.list(f"{folder}/")

    @since("1.5")
    def test_a_blob_has_the_permissions_of_any_new_file(
        self, blob_store: BlobStore, folder: str, files: Path
    ) -> None:
        """Who may read a blob is what the umask of the process says, not the adapter.

        Usually broken by `mkstemp`, whose files only their owner can read: the colleague who
        should evaluate the run cannot.
        """
        blob_store.write(f"{folder}/blob", b"content")
        blob_store.write(f"{folder}/pieces", iter([b"con", b"tent"]))
        (files / folder / "mine").write_bytes(b"")
        expected = stat.S_IMODE(os.stat(files / folder / "mine").st_mode)
        (files / folder / "mine").unlink()
        for name in ("blob", "pieces"):
            mode = stat.S_IMODE(os.stat(files / folder / name).st_mode)
            assert mode == expected, f"{mode:o} instead of {expected:o}"


def _below(folder: Path) -> set[str]:
    """Return the paths of everything below a folder that is not a folder."""
    found = (path for path in folder.rglob("*") if path.is_symlink() or not path.is_dir())
    return {path.relative_to(folder).as_posix() for path in found}
