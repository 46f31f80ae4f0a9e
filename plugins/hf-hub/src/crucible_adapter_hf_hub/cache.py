"""One repository's folder in the cache, which is laid out as huggingface_hub documents it.

    models--org--name/
        refs/main                   the commit that `main` was resolved to last
        snapshots/<commit>/...      links to the files of a commit that were fetched
        blobs/...                   their content
        crucible/<commit>.json      every file that the commit has: this adapter's own record
        crucible/locks/...          held while a file is fetched
        crucible/incoming/...       files being fetched, not yet compared with the record

Only the record tells whether a snapshot is complete: after one file was downloaded, the folder
looks the same as that of a commit that only has this file.
"""

from __future__ import annotations

import json
import os
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path

from .listings import Listing, entry_of, listing_of
from .names import Repo, is_commit

_FORMAT = 1


class RepoCache:
    """The part of a repository that is on this disk."""

    def __init__(self, root: Path, repo: Repo) -> None:
        parts = [f"{repo.repo_type}s", *repo.repo_id.split("/")]
        self._root = root
        self._folder = root / "--".join(parts)
        self._records = self._folder / "crucible"

    def snapshot(self, commit: str) -> Path:
        """Return the folder of the commit's files, which may not exist."""
        return self._folder / "snapshots" / commit

    def commit_of(self, revision: str) -> str | None:
        """Return the commit to which a revision was last resolved, or None."""
        with suppress(FileNotFoundError, NotADirectoryError, IsADirectoryError):
            commit = self._ref(revision).read_text().strip()
            # Other libraries write here what a server sent. It becomes a part of paths.
            return commit if is_commit(commit) else None
        return None

    def keep_commit(self, revision: str, commit: str) -> None:
        if self.commit_of(revision) != commit:
            _write(self._ref(revision), commit)

    def listing(self, commit: str) -> Listing | None:
        """Return every file of the commit, or None without a record of it."""
        try:
            record = json.loads(self._record(commit).read_bytes())
            if record["format"] != _FORMAT:
                return None
            return listing_of(
                (path, entry_of(entry["size"], entry["kind"], entry["digest"]))
                for path, entry in record["files"].items()
            )
        except (FileNotFoundError, ValueError, LookupError, TypeError, AttributeError):
            return None  # a damaged record is requested again

    def keep_listing(self, commit: str, listing: Listing) -> None:
        files = {path: asdict(entry) for path, entry in listing.items()}
        _write(self._record(commit), json.dumps({"format": _FORMAT, "files": files}, indent=1))

    def discard(self, file: Path) -> None:
        """Remove a file of a snapshot and the content that it links to."""
        content = file.resolve()
        if content.is_relative_to(self._root.resolve()):
            content.unlink(missing_ok=True)
        file.unlink(missing_ok=True)

    def lock(self, digest: str) -> Path:
        """Return the file to lock while content of this hash is removed or fetched."""
        folder = self._records / "locks"
        folder.mkdir(parents=True, exist_ok=True)
        return folder / digest

    def blob(self, digest: str) -> Path:
        """Return the path of the content with this hash, shared by all commits."""
        return self._folder / "blobs" / digest

    @contextmanager
    def incoming(self, digest: str) -> Iterator[Path]:
        """Provide an empty file for content that should have this hash; remove it at the end.

        The caller holds the lock, so other files for this hash were left by killed processes.
        """
        folder = self._records / "incoming"
        folder.mkdir(exist_ok=True)
        for leftover in folder.glob(f"{digest}.*"):
            leftover.unlink(missing_ok=True)
        content = folder / f"{digest}.{uuid.uuid4().hex}"
        content.touch(exist_ok=False)
        try:
            yield content
        finally:
            content.unlink(missing_ok=True)

    def keep(self, content: Path, digest: str) -> None:
        """Publish content that has this hash."""
        blob = self.blob(digest)
        blob.parent.mkdir(exist_ok=True)
        os.replace(content, blob)

    def link(self, file: Path, digest: str) -> None:
        """Make a file of a snapshot a link to the content of this hash."""
        blob = self.blob(digest)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.unlink(missing_ok=True)
        try:
            file.symlink_to(os.path.relpath(blob, file.parent))
        except OSError:  # a file system without links; huggingface_hub does the same
            os.replace(blob, file)

    def _ref(self, revision: str) -> Path:
        return self._folder / "refs" / revision

    def _record(self, commit: str) -> Path:
        return self._records / f"{commit}.json"


def _write(path: Path, text: str) -> None:
    """Write a file completely or not at all, even with concurrent readers and writers.

    A power cut may leave it empty, which readers treat as missing: nothing here is worth a sync.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=".", suffix=".tmp")
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
        os.chmod(temporary, 0o644)  # mkstemp's 0o600 would hide it from other users of the cache
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
