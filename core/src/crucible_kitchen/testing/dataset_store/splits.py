"""Data sets, their splits and revisions."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ...errors import AdapterError, NotFound, Unsupported
from ...ports import DatasetStore
from ..conformance import since, unless_synthetic
from ..refusal import refuses
from .fixtures import MISSING, DatasetStoreFixtures, open_dataset, splits_of
from .rows import read, reading


class Splits(DatasetStoreFixtures):
    """`load_dataset` and `get_split`."""

    @unless_synthetic
    def test_a_missing_data_set_is_not_found(
        self,
        dataset_store: DatasetStore,
        dataset_id: str,
        split: str | None,
        missing_dataset_id: str,
        streaming: bool,
    ) -> None:
        """Opening a data set that does not exist is `NotFound`, when it is opened or, where it
        streams, when it is first read.

        Usually broken by the backend's own exception, which callers cannot know.
        """
        open_dataset(dataset_store, dataset_id, split, streaming)  # skips where nothing streams
        opened = reading(dataset_store, dataset_store.load_dataset)
        refuses(NotFound, opened, missing_dataset_id, streaming=streaming)

    def test_a_missing_split_is_not_found_and_the_splits_are_listed(
        self,
        dataset_store: DatasetStore,
        dataset_id: str,
        handle: Any,
        streaming: bool,
        splits: Any,
    ) -> None:
        """A split that does not exist is `NotFound`, by `load_dataset` and by `get_split`, and
        the message lists those that do.

        Usually broken by the backend's `ValueError`, or by falling back to the first split.
        """
        names = splits_of(dataset_store, dataset_id, splits)
        assert names, "no word of the error about a missing split is the name of a split"
        attempts: list[Callable[[], Any]] = [
            lambda: dataset_store.load_dataset(dataset_id, MISSING, streaming=streaming),
            lambda: dataset_store.get_split(handle, MISSING),
            lambda: dataset_store.get_split(dataset_store.shuffle(handle, 1), MISSING),
        ]
        for attempt in attempts:
            error = refuses(NotFound, attempt)
            for name in names:
                assert name in str(error)

    @since("1.5")
    def test_a_split_has_one_name(
        self,
        dataset_store: DatasetStore,
        dataset_id: str,
        handle: Any,
        streaming: bool,
        splits: Any,
    ) -> None:
        """The beginning of a split's name, a longer one, and one in capitals are `NotFound`.

        Usually broken by `startswith`: `train` is then `train_small`, if that comes first.
        """
        names = set(splits_of(dataset_store, dataset_id, splits))
        wrong = {other for n in names for other in (n[:-1], f"{n}x", n.swapcase(), f" {n}")}
        for other in sorted(wrong - names - {""}):
            refuses(NotFound, dataset_store.load_dataset, dataset_id, other, streaming=streaming)
            refuses(NotFound, dataset_store.get_split, handle, other)

    def test_get_split_has_the_stored_order(
        self,
        dataset_store: DatasetStore,
        dataset_id: str,
        handle: Any,
        streaming: bool,
        splits: Any,
    ) -> None:
        """`get_split` returns all rows of a split in the stored order, whatever was done to the
        handle that it is asked of, and leaves that as it was.

        Usually broken by a handle that keeps its shuffle, its part or its selection when the
        rows under it are exchanged.
        """
        store = dataset_store
        shuffled = store.shuffle(handle, 3)
        order = read(store, shuffled)
        starts = [handle, shuffled, store.take(shuffled, 2), store.skip(handle, 5)]
        for name in splits_of(store, dataset_id, splits):
            expected = read(store, open_dataset(store, dataset_id, name, streaming))
            for start in starts:
                assert read(store, store.get_split(start, name)) == expected, name
        assert read(store, shuffled) == order

    def test_a_split_may_be_chosen_later(
        self, dataset_store: DatasetStore, dataset_id: str, streaming: bool, splits: Any
    ) -> None:
        """A data set may be opened without a split; `get_split` then has the same rows as opening
        that split, and what has only one needs none.

        Usually broken by a handle that has forgotten what it was opened from.
        """
        store = dataset_store
        names = splits_of(store, dataset_id, splits)
        whole = open_dataset(store, dataset_id, None, streaming)
        assert names
        for name in names:
            expected = read(store, open_dataset(store, dataset_id, name, streaming))
            assert read(store, store.get_split(whole, name)) == expected, name
        if len(names) == 1:
            assert read(store, whole) == expected

    def test_of_several_splits_one_must_be_chosen(
        self,
        dataset_store: DatasetStore,
        dataset_id: str,
        streaming: bool,
        splits: Any,
        tmp_path: Path,
    ) -> None:
        """What has several splits and none chosen has no rows: reading it, or a part of it, is an
        error.

        Usually broken by a silent choice of the first: evaluated on what it was trained on, every
        model is excellent.
        """
        if self.dataset_is_the_kits:
            folder = tmp_path / "conformance-splits"
            folder.mkdir()
            for name in ("train", "test"):
                (folder / f"{name}.jsonl").write_text(f'{{"split": "{name}"}}\n' * 3)
            dataset_id, splits = str(folder), None
        if len(splits_of(dataset_store, dataset_id, splits)) < 2:
            pytest.skip("no data set of several splits is known that the store can open")
        whole = open_dataset(dataset_store, dataset_id, None, streaming)
        refuses(AdapterError, read, dataset_store, whole)
        refuses(AdapterError, reading(dataset_store, dataset_store.shuffle), whole, 1)

    @unless_synthetic
    @pytest.mark.parametrize("argument", ["name", "revision"])
    def test_a_configuration_or_revision_that_does_not_exist_is_refused(
        self,
        dataset_store: DatasetStore,
        dataset_id: str,
        split: str | None,
        handle: Any,
        streaming: bool,
        argument: str,
    ) -> None:
        """A `name` or `revision` that the data set does not have is `NotFound`; a store that knows
        none says `Unsupported`.

        Usually broken by an argument that is ignored: the record of the run then names a revision
        that was never read.
        """
        asked: dict[str, Any] = {argument: MISSING}
        refuses(
            (NotFound, Unsupported),
            dataset_store.load_dataset,
            dataset_id,
            split,
            streaming=streaming,
            **asked,
        )
