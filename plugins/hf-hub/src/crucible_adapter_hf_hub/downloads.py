"""Files of one commit: from the cache where they are right, else from the hub."""

from __future__ import annotations

import os
import shutil
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import TypeAlias

from crucible_kitchen import Unavailable
from filelock import FileLock

from .cache import RepoCache
from .listings import Checker, Entry, Listing

_CONCURRENCY = 8
"""Requests in flight, as in huggingface_hub."""

Download: TypeAlias = Callable[[str, Entry, Path], object]
"""Writes the file of this name and entry to a path."""


class CommitFiles:
    """The files of one commit on this disk.

    Args:
        what: the repository, for messages.
        commit: the id of the commit.
        listing: its files.
        cache: where they are kept.
        checker: compares them with the listing.
        download: fetches one; None when offline.
    """

    def __init__(
        self,
        what: str,
        commit: str,
        listing: Listing,
        cache: RepoCache,
        checker: Checker,
        download: Download | None,
    ) -> None:
        self._what = what
        self._listing = listing
        self._cache = cache
        self._checker = checker
        self._download = download
        self.folder = cache.snapshot(commit)

    def path(self, name: str) -> Path:
        """Return the path of a file of the commit, which exists once it was fetched."""
        return self.folder.joinpath(*name.split("/"))

    def fetch(self, names: Iterable[str]) -> None:
        """Put these files into the folder, unless they are there and match the listing.

        Raises:
            Unavailable: the hub sends content other than it lists, or, offline, files are missing
                or damaged; the message names them.
        """
        names = list(names)
        if self._download is None:
            self._check(names)
            return
        with ThreadPoolExecutor(_CONCURRENCY, "crucible-hf-hub") as pool:
            try:
                for done in as_completed([pool.submit(self._fetch, name) for name in names]):
                    done.result()
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise
        # Where "A" and "a" are one file, only the last of them is there.
        alike = Counter(map(_folded, names))
        lost = [n for n in names if alike[_folded(n)] > 1 and not self._is_right(n)]
        if lost:
            raise Unavailable(
                f"{self._what}: has files whose names differ only in capitalization, such as "
                f"{lost[0]!r}, which {self.folder} cannot hold",
                retryable=False,
            )

    def _check(self, names: Sequence[str]) -> None:
        with ThreadPoolExecutor(_CONCURRENCY, "crucible-hf-hub") as pool:
            right = pool.map(self._is_right, names)
            bad = [name for name, is_right in zip(names, right, strict=True) if not is_right]
        if bad:
            more = f" and {len(bad) - 3} more" if len(bad) > 3 else ""
            raise Unavailable(
                f"{self._what}: offline, and {len(bad)} of its files are missing or damaged in "
                f"{self.folder}: {', '.join(map(repr, bad[:3]))}{more}; call once with "
                "`offline = false` to fetch them",
                retryable=False,
                details={"files": bad},
            )

    def _fetch(self, name: str) -> None:
        assert self._download is not None
        if self._is_right(name):
            return
        path, entry = self.path(name), self._listing[name]
        # Under a lock, so that no process removes what another one has just fetched.
        with FileLock(self._cache.lock(entry.digest)):
            if self._is_right(name):
                return
            self._cache.discard(path)
            if not self._checker.is_right(self._cache.blob(entry.digest), entry):
                self._download_right(name, entry)
            self._cache.link(path, entry.digest)

    def _download_right(self, name: str, entry: Entry) -> None:
        """Publish the content of a file once it matches the listing."""
        assert self._download is not None
        with self._cache.incoming(entry.digest) as content:
            free = shutil.disk_usage(content.parent).free
            if free < entry.size:
                raise Unavailable(
                    f"{self._what}: the file {name!r} has {entry.size:,} bytes, and {free:,} are "
                    f"free in {self.folder.parent.parent}",
                    retryable=False,
                    no_effect=True,
                )
            for _ in range(2):
                self._download(name, entry, content)
                if self._checker.is_right(content, entry):
                    self._cache.keep(content, entry.digest)
                    return
                os.truncate(content, 0)
        raise Unavailable(
            f"{self._what}: the hub sends content for {name!r} that differs from its listing "
            f"({entry.size} bytes, {entry.digest})"
        )

    def _is_right(self, name: str) -> bool:
        return self._checker.is_right(self.path(name), self._listing[name])


def _folded(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()
