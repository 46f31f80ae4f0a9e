"""Workflows run unchanged on Ray, with the numbers that they have on one machine."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from crucible_kitchen import Kitchen
from crucible_kitchen.workflows import run_in
from rows_in_memory import RowsInMemory

import kitchen_noop

pytest.importorskip("torch", reason="torch is not installed")
pytest.importorskip("ray", reason="Ray is not installed")

if TYPE_CHECKING:
    from addition_model import AdditionModel

pytestmark = pytest.mark.slow

SHAPE = {"hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 32}
MODELS = {
    "student": {**SHAPE, "num_hidden_layers": 1, "max_position_embeddings": 64},
    "teacher": {**SHAPE, "num_hidden_layers": 2, "max_position_embeddings": 64},
}
SUMS = [{"prompt": f"{i}+1=", "completion": str(i + 1)} for i in range(20)]
PAIRS = [{"question": "a", "chosen": "b" * n, "rejected": "c" * n} for n in range(1, 9)]
TIMES = ("time/step", "tokens_per_second")
COMMON: dict[str, Any] = {
    "model": "student",
    "batch_size": 4,
    "max_steps": 3,
    "learning_rate": 1e-3,
    "eval_every": 3,
}
EPISODES: dict[str, Any] = {"environment": "arithmetic", "test_size": 4, "max_tokens": 5}
RUNS: dict[str, tuple[str, dict[str, Any]]] = {
    "supervised": (
        "supervised",
        {"dataset": "rows", "split": "sums", "test_split": "test", "exact_match": True},
    ),
    "preference": (
        "preference",
        {"dataset": "rows", "split": "pairs", "test_size": 2, "prompt": "{question}\n"},
    ),
    "reinforcement": ("reinforcement", {**EPISODES, "group_size": 4}),
    "reinforcement of a low-rank update, sampled a step ahead": (
        "reinforcement",
        {**EPISODES, "group_size": 4, "max_staleness": 1, "lora": {"rank": 2}},
    ),
    "distillation": ("distillation", {**EPISODES, "teacher_model": "teacher", "samples": 2}),
}


@pytest.fixture(scope="module")
def on_torch(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kitchen]:
    with Kitchen(adapters("torch", tmp_path_factory.mktemp("torch"))) as kitchen:
        yield kitchen


@pytest.fixture(scope="module")
def on_ray(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kitchen]:
    """One worker that trains, and one actor that samples."""
    with Kitchen(adapters("ray", tmp_path_factory.mktemp("ray"), reuse_workers=True)) as kitchen:
        yield kitchen


def adapters(use: str, folder: Path, **more: Any) -> dict[str, Any]:
    quick = {name: {**table, "latency_scale": 0} for name, table in kitchen_noop.ADAPTERS.items()}
    shared: dict[str, Any] = {"use": use, "device": "cpu", "models": MODELS}
    if use == "ray":
        shared["object_store_memory"] = 200_000_000
    return {
        **quick,
        "dataset_store": RowsInMemory({"sums": SUMS, "test": SUMS[:4], "pairs": PAIRS}),
        "training_client": {**shared, "checkpoint_dir": str(folder), **more},
        "completer": shared,
    }


def recorded(kitchen: Kitchen, run_id: str) -> dict[tuple[str, int | None], float]:
    """Return what a run measured, but for times."""
    entries = kitchen.metrics_store.read(run_id)
    return {(each.metric, each.step): each.value for each in entries if each.metric not in TIMES}


@pytest.mark.parametrize("name", RUNS)
def test_a_run_measures_on_ray_what_it_measures_on_torch_to_the_bit(
    on_torch: Kitchen, on_ray: Kitchen, name: str
) -> None:
    workflow, settings = RUNS[name]
    for kitchen in (on_torch, on_ray):
        run_in(kitchen, workflow, {**COMMON, **settings, "run_id": name})
    assert recorded(on_ray, name) == recorded(on_torch, name)


@pytest.mark.skipif("TRIALS" not in os.environ, reason="takes minutes, and is run on request")
@pytest.mark.timeout(3600)
def test_the_addition_model_learns_again_from_rewards_alone(addition_model: AdditionModel) -> None:
    from addition_model import REWARDED, adapters_in

    tables = adapters_in(addition_model.folder)
    on_ray = {port: {**tables[port], "use": "ray"} for port in ("training_client", "completer")}
    settings = {**REWARDED, "from_checkpoint": addition_model.start}
    with addition_model.kitchen(**on_ray) as kitchen:
        measured = recorded(kitchen, run_in(kitchen, "reinforcement", settings).run_id)
    print({key: value for key, value in measured.items() if key[0].endswith("reward/total")})
    assert measured["test/env/all/reward/total", 0] < 0.5
    assert measured["test/env/all/reward/total", 90] > 0.9
    for step in range(1, 91):
        assert measured["sampler/logprob_diff", step] < 1e-4
