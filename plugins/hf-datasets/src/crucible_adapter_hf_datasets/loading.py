"""The splits of a data set, and how their rows are held: whole, or streamed."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Protocol, TypeAlias, cast

from crucible_adapter_hf_hub import Limits
from crucible_kitchen import AdapterError, InvalidInput

from . import formats, library
from .downloaded import DownloadedFiles
from .failures import translated
from .files import Bounds, DataFile, local
from .library import Files
from .remote import Remote, is_offline
from .sources import Source, kind_of_all
from .spool import Spool
from .views import Pipeline, Row, Table, View

Read: TypeAlias = Callable[[DataFile], Iterator[Row]]


class Split(Protocol):
    """The rows of a split."""

    def view(self) -> View:
        """Return every row in its stored order."""
        ...


class FileSplit:
    """A split of files that are read here.

    Args:
        source: the data set.
        files: the files, in order.
        read: yields the rows of one file.
        streaming: whether the files are read again each time, and their rows not kept.
        folder: where rows are kept; the system's folder of temporary files if None.
        remote: the data set of the Hub from which the files are streamed.
    """

    def __init__(
        self,
        source: Source,
        files: Sequence[DataFile],
        read: Read,
        streaming: bool,
        folder: Path | None,
        remote: Remote | None,
    ) -> None:
        self._source, self._files, self._read = source, files, read
        self._remote = remote
        self._streaming, self._folder = streaming, folder
        self._spool: Spool | None = None
        self._lock = threading.Lock()

    def view(self) -> View:
        if self._streaming:
            return Pipeline(self._rows)
        with self._lock:  # once, for all threads
            if self._spool is None:
                self._spool = Spool(self._rows(), self._folder)
        return Table(self._spool.look_up, range(len(self._spool)))

    def _rows(self) -> Iterator[Row]:
        rows: Iterator[Row] = itertools.chain.from_iterable(map(self._read, self._files))
        if not self._source.local:
            rows = _guarded(self._source, self._remote, rows)
        empty = True
        for row in rows:
            empty = False
            yield row
        if empty:
            raise InvalidInput(f"{self._source.label}: holds no rows")


def load(
    source: Source,
    name: str | None,
    revision: str | None,
    streaming: bool,
    cache_dir: Path | None,
    token: str | None,
    limits: Limits,
    bounds: Bounds,
) -> Mapping[str, Split]:
    """Return the splits, by name."""
    remote: Remote | None = None

    def splits(found: Files, files: Mapping[str, Iterable[DataFile]]) -> dict[str, Split]:
        read = partial(formats.read, kind=found.kind, options=found.options)
        return {
            split: FileSplit(source, list(part), read, streaming, cache_dir, remote)
            for split, part in files.items()
        }

    if source.files:
        kind = kind_of_all(source.label, map(str, source.files))
        return splits(Files(kind, {}, {}), {"train": map(local, source.files)})
    with library.quiet(), translated(source):
        if source.local:
            found = library.look_up(source, name, None, streaming, cache_dir)
            if not isinstance(found, Files):
                return found
            return splits(found, {s: map(local, map(Path, f)) for s, f in found.splits.items()})
        downloaded = DownloadedFiles(source, name, cache_dir)
        if is_offline(source, revision):
            if last := downloaded.last():
                return splits(last[0], downloaded.again(*last, bounds))
            return cast(
                "dict[str, Split]", library.look_up(source, name, None, streaming, cache_dir)
            )
        remote = Remote(source, revision, token, limits, bounds)
        found = library.look_up(source, name, remote, streaming, cache_dir)
        if not isinstance(found, Files):
            return found
        if not streaming:
            return splits(found, downloaded.download(found, remote))
        return splits(found, {s: map(remote.file, f) for s, f in found.splits.items()})


def _guarded(source: Source, remote: Remote | None, rows: Iterator[Row]) -> Iterator[Row]:
    """Yield rows of the Hub. A failure is translated, and raised after the last good row."""
    failure: AdapterError | None = None
    while failure is None:
        batch: list[Row] = []
        with library.quiet():
            try:
                with translated(source), remote.reading() if remote else nullcontext():
                    for row in itertools.islice(rows, 100):
                        batch.append(row)
            except AdapterError as error:
                failure = error
        yield from batch
        if len(batch) < 100:
            break
    if failure is not None:
        raise failure
