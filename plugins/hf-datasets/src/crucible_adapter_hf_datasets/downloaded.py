"""The downloaded files of a data set of the Hub, and the version that they belong to."""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any
from urllib.parse import quote

from .files import Bounds, DataFile, local
from .library import Files
from .remote import Remote, hub_cache, kept
from .sources import Source


class DownloadedFiles:
    """The downloaded files of one configuration of a data set.

    Args:
        source: the data set.
        name: its configuration.
        cache_dir: the folder of downloaded files; the library's own if None.
    """

    def __init__(self, source: Source, name: str | None, cache_dir: Path | None) -> None:
        self._source = source
        self._cache = cache_dir / "hub" if cache_dir else hub_cache()
        # Written when every file is there, so that a part of them never looks complete.
        folder = self._cache / "crucible" / quote(source.path, safe="")
        self._record = folder / f"{quote(name or '', safe='')}.json"

    def download(self, files: Files, remote: Remote) -> dict[str, list[DataFile]]:
        """Download the files that are missing, and return all."""
        splits = {}
        for split, addresses in files.splits.items():
            # A README.md may name files of other data sets.
            own = [address for address in addresses if address.startswith(remote.base)]
            paths = remote.fetch(map(remote.name_of, own), self._cache)
            here = dict(zip(own, paths, strict=True))
            splits[split] = [remote.file(address, here.get(address)) for address in addresses]
        self._remember({"commit": remote.commit, **asdict(files)})
        return splits

    def again(self, files: Files, commit: str, bounds: Bounds) -> dict[str, list[DataFile]]:
        """Return files that were downloaded earlier, without any request."""
        base = f"hf://datasets/{self._source.path}@{commit}/"
        splits = {}
        for split, addresses in files.splits.items():
            names = [address.removeprefix(base) for address in addresses]
            paths = kept(self._source, commit, names, self._cache)
            splits[split] = [
                local(path, address, bounds) for path, address in zip(paths, addresses, strict=True)
            ]
        return splits

    def last(self) -> tuple[Files, str] | None:
        """Return the files that were downloaded last, and their commit, or None."""
        try:
            found = json.loads(self._record.read_text(encoding="utf-8"))
        except (FileNotFoundError, ValueError):
            return None
        commit = found.pop("commit")
        return Files(**found), commit

    def _remember(self, record: dict[str, Any]) -> None:
        self._record.parent.mkdir(parents=True, exist_ok=True)
        unfinished = self._record.with_suffix(f".{os.getpid()}")
        unfinished.write_text(json.dumps(record), encoding="utf-8")
        unfinished.replace(self._record)
