"""Calls of the `datasets` library, which is imported when it is first used (it takes seconds), and
kept quiet.

It decides which files of a folder, or of a data set of the Hub, make up which split. Files of a
format that `formats` knows are read there; the library reads the others (images, XML, ...).
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import pickle
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import MISSING, dataclass, fields
from functools import partial
from pathlib import Path
from typing import Any

from crucible_kitchen import InvalidInput, Unavailable, Unsupported

from . import formats
from .failures import translated
from .files import suffixes
from .remote import CARD, Remote, hub_cache
from .sources import Source, is_data, kind_of_all
from .views import Pipeline, Row, Table, View

_OPTIONS: Mapping[str, Mapping[str, str]] = {
    "json": {"field": "field", "encoding": "encoding"},
    "csv": {
        "sep": "sep",
        "delimiter": "sep",
        "names": "names",
        "column_names": "names",
        "encoding": "encoding",
    },
    "parquet": {"columns": "columns"},
    "arrow": {},
    "text": {"encoding": "encoding"},
}
"""For each module of `datasets`, those of its options (which a README.md may state for a
configuration) that are arguments of the readers in `formats`."""


@dataclass(frozen=True, slots=True)
class Files:
    """The files that make up a data set.

    Args:
        kind: their kind, one of `formats.KINDS`.
        options: arguments of its readers.
        splits: the paths or addresses (`hf://...`) of each split, in order.
    """

    kind: str
    options: Mapping[str, Any]
    splits: Mapping[str, Sequence[str]]


@dataclass(frozen=True, slots=True)
class LibrarySplit:
    """A split that `datasets` reads: a `Dataset` or an `IterableDataset`."""

    source: Source
    dataset: Any
    remote: Remote | None = None

    def view(self) -> View:
        """Return every row in its stored order."""
        from datasets import IterableDataset

        source, dataset = self.source, self.dataset
        if not isinstance(dataset, IterableDataset):

            def look_up(places: slice | list[int]) -> list[Row]:
                with quiet(), translated(source):
                    return _rows(dataset[places])

            return Table(look_up, range(len(dataset)))

        # A stream of `datasets` holds its own position: of two readers at once, one may get no rows
        # at all. So each reads a separate copy, made as for the workers of a DataLoader.
        unread = pickle.dumps(dataset)
        reading = self.remote.reading if self.remote else contextlib.nullcontext

        def rows() -> Iterator[Row]:
            iterator = pickle.loads(unread).iter(100)
            with quiet(), translated(source), reading():
                batch = next(iterator)  # an empty split is refused, as one that is held whole is
            while batch is not None:
                yield from _rows(batch)
                with quiet(), translated(source), reading():
                    batch = next(iterator, None)

        return Pipeline(rows)


def look_up(
    source: Source,
    name: str | None,
    remote: Remote | None,
    streaming: bool,
    cache_dir: Path | None,
) -> Files | Mapping[str, LibrarySplit]:
    """Return the files that make up a data set, or its splits if the library has to read them.

    Args:
        source: the data set.
        name: its configuration.
        remote: its commit; None for a folder, and offline.
        streaming: whether the library should stream the splits.
        cache_dir: the folder of what the library converts.
    """
    if remote is None:
        builder, found, module = _asked(source, name, None, cache_dir)
    else:
        remote.metadata()
        builder, found, module = remote.ask(partial(_asked, source, name, remote, cache_dir))
    if found:
        kind = kind_of_all(source.label, (file for files in found.values() for file in files))
        return Files(kind, _options(source, builder, module), found)
    # All splits: they are prepared together anyway, and this shows which ones exist.
    if streaming:
        with contextlib.nullcontext() if remote is None else remote.reading():
            prepared = builder.as_streaming_dataset()
    else:
        if remote is not None:
            every = itertools.chain.from_iterable((builder.config.data_files or {}).values())
            remote.fetch((remote.name_of(file) for file in every), hub_cache())
        with contextlib.nullcontext() if remote is None else remote.reading():
            builder.download_and_prepare()
        prepared = builder.as_dataset()
    return {split: LibrarySplit(source, dataset, remote) for split, dataset in prepared.items()}


def _asked(
    source: Source, name: str | None, remote: Remote | None, cache_dir: Path | None
) -> tuple[Any, dict[str, list[str]], str]:
    builder = _builder(source, name, remote, cache_dir)
    module = type(builder).__module__.split(".")[-1]
    return builder, _every_file(source, builder, module, remote), module


def _builder(
    source: Source, name: str | None, remote: Remote | None, cache_dir: Path | None
) -> Any:
    """Return the builder of the data set at its commit.

    If the Hub fails after it named the commit, `datasets` silently uses the version of the data set
    that it loaded last (measured, 5.2.0). With an empty cache it raises the failure.
    """
    from datasets import load_dataset_builder

    commit, token = (remote.commit, remote.token) if remote else (None, None)

    def made(cache: str | None) -> Any:
        return load_dataset_builder(
            source.path, name, revision=commit, cache_dir=cache, token=token
        )

    builder = made(str(cache_dir) if cache_dir else None)
    if commit is None or type(builder).__module__ != "datasets.packaged_modules.cache.cache":
        return builder
    with tempfile.TemporaryDirectory(prefix="crucible-") as empty:
        made(empty)
    raise Unavailable(f"{source.label}: the hub failed while commit {commit} was looked up")


def _every_file(
    source: Source, builder: Any, module: str, remote: Remote | None
) -> dict[str, list[str]]:
    """Return the data files of each split; {} if the library has to read them.

    In a folder with files of several formats, the library uses those of the most frequent one and
    silently drops the others, so it is asked for all.
    """
    from datasets import DownloadConfig
    from datasets.data_files import DataFilesDict, get_data_patterns

    if module == "cache":
        return {}
    every: Mapping[str, list[str]] = builder.config.data_files or {}
    if not _states_files(Path(source.path, CARD) if remote is None else remote.metadata()):
        download = DownloadConfig(token=remote.token if remote else None)
        base = source.path if remote is None else remote.base.rstrip("/")
        patterns = get_data_patterns(base, download_config=download)
        every = DataFilesDict.from_patterns(patterns, base_path=base, download_config=download)
    if remote is not None:
        for file in itertools.chain.from_iterable(every.values()):
            remote.check(file)
    rows = {
        str(split): [file for file in dict.fromkeys(files) if _is_rows(file)]
        for split, files in every.items()
    }
    rows = {split: files for split, files in rows.items() if files}
    # The library reads many `.md` files as a format that it calls "harbor".
    if module in _OPTIONS or module == "harbor":
        return rows
    # What the library reads may include a table: `metadata.csv` of images.
    others = [file for files in rows.values() for file in files if not _is_metadata(file)]
    if others:
        raise InvalidInput(
            f"{source.label}: holds {Path(others[0]).name}, which would be dropped, as its other "
            f"files are read as the format {module}; name the files, as in 'folder/*.jsonl'"
        )
    return {}


def _is_rows(file: str) -> bool:
    return bool(formats.kind_of(suffixes(file)[0])) and is_data(Path(file).name)


def _is_metadata(file: str) -> bool:
    return Path(file).stem == "metadata"


def _states_files(card: Path | None) -> bool:
    """Say whether a data set's README.md has configurations, which name their files."""
    from datasets.utils.metadata import MetadataConfigs
    from huggingface_hub import DatasetCard

    if card is None or not card.is_file():
        return False
    return bool(MetadataConfigs.from_dataset_card_data(DatasetCard.load(card).data))


