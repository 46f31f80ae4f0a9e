"""The files of data sets of the Hub that were downloaded, and which version that was."""

from __future__ import annotations

import json
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any
from urllib.parse import quote

from .files import DataFile
from .library import Files, opened
from .sources import Source


class Kept:
    """One data set, in one configuration.

    Args:
        source: the data set.
        name: its configuration.
        cache_dir: the folder of what is downloaded; the library's own if None.
    """

    def __init__(self, source: Source, name: str | None, cache_dir: Path | None) -> None:
        from huggingface_hub import constants

        self._repo_id = source.path
        self._cache = cache_dir / "hub" if cache_dir else Path(constants.HF_HUB_CACHE)
        # Written when every file is there, so that a part of them is never taken for all.
        folder = self._cache / "crucible" / quote(source.path, safe="")
        self._record = folder / f"{quote(name or '', safe='')}.json"

    def download(self, files: Files, commit: str, token: str | None) -> dict[str, list[DataFile]]:
        """Download the files that are not here yet, and return them."""
        from huggingface_hub import hf_hub_download

        base = f"hf://datasets/{self._repo_id}@{commit}/"

        def fetched(address: str) -> DataFile:
            if not address.startswith(base):  # a README.md may name files of other places
                return DataFile(address, lambda: opened(address, token))
            path = Path(
                hf_hub_download(
                    self._repo_id,
                    address.removeprefix(base),
                    repo_type="dataset",
                    revision=commit,
                    cache_dir=self._cache,
                    token=token,
                )
            )
            return DataFile(address, lambda: path.open("rb"))

        with ThreadPoolExecutor(8) as pool:
            splits = {
                split: list(pool.map(fetched, names)) for split, names in files.splits.items()
            }
        self._remember({"commit": commit, **asdict(files)})
        return splits

    def last(self) -> tuple[Files, str] | None:
        """Return the files that were downloaded last, and their commit; None if none were."""
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
