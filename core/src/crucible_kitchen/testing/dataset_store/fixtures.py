"""The fixtures of a dataset store's tests."""

from __future__ import annotations

import contextlib
import inspect
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from ...calls.synthetic import synthetic
from ...errors import AdapterError, NotFound, Unsupported
from ...ports import DatasetStore
from ..conformance import Conformance
from ..refusal import refuses
from .rows import read, row, rows_given, texts

MISSING = "conformance-missing"


class DatasetStoreFixtures(Conformance):
    """The fixtures of the suite."""

    @pytest.fixture
    def rows(self) -> Sequence[Mapping[str, Any]] | str | None:
        """The rows of `dataset_id`, in their stored order, or the path of a JSON Lines file of
        them. None, which is the default where `dataset_id` is overridden, is unknown: then the
        store's own `to_list` is what the rest is compared with.
        """
        if not self.dataset_is_the_kits:
            return None
        return [row(number) for number in range(120)]

    @pytest.fixture
    def dataset_id(self, rows: Any, tmp_path: Path) -> str:
        """The data set. By default the path of a JSON Lines file of `rows`. It must have 20 rows
        or more; some hundred are best, for it is read often.
        """
        assert rows is not None, "with `rows` unknown, give the fixture `dataset_id`"
        file = tmp_path / "conformance-rows.jsonl"
        lines = [json.dumps(row, ensure_ascii=False) for row in rows_given(rows)]
        file.write_bytes("".join(f"{line}\n" for line in lines).encode())
        return str(file)

    @pytest.fixture
    def split(self) -> str | None:
        """The split to open. None, the default, is for a data set that has only one."""
        return None

    @pytest.fixture
    def splits(self) -> Sequence[str] | str | None:
        """The names of all splits of `dataset_id`, or these with commas between. None, the
        default, is unknown: the splits are then those that the error about a missing one lists.
        """
        return None

    @pytest.fixture
    def missing_dataset_id(self, tmp_path: Path) -> str:
        """A data set that does not exist."""
        return str(tmp_path / f"{MISSING}.jsonl")

    @pytest.fixture(params=[False, True], ids=["whole", "streaming"])
    def streaming(self, request: pytest.FixtureRequest) -> bool:
        """Whether the handle streams. Not to be overridden."""
        return bool(request.param)

    @pytest.fixture
    def handle(
        self, dataset_store: DatasetStore, dataset_id: str, split: str | None, streaming: bool
    ) -> Any:
        """The data set, opened. Not to be overridden."""
        return open_dataset(dataset_store, dataset_id, split, streaming)

    @pytest.fixture
    def stored(
        self, dataset_store: DatasetStore, dataset_id: str, split: str | None, rows: Any
    ) -> list[str]:
        """The rows of the data set as text, in their stored order. Not to be overridden."""
        if rows is not None and not synthetic(dataset_store):
            found = texts(rows_given(rows))
        else:
            found = read(dataset_store, dataset_store.load_dataset(dataset_id, split))
        assert len(found) >= 20, "give a `dataset_id` of at least 20 rows"
        assert len(set(found)) > len(found) // 2, "give a `dataset_id` whose rows differ"
        return found

    def written(
        self, store: DatasetStore, streaming: bool, file: Path, rows: Sequence[Mapping[str, Any]]
    ) -> Any:
        """Write rows as JSON Lines and open them."""
        self.needs_rows_of_the_kit()
        file.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
        return open_dataset(store, str(file), None, streaming)

    def needs_rows_of_the_kit(self) -> None:
        """Skip the test if the data set is another than the kit's own."""
        if not self.dataset_is_the_kits:
            pytest.skip("the fixture `dataset_id` is overridden; the rows have to be the kit's")

    @property
    def dataset_is_the_kits(self) -> bool:
        """Whether the fixture `dataset_id` is not overridden."""
        mine = inspect.getattr_static(type(self), "dataset_id")
        return mine is inspect.getattr_static(DatasetStoreFixtures, "dataset_id")


def open_dataset(store: DatasetStore, dataset_id: str, split: str | None, streaming: bool) -> Any:
    """Open a data set; skip the test if it should stream and the store has no streaming."""
    try:
        return store.load_dataset(dataset_id, split, streaming=streaming)
    except Unsupported as error:
        if not streaming:
            raise
        pytest.skip(f"opens no data set that streams: {error.reason}")


def select_rows(
    store: DatasetStore, handle: Any, selection: range | Sequence[int], streaming: bool
) -> Any:
    """Select rows; skip the test if the handle streams and the store cannot select then."""
    try:
        return store.select(handle, selection)
    except Unsupported as error:
        if not streaming:
            raise
        pytest.skip(f"selects nothing of a handle that streams: {error.reason}")


def splits_of(store: DatasetStore, dataset_id: str, splits: Any) -> list[str]:
    """Return the names of the splits: those given, or those that the error about a missing one
    lists.
    """
    if splits is not None:
        return [name.strip() for name in splits.split(",")] if isinstance(splits, str) else splits
    error = refuses(NotFound, store.load_dataset, dataset_id, MISSING)

    def there(name: str) -> Iterator[str]:
        with contextlib.suppress(AdapterError):
            store.load_dataset(dataset_id, name)
            yield name

    words = dict.fromkeys(re.findall(r"[\w.-]*\w", error.reason))
    return [name for word in words if word != MISSING for name in there(word)]
