"""Calls of the `datasets` library, which is imported here when it is first used (it takes
seconds), kept quiet, and its errors explained.
"""

from __future__ import annotations

import json
import logging
import pickle
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from crucible_kitchen import (
    AdapterError,
    InvalidInput,
    NotFound,
    RateLimited,
    Unauthorized,
    Unavailable,
)

from .sources import Source
from .views import Columns, Pipeline, Table, View

_STATUS: Mapping[int, type[AdapterError]] = {
    401: Unauthorized,
    403: Unauthorized,
    404: NotFound,
    429: RateLimited,
}

# By their names, since the Hub's client has changed its HTTP library before: the errors of the
# standard library, httpx and requests.
_NO_CONNECTION = frozenset({"ConnectionError", "TimeoutError", "TransportError"})

# What `datasets` says, beside StopIteration, of files without rows.
_NO_ROWS = ("corresponds to no data", "at least one example", "BatchSize must be greater than 0")


def load(
    source: Source,
    name: str | None,
    revision: str | None,
    streaming: bool,
    cache_dir: Path | None,
    token: str | None,
) -> Mapping[str, Any]:
    """Return the `Dataset` or `IterableDataset` of every split, by name."""
    import datasets

    with _explained(source):
        # All splits: they are prepared together anyway, and a missing one can be told from this.
        loaded = datasets.load_dataset(
            source.path,
            name,
            revision=None if source.local else _commit(source, revision, token),
            streaming=streaming,
            cache_dir=str(cache_dir) if cache_dir else None,
            token=token,
            **source.arguments,
        )
        return dict(loaded)


def _commit(source: Source, revision: str | None, token: str | None) -> str | None:
    """Return the commit to load.

    Asked for first, because `datasets` answers every failure of the Hub, a missing revision or a
    refused access, too, with whatever version of the data set it finds in its cache.
    """
    from huggingface_hub import HfApi, constants

    if not constants.HF_HUB_OFFLINE:
        return HfApi(token=token).dataset_info(source.path, revision=revision).sha
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
            with _explained(source):
                batch: Columns = dataset[places]
                return batch

        return Table(look_up, range(len(dataset)))

    # A stream of `datasets` keeps its position in itself: of two readers at once, one may get no
    # rows at all. So each reads a copy of its own, made as for the workers of a DataLoader.
    unread = pickle.dumps(dataset)

    def batches(size: int) -> Iterator[Columns]:
        iterator = pickle.loads(unread).iter(size)
        with _explained(source):
            batch = next(iterator)  # none at all is refused, as where the split is held whole
        while batch is not None:
            yield batch
            with _explained(source):
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


@contextmanager
def _explained(source: Source) -> Iterator[None]:
    """Turn what `datasets` and the libraries below it raise into what the contract says."""
    from datasets.exceptions import DatasetBuildError
    from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, RepositoryNotFoundError

    try:
        with _quiet():
            yield
    except GatedRepoError as error:
        raise Unauthorized(f"{source.label}: {error}") from error
    except RepositoryNotFoundError as error:  # for the Hub says 401 to those without a login
        raise NotFound(f"{source.label}: {error}") from error
    except HfHubHTTPError as error:
        kind = _STATUS.get(error.response.status_code, Unavailable)
        raise kind(f"{source.label}: {error}") from error
    except FileNotFoundError as error:
        raise NotFound(f"{source.label}: {error}") from error
    except StopIteration as error:
        raise InvalidInput(f"{source.label}: holds no rows") from error
    except (DatasetBuildError, ValueError) as error:
        cause = error.__cause__ if isinstance(error, DatasetBuildError) else error
        if "BuilderConfig" in str(cause) and "not found" in str(cause):
            raise NotFound(f"{source.label}: {cause}") from error
        if any(text in str(cause) for text in _NO_ROWS):
            raise InvalidInput(f"{source.label}: holds no rows ({cause})") from error
        raise InvalidInput(f"{_bad_line(source) or source.label}: {cause or error}") from error
    except Exception as error:
        if _NO_CONNECTION & {cls.__name__ for cls in type(error).__mro__}:
            raise Unavailable(f"{source.label}: {error}") from error
        raise


def _bad_line(source: Source) -> str | None:
    """Find the first line that is no JSON; the library's own messages name a block at best."""
    in_folder = sorted(Path(source.path).rglob("*")) if source.local and not source.files else ()
    for file in source.files or in_folder:
        if file.suffix in (".jsonl", ".ndjson"):
            with file.open("rb") as lines:
                for number, line in enumerate(lines, 1):
                    try:
                        if line.strip():
                            json.loads(line)
                    except ValueError:
                        return f"file {file}, line {number}"
    return None
