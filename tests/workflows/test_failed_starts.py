"""All that belongs to a run lies under its id, and a start that failed leaves nothing behind."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from crucible_kitchen import CrucibleError, Kitchen, Unavailable
from crucible_kitchen.workflows import registry

CONFIG: dict[str, Any] = {
    "model": "any",
    "dataset": "train.jsonl",
    "max_steps": 4,
    "batch_size": 2,
    "run_id": "exp/r",
    "render_cache": False,
}
ROWS = [{"prompt": f"{n}+1=", "completion": str(n + 1)} for n in range(6)]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    Path("bad.jsonl").write_text('{"prompt": "1", "completion": "2"}\n{"prompt": "1"}\n')
    Path("empty.jsonl").write_text("")
    Path("runs").mkdir()  # the store itself
    return tmp_path


@pytest.fixture
def kitchen(folder: Path) -> Iterator[Kitchen]:
    noop = {"use": "noop", "latency_scale": 0}
    adapters = {
        "training_client": noop,
        "completer": noop,
        "dataset_store": "hf-datasets",
        "blob_store": {"use": "fsspec", "url": "runs"},
        "metrics_store": {"use": "jsonl", "path": "metrics"},
    }
    with Kitchen(adapters) as kitchen:
        yield kitchen


def there(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


@pytest.mark.parametrize(
    "wrong",
    [
        {"dataset": "none.jsonl"},
        {"dataset": "bad.jsonl"},
        {"dataset": "empty.jsonl"},
        {"prompt": "{question}", "completion": "{completion}"},
        {"from_checkpoint": "noop://checkpoint/none"},
        {"eval_every": 2},
        {"max_length": 1},
    ],
)
def test_a_start_that_failed_leaves_nothing_behind(
    kitchen: Kitchen, folder: Path, wrong: dict[str, Any]
) -> None:
    before = there(folder)
    with pytest.raises(CrucibleError):
        registry.run_in(kitchen, "supervised", CONFIG | wrong)
    assert there(folder) == before
    assert kitchen.training_client.list_checkpoints("exp/") == []
    assert registry.run_in(kitchen, "supervised", CONFIG).steps == 4


@pytest.mark.parametrize("port", ["training_client", "blob_store", "metrics_store"])
def test_nor_does_one_that_has_no_place_to_write_to(
    kitchen: Kitchen, folder: Path, port: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = there(folder)

    def full(*arguments: Any) -> None:
        raise Unavailable("the disk is full")

    bound: Any = getattr(kitchen, port)
    monkeypatch.setattr(bound, "check_storage" if port == "training_client" else "ping", full)
    with pytest.raises(Unavailable, match="full"):
        registry.run_in(kitchen, "supervised", CONFIG)
    assert there(folder) == before


def test_nor_does_one_whose_completer_fails(
    kitchen: Kitchen, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = there(folder)

    def away(*arguments: Any, **more: Any) -> None:
        raise Unavailable("the server is away")

    for name in ("complete", "complete_batch", "score"):
        monkeypatch.setattr(kitchen.completer, name, away)
    with pytest.raises(Unavailable, match="away"):
        registry.run_in(kitchen, "supervised", CONFIG | {"exact_match": True, "test_size": 2})
    assert there(folder) == before


def test_a_start_that_failed_of_a_run_that_exists_leaves_the_run_as_it_was(
    kitchen: Kitchen, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry.run_in(kitchen, "supervised", CONFIG)
    record = (folder / "runs/exp/r/run.json").read_bytes()
    (folder / "train.jsonl").write_text('{"prompt": "2", "completion": "3"}\n')
    with pytest.raises(CrucibleError, match="was started with something else"):
        registry.run_in(kitchen, "supervised", CONFIG | {"max_steps": 8})
    assert (folder / "runs/exp/r/run.json").read_bytes() == record


def test_all_that_belongs_to_a_run_lies_under_its_id(kitchen: Kitchen, folder: Path) -> None:
    before = there(folder)
    registry.run_in(kitchen, "supervised", CONFIG | {"test_size": 2, "eval_every": 2})
    blobs = kitchen.blob_store.list("")
    assert blobs
    assert all(path.startswith("exp/r/") for path in blobs)
    made = there(folder) - before
    assert {path.partition("/")[0] for path in made} == {"runs", "metrics"}
