"""Files of one commit: from the cache where they are right, else from the hub."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

from crucible_kitchen import Unavailable
from filelock import FileLock

from .cache import RepoCache
from .listings import Checker, Listing

_AT_ONCE = 8  # requests in flight, as many as huggingface_hub's own

Download = Callable[[str], object]
"""Puts the file of this path into the snapshot, unless something is there already."""


class CommitFiles:
    """The files of one commit on this disk.

    Args:
        what: the repository, for messages.
        download: None when offline.
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
        """Return where a file of the commit is, once it was fetched."""
        return self.folder.joinpath(*name.split("/"))

    def fetch(self, names: Iterable[str]) -> None:
        """Return when every one of these files is in the folder, and right.

        Raises:
            Unavailable: the hub sends something else than it lists, or, offline, files that are
                missing or damaged; the message names them.
        """
        if self._download is None:
            self._check(names)
            return
        with ThreadPoolExecutor(_AT_ONCE, "crucible-hf-hub") as pool:
            try:
                for done in as_completed([pool.submit(self._fetch, name) for name in names]):
                    done.result()
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise

    def _check(self, names: Iterable[str]) -> None:
        with ThreadPoolExecutor(_AT_ONCE, "crucible-hf-hub") as pool:
            asked = list(names)
            right = pool.map(self._is_right, asked)
            bad = [name for name, is_right in zip(asked, right, strict=True) if not is_right]
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
        # Under a lock, lest one process removes what another one has just fetched.
        with FileLock(self._cache.lock(entry.digest)):
            for _ in range(2):
                if self._is_right(name):
                    return
                self._cache.discard(path)
                self._download(name)
            if self._is_right(name):
                return
            self._cache.discard(path)
        raise Unavailable(
            f"{self._what}: the hub sends other content for {name!r} than it lists "
            f"({entry.size} bytes, {entry.digest})"
        )

    def _is_right(self, name: str) -> bool:
        return self._checker.is_right(self.path(name), self._listing[name])
