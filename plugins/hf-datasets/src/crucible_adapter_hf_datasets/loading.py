"""The splits of a data set, and how their rows are held: whole, or streamed."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any, Protocol, cast

from crucible_adapter_hf_hub import Limits
from crucible_kitchen import AdapterError, InvalidInput

from . import formats, library
from .downloaded import DownloadedFiles
from .failures import translated
from .files import Bounds, DataFile, local
from .formats.columns import Columns, columns_of
from .library import Files
from .remote import Remote, is_offline
from .sources import Source, kind_of_all
from .spool import Spool
from .views import Pipeline, Row, Table, View


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
        kind: theirs, one of `formats.KINDS`.
        options: arguments of its readers.
        streaming: whether the files are read again each time, and their rows not kept.
        folder: where rows are kept; the system's folder of temporary files if None.
        remote: the data set of the Hub from which the files are streamed.
    """

    def __init__(
        self,
        source: Source,
        files: Sequence[DataFile],
        kind: str,
        options: Mapping[str, Any],
        streaming: bool,
        folder: Path | None,
        remote: Remote | None,
    ) -> None:
        self._source, self._files, self._remote = source, files, remote
        self._kind, self._options = kind, options
        self._streaming, self._folder = streaming, folder
        self._held: Spool | Columns | None = None
        self._lock = threading.Lock()

    def view(self) -> View:
        if self._streaming:
            return Pipeline(self._rows)
        with self._lock:  # once, for all threads
            if self._held is None:
                self._held = self._columns() or self._spool()
        return Table(self._held.look_up, range(len(self._held)))

    def _columns(self) -> Columns | None:
        if self._kind not in formats.COLUMNS:
            return None
        read = partial(formats.COLUMNS[self._kind], **self._options)
        if self._source.local:
            return columns_of(self._files, read, self._folder)
        reading = self._remote.reading() if self._remote else nullcontext()
        with library.quiet(), translated(self._source), reading:
            return columns_of(self._files, read, self._folder)

    def _spool(self) -> Spool:
        # What is read from texts is plain; columns may hold times, decimals and more.
        return Spool(self._rows(), self._folder, plain=self._kind not in formats.COLUMNS)

    def _rows(self) -> Iterator[Row]:
        read = partial(formats.read, kind=self._kind, options=self._options)
        rows: Iterator[Row] = itertools.chain.from_iterable(map(read, self._files))
        if not self._source.local:
            rows = _guarded(self._source, self._remote, rows)
        first = next(rows, None)
        if first is None:
            raise InvalidInput(f"{self._source.label}: holds no rows")
        return itertools.chain([first], rows)


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
        kind, options = found.kind, found.options
        return {
            split: FileSplit(source, list(part), kind, options, streaming, cache_dir, remote)
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
