"""Runs that learn from rewards: of environments that settings name, and of rows, on noops."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import guess_environment
import pytest
from commands import Crucible
from crucible_kitchen import (
    Completion,
    ConfigurationError,
    InvalidInput,
    Kitchen,
    Observation,
    Step,
)
from crucible_kitchen.workflows import run_in
from rows_in_memory import Row, RowsInMemory

import kitchen_noop

NOOPS: dict[str, Any] = {
    name: {**table, "latency_scale": 0} for name, table in kitchen_noop.ADAPTERS.items()
}
SETTINGS: dict[str, Any] = {
    "model": "any",
    "batch_size": 2,
    "group_size": 2,
    "max_steps": 3,
    "max_tokens": 8,
    "run_id": "run",
}
SUMS: list[Row] = [{"question": f"{n}+{n}", "answer": f"#### {2 * n}"} for n in range(8)]
OF_ROWS = {"dataset": "sums", "prompt": "{question}=", "reward": "final_answer", "test_size": 2}


def trained(kitchen: Kitchen, **settings: Any) -> dict[str, Any]:
    """Train; return the record of the run."""
    run_in(kitchen, "reinforcement", {**SETTINGS, **settings})
    record: dict[str, Any] = json.loads(kitchen.blob_store.read("run/run.json"))
    return record


def kitchen_with(rows: list[Row]) -> Kitchen:
    return Kitchen({**NOOPS, "dataset_store": RowsInMemory({"train": rows})})


def test_an_environment_of_several_turns_is_trained_in() -> None:
    environment = {"use": guess_environment.Guess, "highest": 9}
    with Kitchen(NOOPS) as kitchen:
        record = trained(kitchen, environment=environment, test_size=2)
    assert record["status"] == "done"
    assert record["config"]["environment"]["highest"] == 9
    assert record["problems"] == {"train": None, "test": 2}
    assert record["examples"] == ["user: Guess a number up to 9."] * 2  # the first batch
    assert "test/env/all/reward/total" in record["metrics"]


def test_rows_with_a_reward_are_trained_on() -> None:
    with kitchen_with(SUMS) as kitchen:
        record = trained(kitchen, **OF_ROWS)
    assert record["problems"] == {"train": 6, "test": 2, "also_in_train": 0}
    assert {*record["depends_on"]} >= {"train", "test"}
    assert record["config"]["reward"] == "final_answer"


def test_a_run_is_not_continued_with_rows_that_have_changed() -> None:
    changed = [*SUMS[:-1], {"question": "7+7", "answer": "#### 15"}]
    with kitchen_with(SUMS) as kitchen:
        before = trained(kitchen, **OF_ROWS, max_steps=2)["depends_on"]
        store: Any = kitchen.dataset_store.module
        store.splits = {"train": changed}
        with pytest.raises(ConfigurationError, match="rows_sha256 was") as caught:
            trained(kitchen, **OF_ROWS, max_steps=4)
    digests = [about["rows_sha256"] for name, about in before.items() if name in ("train", "test")]
    assert any(f"was {digest!r} and is " in str(caught.value) for digest in digests)


def test_a_run_is_not_continued_with_other_options_of_its_environment() -> None:
    with Kitchen(NOOPS) as kitchen:
        trained(kitchen, environment="arithmetic")
        with pytest.raises(ConfigurationError, match=r"workflow\.environment was .*'largest': 99"):
            trained(kitchen, environment={"use": "arithmetic", "largest": 20}, max_steps=5)


def test_an_environment_that_breaks_ends_the_run_with_its_seed_and_turn() -> None:
    class Breaks(guess_environment.Guess):
        def step(self, completion: Completion) -> Step:
            raise ZeroDivisionError("division by zero")

        def reset(self, seed: int) -> Observation:
            return "?"

    with Kitchen(NOOPS) as kitchen, pytest.raises(InvalidInput) as caught:
        trained(kitchen, environment=Breaks, max_restarts=3)
    assert "Breaks, seed 0, turn 1: it raised ZeroDivisionError: division by zero" in str(
        caught.value
    )


def test_the_options_of_an_environment_are_set_on_the_command_line(
    plain_crucible: Crucible, tmp_path: Path
) -> None:
    (tmp_path / "crucible.toml").write_text(
        "[adapters]\n"
        + "".join(
            f'{port} = {{ use = "noop", latency_scale = 0 }}\n'
            for port in ("training_client", "completer", "blob_store", "metrics_store")
        )
        + '[workflow]\nuse = "reinforcement"\nmodel = "any"\nenvironment = "arithmetic"\n'
        "max_steps = 1\nbatch_size = 2\ngroup_size = 2\nmax_tokens = 4\n"
    )
    shown = plain_crucible("run", "--show-rows", "1", "workflow.environment.operation=*")
    assert "10*10=" in shown.out, shown
    wrong = plain_crucible("run", "workflow.environment.operations=*")
    assert wrong.code == 2
    assert "workflow.environment.operations: arithmetic has no such key" in wrong.err
    assert "argument workflow.environment.operations=" in wrong.err
