"""Data sets of made-up sums, under any name.

A row has every shape that workflows read: `prompt` and `completion`, `text`, `messages`, and, as
answers to the prompt, `chosen` and `rejected`.
"""

from __future__ import annotations

import hashlib
import operator
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from crucible_kitchen import IntArray, InvalidInput, NotFound, check_positive, hookimpl
from pydantic import Field, NonNegativeInt

from .conditions import Conditions, round_trip, synthetic  # noqa: F401

_LOAD_LATENCY = 0.02
_READ_LATENCY = 0.001
"""Seconds."""


class Options(Conditions):
    rows: dict[str, NonNegativeInt] = Field(default={"train": 1000, "test": 100}, min_length=1)
    """The splits, and the number of rows of each."""


@dataclass(frozen=True, slots=True, eq=False)
class Dataset:
    """A handle: rows of a split, by their indices in the split's stored order.

    Args:
        dataset_id, name, revision: what was loaded.
        split: None until one is chosen.
        indices: int64 `(n,)`, never modified.
    """

    dataset_id: str
    name: str | None
    revision: str | None
    split: str | None
    indices: IntArray


@hookimpl
def load_dataset(
    opts: Options,
    dataset_id: str,
    split: str | None,
    name: str | None,
    revision: str | None,
    streaming: bool,
) -> Dataset:
    round_trip(opts, _LOAD_LATENCY)
    # Other stores also give a single file one split, so their configuration runs unchanged.
    if split is None and (len(opts.rows) == 1 or PurePath(dataset_id).suffix):
        split = next(iter(opts.rows))
    whole = Dataset(dataset_id, name, revision, None, np.arange(0))
    return whole if split is None else _split(opts, whole, split)


@hookimpl
def get_split(opts: Options, handle: Dataset, split: str) -> Dataset:
    round_trip(opts, 0.0)
    return _split(opts, handle, split)


@hookimpl
def shuffle(opts: Options, handle: Dataset, seed: int, buffer_size: int | None) -> Dataset:
    check_positive("buffer_size", buffer_size)
    indices = _indices(opts, handle)
    try:
        number = operator.index(seed)
    except TypeError:
        raise InvalidInput(f"a seed is an integer, not {seed!r}") from None
    # NumPy promises that the raw numbers of a bit generator never change; permutations may.
    keys = np.random.PCG64(number % 2**64).random_raw(len(indices))
    return replace(handle, indices=indices[np.argsort(keys, kind="stable")])


@hookimpl
def take(opts: Options, handle: Dataset, count: int) -> Dataset:
    return replace(handle, indices=_indices(opts, handle)[: _count(count)])


@hookimpl
def skip(opts: Options, handle: Dataset, count: int) -> Dataset:
    return replace(handle, indices=_indices(opts, handle)[_count(count) :])


@hookimpl
def select(opts: Options, handle: Dataset, selection: range | Sequence[int]) -> Dataset:
    indices = _indices(opts, handle)
    chosen = np.asarray(selection, dtype=None if len(selection) else np.int64)
    if chosen.ndim != 1 or chosen.dtype.kind not in "iu":
        raise InvalidInput(f"select takes a flat sequence of integers, not {selection!r}")
    if chosen.size and not (chosen.min() >= 0 and chosen.max() < len(indices)):
        raise InvalidInput(
            f"rows {chosen.min()} to {chosen.max()} were selected; there are 0 to "
            f"{len(indices) - 1}"
        )
    return replace(handle, indices=indices[chosen])


@hookimpl
def to_list(opts: Options, handle: Dataset) -> list[dict[str, Any]]:
    indices = _indices(opts, handle)
    round_trip(opts, _READ_LATENCY)
    return _rows(handle, indices)


@hookimpl
def stream(opts: Options, handle: Dataset, batch_size: int) -> Iterator[list[dict[str, Any]]]:
    check_positive("batch_size", batch_size)
    indices = _indices(opts, handle)
    for start in range(0, len(indices), batch_size):
        round_trip(opts, _READ_LATENCY)
        yield _rows(handle, indices[start : start + batch_size])


def _split(opts: Options, handle: Dataset, split: str) -> Dataset:
    if split not in opts.rows:
        raise NotFound(
            f"{handle.dataset_id!r} has no split {split!r}; there are {', '.join(opts.rows)}"
        )
    return replace(handle, split=split, indices=np.arange(opts.rows[split]))


def _indices(opts: Options, handle: Dataset) -> IntArray:
    if handle.split is None:
        raise InvalidInput(
            f"{handle.dataset_id!r} has the splits {', '.join(opts.rows)}; choose one by get_split"
        )
    return handle.indices


def _count(count: int) -> int:
    if count < 0:
        raise InvalidInput(f"a number of rows must not be negative: {count}")
    return count


def _rows(handle: Dataset, indices: IntArray) -> list[dict[str, Any]]:
    """Make rows. Each depends only on the data set, its configuration, the split and its index."""
    named = f"{handle.dataset_id}/{handle.name}/{handle.split}"
    seed = hashlib.sha256(named.encode(errors="surrogatepass")).digest()[:8]
    bits = _mixed(indices.astype(np.uint64) + np.frombuffer(seed, "<u8"))
    numbers = (10 + (bits >> np.uint64(shift)) % np.uint64(90) for shift in (0, 32))
    return [_row(a, b) for a, b in zip(*(each.tolist() for each in numbers), strict=True)]


def _mixed(values: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """Return well mixed bits of each value: a step of SplitMix64, for all rows at once, since a
    generator for each row takes ten times as long as making the row.
    """
    values = values * np.uint64(0x9E3779B97F4A7C15)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        values = (values ^ (values >> np.uint64(shift))) * np.uint64(factor)
    return values ^ (values >> np.uint64(31))


def _row(a: int, b: int) -> dict[str, Any]:
    prompt, completion = f"What is {a} + {b}?", str(a + b)
    return {
        "prompt": prompt,
        "completion": completion,
        "text": f"{prompt} {completion}",
        "messages": [
            {"role": "user", "content": prompt},
            {"role": "assistant", "content": completion},
        ],
        "chosen": completion,
        "rejected": str(a + b + 1),
    }


if TYPE_CHECKING:
    from crucible_kitchen.hookspecs import DatasetStoreOptionalSpec, DatasetStoreSpec

    import kitchen_noop.dataset_store as this_module

    _: DatasetStoreSpec[Options, Dataset] = this_module
    _optional: DatasetStoreOptionalSpec[Options, Dataset] = this_module