def _options(source: Source, builder: Any, module: str) -> dict[str, Any]:
    """Return the options of a configuration as arguments of the readers."""
    from datasets import BuilderConfig

    known, arguments = _OPTIONS.get(module, {}), {}
    general = {field.name for field in fields(BuilderConfig)}
    for field in fields(builder.config):
        value = getattr(builder.config, field.name)
        default = field.default if field.default is not MISSING else None
        if field.name in general or value is None or value == default:
            continue
        if field.name not in known:
            raise Unsupported(
                f"{source.label}: its README.md sets the option {field.name!r} to {value!r}, which "
                f"is not known; known are {', '.join(known) or 'none'}"
            )
        arguments[known[field.name]] = value
    return arguments


def _rows(columns: Mapping[str, Sequence[Any]]) -> list[Row]:
    return [
        dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)
    ]


_lock = threading.Lock()
_calls = 0
_restore = contextlib.ExitStack()


@contextmanager
def quiet() -> Iterator[None]:
    """Keep `datasets` and the Hub's client from drawing progress bars, from logging errors that
    they also raise (and each attempt after one), and from reporting each load to a server that
    counts them.

    These are settings of the whole process: of several concurrent calls, the first changes them and
    the last restores them.
    """
    global _calls
    with _lock:
        if _calls == 0:
            _put_away(_restore)
        _calls += 1
    try:
        yield
    finally:
        with _lock:
            _calls -= 1
            if _calls == 0:
                _restore.close()


def _put_away(restore: contextlib.ExitStack) -> None:
    import datasets
    import huggingface_hub
    from datasets import config
    from huggingface_hub import constants
    from huggingface_hub.utils import are_progress_bars_disabled as hub_is_silent

    restore.callback(setattr, config, "HF_UPDATE_DOWNLOAD_COUNTS", config.HF_UPDATE_DOWNLOAD_COUNTS)
    config.HF_UPDATE_DOWNLOAD_COUNTS = False
    for library in (datasets, huggingface_hub):
        restore.callback(library.logging.set_verbosity, library.logging.get_verbosity())
        library.logging.set_verbosity(logging.CRITICAL)
    if not datasets.are_progress_bars_disabled():
        restore.callback(datasets.enable_progress_bars)
        datasets.disable_progress_bars()
    # An environment variable that enables progress bars overrides this, or causes a warning.
    if not hub_is_silent() and constants.HF_HUB_DISABLE_PROGRESS_BARS is None:
        restore.callback(huggingface_hub.utils.enable_progress_bars)
        huggingface_hub.utils.disable_progress_bars()
