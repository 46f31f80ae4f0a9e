"""The conformance suite on a local file, on a folder with a file for each split, and on a hub."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import crucible_adapter_hf_datasets.dataset_store as hf_datasets
import pytest
from crucible_kitchen import DatasetStore
from crucible_kitchen.testing import LEVEL, DatasetStoreConformance, bound
from loopback_hub import LoopbackHub, environment, redirect

Reopen = Callable[[], AbstractContextManager[DatasetStore]]


class TestFile(DatasetStoreConformance):
    variant = "a file"
    level = LEVEL

    @pytest.fixture
    def reopen(self, tmp_path: Path) -> Reopen:
        return lambda: bound("dataset_store", hf_datasets, cache_dir=tmp_path / "cache")

    @pytest.fixture
    def dataset_store(self, reopen: Reopen) -> Iterator[DatasetStore]:
        with reopen() as store:
            yield store


ROWS = [
    {"id": n, "text": "" if n == 3 else f"row {n}", "maybe": (None, n)[n % 2]} for n in range(60)
]


class TestFolder(TestFile):
    variant = "a folder with splits"

    @pytest.fixture
    def rows(self) -> list[dict[str, Any]]:
        return ROWS[:45]

    @pytest.fixture
    def dataset_id(self, tmp_path: Path) -> str:
        folder = tmp_path / "data"
        folder.mkdir()
        for split, rows in {"train": ROWS[:45], "test": ROWS[45:]}.items():
            (folder / f"{split}.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
        return str(folder)

    @pytest.fixture
    def split(self) -> str:
        return "train"

    @pytest.fixture
    def splits(self) -> tuple[str, ...]:
        return ("train", "test")


@pytest.mark.slow
class TestHub(TestFolder):
    """The same folder, served by a hub on this machine."""

    variant = "a data set of the Hub"
    max_examples = 5

    @pytest.fixture(scope="class")
    @classmethod
    def hub(cls, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LoopbackHub]:
        parts = {"train": ROWS[:45], "test": ROWS[45:]}
        files = {
            f"{split}.jsonl": "".join(json.dumps(row) + "\n" for row in rows).encode()
            for split, rows in parts.items()
        }
        with LoopbackHub() as hub, pytest.MonkeyPatch.context() as patch:
            home = tmp_path_factory.mktemp("home")
            redirect(hub, home, patch)
            for name, value in environment(hub, home).items():  # for other processes
                patch.setenv(name, value)
            hub.commit("org/rows", files, "dataset")
            yield hub

    @pytest.fixture
    def dataset_id(self, hub: LoopbackHub) -> str:
        return "org/rows"

    @pytest.fixture
    def missing_dataset_id(self) -> str:
        return "org/missing"
