"""A deleted run leaves no checkpoint and no weights; those of other runs stay."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from crucible_kitchen import Kitchen
from crucible_kitchen.history import removal, stored
from crucible_kitchen.workflows import registry
from tiny_torch import LLAMA

CONFIG = {
    "model": "tiny",
    "dataset": "rows",
    "max_steps": 2,
    "save_every": 1,
    "keep_checkpoints": 2,
    "max_length": 64,
}


@pytest.fixture
def kitchen(tmp_path: Path) -> Iterator[Kitchen]:
    noop = {"use": "noop", "latency_scale": 0}
    adapters: dict[str, Any] = {
        "training_client": {
            "use": "torch",
            "models": {"tiny": {**LLAMA, "max_position_embeddings": 64}},
            "checkpoint_dir": str(tmp_path / "checkpoints"),
        },
        "dataset_store": noop,
        "blob_store": noop,
        "metrics_store": noop,
    }
    with Kitchen(adapters) as kitchen:
        yield kitchen


def files(folder: Path) -> set[Path]:
    return {path for path in folder.rglob("*") if path.is_file() and path.suffix == ".safetensors"}


def test_a_deleted_run_takes_its_checkpoints_and_weights_with_it(
    kitchen: Kitchen, tmp_path: Path
) -> None:
    registry.run_in(kitchen, "supervised", CONFIG | {"run_id": "r/1"})
    before = files(tmp_path)
    registry.run_in(kitchen, "supervised", CONFIG | {"run_id": "r"})
    assert len(files(tmp_path)) == 2 * len(before)
    gone = list(removal.delete(kitchen, "r"))
    assert len(gone) == 2 + 1 + 1  # checkpoints, weights, record
    assert files(tmp_path) == before
    assert kitchen.blob_store.list("") == ["r/1/run.json"]
    result = registry.run_in(kitchen, "supervised", CONFIG | {"run_id": "r/1", "max_steps": 3})
    assert result.steps == 3


def test_a_deletion_that_was_interrupted_is_finished_by_the_next(
    kitchen: Kitchen, tmp_path: Path
) -> None:
    registry.run_in(kitchen, "supervised", CONFIG | {"run_id": "r"})
    next(removal.delete(kitchen, "r"))  # and no further
    assert stored.get(kitchen, "r").record is not None
    assert list(removal.delete(kitchen, "r"))[-1] == "r/run.json"
    assert files(tmp_path) == set()
    assert kitchen.blob_store.list("") == []
