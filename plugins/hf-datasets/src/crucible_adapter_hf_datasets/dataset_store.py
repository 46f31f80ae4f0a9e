"""Load data sets from local files and the Hugging Face Hub, with the `datasets` library."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated

from crucible_adapter_hf_hub import Limits
from crucible_kitchen import (
    AdapterOptions,
    FromEnv,
    InvalidInput,
    LocalPath,
    NotFound,
    Unsupported,
    check_positive,
    hookimpl,
)
from pydantic import Field, SecretStr

from .files import Bounds
from .loading import Split, load
from .sources import Source, find
from .views import Row, Selection, View


class Options(AdapterOptions):
    cache_dir: LocalPath | None = None
    """Folder of downloaded and converted data; the library's own if not set."""
    token: Annotated[SecretStr | None, FromEnv("HF_TOKEN")] = None
    """Access token of the Hub; without one, the login of `hf auth login` is used."""
    timeout: float = Field(default=10.0, gt=0)
    """Seconds to wait for the Hub's answer, or for the next bytes of a file."""
    answer_timeout: float = Field(default=120.0, gt=0)
    """Seconds until a request for information, such as a list of files, is answered completely."""
    stall_timeout: float = Field(default=60.0, gt=0)
    """Seconds within which at least 1024 bytes of a file of the Hub have to arrive."""
    max_answer_bytes: int = Field(default=64 << 20, gt=0)
    """Largest answer to a request for information in bytes; one page of it may have a quarter of
    that. The size of a file is limited by the listing."""
    max_expansion: float = Field(default=100.0, ge=1)
    """Largest size of a decompressed file of the Hub, as a multiple of its stored size. 16 MiB are
    always allowed."""
    max_row_bytes: int = Field(default=64 << 20, gt=0)
    """Largest row of a file of the Hub in characters, and largest JSON file that is one object."""


@dataclass(frozen=True, slots=True, eq=False)
class Handle:
    """A data set.

    Args:
        source: where it comes from.
        splits: all its splits.
        view: the rows of one of them; None until one is chosen.
    """

    source: Source
    splits: Mapping[str, Split]
    view: View | None = None


@hookimpl
def load_dataset(
    opts: Options,
    dataset_id: str,
    split: str | None,
    name: str | None,
    revision: str | None,
    streaming: bool,
) -> Handle:
    source = find(dataset_id)
    if source.local and revision is not None:
        raise Unsupported(f"{source.label}: has no revisions, but {revision!r} was requested")
    if source.files and name is not None:
        raise Unsupported(f"{source.label}: has no configurations, but {name!r} was requested")
    splits = load(
        source,
        name=name,
        revision=revision,
        streaming=streaming,
        cache_dir=opts.cache_dir,
        token=opts.token.get_secret_value() if opts.token else None,
        limits=Limits(opts.timeout, opts.answer_timeout, opts.stall_timeout, opts.max_answer_bytes),
        bounds=Bounds(opts.max_expansion, opts.max_row_bytes),
    )
    handle = Handle(source, splits)
    if split is None and len(splits) == 1:
        [split] = splits
    return handle if split is None else _choose(handle, split)


@hookimpl
def get_split(opts: Options, handle: Handle, split: str) -> Handle:
    return _choose(handle, split)


@hookimpl
def shuffle(opts: Options, handle: Handle, seed: int, buffer_size: int | None) -> Handle:
    check_positive("buffer_size", buffer_size)
    return _changed(handle, lambda view: view.shuffle(seed, buffer_size))


@hookimpl
def take(opts: Options, handle: Handle, count: int) -> Handle:
    _check_count(count)
    return _changed(handle, lambda view: view.take(count))


@hookimpl
def skip(opts: Options, handle: Handle, count: int) -> Handle:
    _check_count(count)
    return _changed(handle, lambda view: view.skip(count))


@hookimpl
def select(opts: Options, handle: Handle, selection: Selection) -> Handle:
    return _changed(handle, lambda view: view.select(selection))


@hookimpl
def to_list(opts: Options, handle: Handle) -> list[Row]:
    return list(itertools.chain.from_iterable(_view(handle).rows(1000)))


@hookimpl
def stream(opts: Options, handle: Handle, batch_size: int) -> Iterator[list[Row]]:
    check_positive("batch_size", batch_size)
    return _view(handle).rows(batch_size)


def _choose(handle: Handle, split: str) -> Handle:
    if split not in handle.splits:
        raise NotFound(
            f"{handle.source.label}: has no split {split!r}; it has {', '.join(handle.splits)}"
        )
    return replace(handle, view=handle.splits[split].view())


def _view(handle: Handle) -> View:
    if handle.view is None:
        raise InvalidInput(
            f"{handle.source.label}: choose a split first: {', '.join(handle.splits)}"
        )
    return handle.view


def _changed(handle: Handle, change: Callable[[View], View]) -> Handle:
    return replace(handle, view=change(_view(handle)))


def _check_count(count: int) -> None:
    if count < 0:
        raise InvalidInput(f"a number of rows must not be negative: {count}")


if TYPE_CHECKING:
    from crucible_kitchen.hookspecs import DatasetStoreOptionalSpec, DatasetStoreSpec

    import crucible_adapter_hf_datasets.dataset_store as this_module

    _: DatasetStoreSpec[Options, Handle] = this_module
    _optional: DatasetStoreOptionalSpec[Options, Handle] = this_module
