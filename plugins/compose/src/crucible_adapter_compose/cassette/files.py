"""Files that calls returned or wrote, kept in a folder next to the cassette.

`<file>.files/<digest>/` holds the files of one call, as they were. The digest is of their names and
contents, so that equal ones are kept once, and damage is found.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from crucible_kitchen import AdapterError, Unsupported, explain_os_errors

from .values import Json

_PIECE = 1 << 20


def digest_of(path: Path) -> str | None:
    """Return the digest of a file, or of the files in a folder; None if nothing is there."""
    found = _files_in(path)
    if not found and not path.is_dir():
        return None
    whole = hashlib.sha256()
    for name, file in sorted(found.items()):
        whole.update(f"{len(name.encode())} {name} {_sha256(file)}\n".encode())
    return whole.hexdigest()


def _files_in(path: Path) -> dict[str, Path]:
    if path.is_file():
        return {"": path}
    return {
        os.path.relpath(Path(folder, name), path): Path(folder, name)
        for folder, _, names in os.walk(path)
        for name in names
    }


def _sha256(file: Path) -> str:
    with file.open("rb") as source:
        return hashlib.file_digest(source, "sha256").hexdigest()


@dataclass(frozen=True, slots=True)
class Files:
    """The files of one cassette.

    Args:
        folder: where they are.
        largest: bytes of one call's files, beyond which they are not kept.
    """

    folder: Path
    largest: int

    @classmethod
    def of(cls, cassette: Path, largest: int) -> Files:
        """Return those of a cassette."""
        return cls(cassette.with_name(f"{cassette.name}.files"), largest)

    def keep(self, path: Path, masked: Callable[[str], str]) -> Json:
        """Keep a file or the files of a folder; return what stands for them.

        Args:
            path: the file or folder.
            masked: returns a text without secrets; files that hold one, or are named by one, are
                not kept.
        """
        with explain_os_errors(f"cannot keep the files of {path} in {self.folder}"):
            found = _files_in(path)
            size = sum(file.stat().st_size for file in found.values())
            name = path.name if path.is_file() else ""
            about: dict[str, Json] = {"name": masked(name), "files": len(found), "bytes": size}
            if size > self.largest:
                why = f"they have {size:,} bytes, more than its option max_file_bytes"
                return {"$files": {**about, "not_kept": why}}
            if any(_holds_secret(file, masked) for file in found.values()):
                return {"$files": {**about, "not_kept": "one of them holds a secret"}}
            if any(masked(each) != each for each in (name, *found)):
                return {"$files": {**about, "not_kept": "the name of one holds a secret"}}
            digest = digest_of(path)
            kept = self._kept(str(digest), name)
            if not kept.exists():
                self.folder.mkdir(parents=True, exist_ok=True)
                made = Path(tempfile.mkdtemp(dir=self.folder, suffix=".part"))
                try:
                    made.chmod(0o755)
                    for relative, file in found.items():
                        to = made / (relative or name)
                        to.parent.mkdir(parents=True, exist_ok=True)
                        shutil.copyfile(file, to)
                    made.rename(kept)
                except OSError:
                    if not kept.exists():  # not kept by another call meanwhile
                        raise
                finally:
                    shutil.rmtree(made, ignore_errors=True)
        return {"$files": {**about, "sha256": digest}}

    def path_of(self, plain: Json) -> Path:
        """Return the file or folder that was kept.

        Raises:
            Unsupported: it was not kept.
            AdapterError: it is not there, or was changed.
        """
        about = plain["$files"]
        if why := about.get("not_kept"):
            raise Unsupported(f"the files of this call are not on the cassette: {why}")
        name = Path(str(about["name"])).name  # a name, and not a way out of the folder
        path = self._kept(str(about["sha256"]), name) / name
        if digest_of(path) != about["sha256"]:
            raise AdapterError(
                f"the files of this call in {path} are missing, or were changed since they were "
                "recorded; restore them with the cassette"
            )
        return path

    def put_back(self, plain: Json, folder: Path) -> None:
        """Copy the files that a call wrote to another folder."""
        kept = self.path_of(plain)
        with explain_os_errors(f"cannot write to {folder}"):
            shutil.copytree(kept, folder, dirs_exist_ok=True, copy_function=shutil.copyfile)

    def _kept(self, digest: str, name: str) -> Path:
        return self.folder / hashlib.sha256(f"{digest} {name}".encode()).hexdigest()[:32]


def _holds_secret(file: Path, masked: Callable[[str], str]) -> bool:
    content = file.read_bytes()
    try:
        text = content.decode()
    except UnicodeDecodeError:
        text = content.decode("latin-1")
    return masked(text) != text
