"""Calls of the `datasets` library, which is imported here when it is first used (it takes
seconds), and kept quiet.
"""

from __future__ import annotations

import logging
import pickle
import tempfile
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from crucible_kitchen import Unavailable

from .failures import explained
from .sources import Source
from .views import Columns, Pipeline, Table, View


def load(
    source: Source,
    name: str | None,
    revision: str | None,
    streaming: bool,
    cache_dir: Path | None,
    token: str | None,
) -> Mapping[str, Any]:
    """Return the `Dataset` or `IterableDataset` of every split, by name."""
    with _quiet(), explained(source):
        commit = None if source.local else _commit(source, revision, token)
        builder = _builder(source, name, commit, cache_dir, token)
        # All splits: they are prepared together anyway, and a missing one can be told from this.
        if streaming:
            return dict(builder.as_streaming_dataset())
        builder.download_and_prepare()
        return dict(builder.as_dataset())


def _builder(
    source: Source, name: str | None, commit: str | None, cache_dir: Path | None, token: str | None
) -> Any:
    """Return what makes the data set of its commit.

    Where the Hub fails after it told the commit, `datasets` takes the version of the data set that
    it loaded last, with no word of what went wrong (measured, 5.2.0). Asked with an empty cache, it
    says so.
    """
    from datasets import load_dataset_builder

    def made(cache: str | None) -> Any:
        return load_dataset_builder(
            source.path, name, revision=commit, cache_dir=cache, token=token, **source.arguments
        )

    builder = made(str(cache_dir) if cache_dir else None)
    if commit is None or type(builder).__module__ != "datasets.packaged_modules.cache.cache":
        return builder
    with tempfile.TemporaryDirectory(prefix="crucible-") as empty:
        made(empty)
    raise Unavailable(f"{source.label}: the hub failed while commit {commit} was looked up")


def _commit(source: Source, revision: str | None, token: str | None) -> str | None:
    """Return the commit to load.

    Asked for first, because `datasets` answers every failure of the Hub, a missing revision or a
    refused access, too, with whatever version of the data set it finds in its cache.
    """
    from huggingface_hub import HfApi, constants

    if not constants.HF_HUB_OFFLINE:
        commit: str | None = HfApi(token=token).dataset_info(source.path, revision=revision).sha
        return commit
    if revision is not None:
        raise Unavailable(
            f"{source.label}: offline, revision {revision!r} cannot be looked up; without a "
            "revision, the cached version is used",
            retryable=False,
        )
    return None


def view_of(source: Source, dataset: Any) -> View:
    """Return every row of a split in its stored order."""
    from datasets import IterableDataset

    if not isinstance(dataset, IterableDataset):

        def look_up(places: slice | list[int]) -> Columns:
            with _quiet(), explained(source):
                batch: Columns = dataset[places]
                return batch

        return Table(look_up, range(len(dataset)))

    # A stream of `datasets` keeps its position in itself: of two readers at once, one may get no
    # rows at all. So each reads a copy of its own, made as for the workers of a DataLoader.
    unread = pickle.dumps(dataset)

    def batches(size: int) -> Iterator[Columns]:
        iterator = pickle.loads(unread).iter(size)
        with _quiet(), explained(source):
            batch = next(iterator)  # none at all is refused, as where the split is held whole
        while batch is not None:
            yield batch
            with _quiet(), explained(source):
                batch = next(iterator, None)

    return Pipeline(batches)


_lock = threading.Lock()
_calls = 0
_before: tuple[bool, int, bool]


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep `datasets` from drawing progress bars, from logging errors that it raises as well, and
    from reporting each load, of a local file, too, to a server that counts them.

    These are settings of the whole process: the first of several calls at once puts them away,
    the last one back.
    """
    import datasets
    from datasets import config

    global _calls, _before
    with _lock:
        if _calls == 0:
            _before = (
                datasets.are_progress_bars_disabled(),
                datasets.logging.get_verbosity(),
                config.HF_UPDATE_DOWNLOAD_COUNTS,
            )
            datasets.disable_progress_bars()
            datasets.logging.set_verbosity(logging.CRITICAL)
            config.HF_UPDATE_DOWNLOAD_COUNTS = False
        _calls += 1
    try:
        yield
    finally:
        with _lock:
            _calls -= 1
            if _calls == 0:
                disabled, verbosity, config.HF_UPDATE_DOWNLOAD_COUNTS = _before
                datasets.logging.set_verbosity(verbosity)
                if not disabled:
                    datasets.enable_progress_bars()
