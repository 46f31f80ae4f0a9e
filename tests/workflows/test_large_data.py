"""Runs whose rows are rendered ahead of their step, or streamed: resumed, and refused in words."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from crucible_kitchen import ConfigurationError, InvalidInput, Kitchen
from crucible_kitchen.workflows import run_in

import kitchen_noop

TIMES = ("time/step", "tokens_per_second")
ROWS = 50
CONFIG: dict[str, Any] = {
    "model": "any",
    "dataset": "rows",
    "batch_size": 8,
    "max_steps": 17,
    "save_every": 4,
    "run_id": "same",
}
LAZY: dict[str, Any] = {"check_rows": "first"}
STREAM: dict[str, Any] = {"streaming": True, "shuffle_buffer": 20}


class Killed(BaseException):
    """As if the process had been killed."""


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CRUCIBLE_CACHE", str(tmp_path / "cache"))


def written(path: Path, count: int = ROWS, bad: int | None = None) -> Path:
    """Write rows to a file, one of them without a completion."""
    rows = [{"prompt": f"{n} + {n} =", "completion": f" {2 * n}"} for n in range(count)]
    if bad is not None:
        del rows[bad]["completion"]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def kitchen_of(store: str) -> Kitchen:
    adapters = {
        name: {**table, "latency_scale": 0} for name, table in kitchen_noop.ADAPTERS.items()
    }
    adapters["dataset_store"]["rows"] = {"train": ROWS}
    if store != "noop":
        adapters["dataset_store"] = {"use": store}
    return Kitchen(adapters)


@pytest.fixture(params=["noop", "hf-datasets"])
def store(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def dataset(store: str, tmp_path: Path) -> str:
    return "rows" if store == "noop" else str(written(tmp_path / "rows.jsonl"))


@pytest.fixture
def kitchen(store: str) -> Iterator[Kitchen]:
    with kitchen_of(store) as made:
        yield made


def train(kitchen: Kitchen, **changed: Any) -> dict[tuple[str, int | None], float]:
    """Run to the end; return every row of metrics that must be as in every other such run."""
    result = run_in(kitchen, "supervised", {**CONFIG, **changed})
    entries = list(kitchen.metrics_store.read(result.run_id))
    found = {(entry.metric, entry.step): entry.value for entry in entries}
    assert len(found) == len(entries), "a row was recorded twice"
    return {key: value for key, value in found.items() if key[0] not in TIMES}


def killed(kitchen: Kitchen, nth: int, **changed: Any) -> None:
    """Run until the nth optimizer step."""
    client: Any = kitchen.training_client
    original, count = client.optim_step, 0

    def optim_step(*args: Any) -> Any:
        nonlocal count
        count += 1
        if count == nth:
            raise Killed
        return original(*args)

    client.optim_step = optim_step
    try:
        with pytest.raises(Killed):
            train(kitchen, **changed)
    finally:
        del client.optim_step


@pytest.mark.parametrize("mode", [LAZY, STREAM])
@pytest.mark.parametrize("nth", [3, 8, 12])
def test_killed_and_resumed_equals_uninterrupted(
    store: str, kitchen: Kitchen, dataset: str, mode: dict[str, Any], nth: int
) -> None:
    with kitchen_of(store) as other:
        never_stopped = train(other, dataset=dataset, **mode)
    killed(kitchen, nth, dataset=dataset, **mode)
    assert train(kitchen, dataset=dataset, **mode) == never_stopped


def test_rows_that_are_rendered_ahead_train_as_those_that_are_rendered_beforehand(
    store: str, kitchen: Kitchen, dataset: str
) -> None:
    with kitchen_of(store) as other:
        beforehand = train(other, dataset=dataset, max_steps=None, epochs=2.5)
    assert train(kitchen, dataset=dataset, max_steps=None, epochs=2.5, **LAZY) == beforehand


def test_a_bad_row_ends_the_run_at_its_step_which_is_saved(tmp_path: Path) -> None:
    path = written(tmp_path / "rows.jsonl", bad=49)
    with kitchen_of("hf-datasets") as kitchen:
        about = {"dataset": str(path), "shuffle_buffer": 1, "streaming": True, "save_every": 0}
        with pytest.raises(InvalidInput, match=r"row 49 of epoch 0 of .*: it has no field"):
            train(kitchen, **about)
        record = json.loads(kitchen.blob_store.read("same/run.json"))
        assert record["state"]["step"] == 6
        written(path)
        train(kitchen, **about)


def test_a_run_does_not_go_on_with_rows_that_were_changed_where_none_was_checked(
    tmp_path: Path,
) -> None:
    path = written(tmp_path / "rows.jsonl")
    with kitchen_of("hf-datasets") as kitchen:
        killed(kitchen, 8, dataset=str(path), **LAZY)
        path.write_text(path.read_text().replace("49 + 49 =", "49 + 50 ="))
        with pytest.raises(
            ConfigurationError, match=r"train: rows_sha256 was '[0-9a-f]{64}' and is '[0-9a-f]{64}'"
        ):
            train(kitchen, dataset=str(path), **LAZY)


def test_a_stream_is_not_loaded(tmp_path: Path) -> None:
    path = written(tmp_path / "rows.jsonl", count=100_000)
    with kitchen_of("hf-datasets") as kitchen:
        events: list[str] = []
        kitchen.observe(lambda event: events.append(event.name))
        train(kitchen, dataset=str(path), max_steps=3, **STREAM)
    assert "dataset.stream" in events
    assert "dataset.load" not in events
