"""Rows kept in a temporary file, to be looked up by index."""

from __future__ import annotations

import mmap
import pickle
import tempfile
from array import array
from collections.abc import Iterable
from pathlib import Path
from typing import Any


class Spool:
    """Rows on disk, with eight bytes of memory for each.

    The file has no name, or vanishes with the process, so it only holds what this process wrote.
    Several threads may read at once.

    Args:
        rows: the rows.
        folder: where the file is created; the system's folder of temporary files if None.
    """

    def __init__(self, rows: Iterable[dict[str, Any]], folder: Path | None) -> None:
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
        self._ends = array("q", [0])
        with tempfile.TemporaryFile(dir=folder) as file:
            end = 0
            for row in rows:
                end += file.write(pickle.dumps(row, pickle.HIGHEST_PROTOCOL))
                self._ends.append(end)
            file.flush()
            self._data: Any = mmap.mmap(file.fileno(), end, access=mmap.ACCESS_READ) if end else b""

    def __len__(self) -> int:
        return len(self._ends) - 1

    def look_up(self, places: slice | list[int]) -> list[dict[str, Any]]:
        """Return new copies of the rows at these indices."""
        numbers = range(len(self))[places] if isinstance(places, slice) else places
        ends, data = self._ends, self._data
        return [pickle.loads(data[ends[place] : ends[place + 1]]) for place in numbers]
