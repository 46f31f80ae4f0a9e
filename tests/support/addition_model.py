"""The addition model of the examples, trained, and a model that half unlearned it.

Both take about a minute on one core, so tests share them: the fixture `addition_model`.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from commands import COMMAND, clean_environ
from crucible_kitchen import Kitchen
from crucible_kitchen.workflows import run_in
from make_reversed import mostly_reversed
from rows_in_memory import RowsInMemory

import kitchen_noop

ARITHMETIC = Path(__file__).resolve().parents[2] / "docs" / "examples" / "arithmetic"
MODELS = {
    "tiny": {
        "model_type": "llama",
        "hidden_size": 96,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 384,
        "max_position_embeddings": 64,
    }
}
ADAM = {"beta1": 0.9, "beta2": 0.95, "grad_clip_norm": 1.0}
REWARDED: dict[str, Any] = {
    "model": "tiny",
    "dataset": "rows",
    "answer_field": "completion",
    "reward": "final_answer",
    "test_split": "test",
    "batch_size": 32,
    "group_size": 16,
    "max_tokens": 8,
    "max_steps": 90,
    "learning_rate": 2e-4,
    "lr_schedule": "constant",
    "adam": ADAM,
    "eval_on_start": True,
}
"""How the model that half unlearned to add learns it again from rewards alone."""


@dataclass(frozen=True, slots=True)
class AdditionModel:
    """Checkpoints of the model "tiny" in a folder.

    Args:
        folder: the `checkpoint_dir` of the training client.
        trained: a reference; it adds numbers from 10 to 99 it has not seen, nearly always.
        start: a reference; it writes most sums with their digits reversed.
        said: standard output and standard error of the command that trained it.
    """

    folder: Path
    trained: str
    start: str
    said: tuple[str, str]

    def kitchen(self, **adapters: Any) -> Kitchen:
        """Return a kitchen that has the checkpoints and the rows, splits "train" and "test"."""
        return Kitchen({**adapters_in(self.folder), **adapters})


def adapters_in(folder: Path) -> dict[str, Any]:
    """Return adapters that keep checkpoints in a folder, and all else in memory."""
    rows = {split: rows_of(split) for split in ("train", "test")}
    quick = {name: {**table, "latency_scale": 0} for name, table in kitchen_noop.ADAPTERS.items()}
    threads = {"device": "cpu", "threads": 1}
    return {
        **quick,
        "dataset_store": RowsInMemory(rows),
        "completer": {"use": "torch", **threads},
        "training_client": {
            "use": "torch",
            **threads,
            "checkpoint_dir": str(folder),
            "models": MODELS,
        },
    }


def rows_of(split: str) -> list[dict[str, str]]:
    """Return the rows of the example: a prompt such as `37+58=`, and its completion."""
    lines = (ARITHMETIC / f"{split}.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def train_addition(folder: Path) -> AdditionModel:
    """Run the example as a user does, in a folder; go on from its weights on reversed answers."""
    shutil.copytree(ARITHMETIC.parent, folder / "docs" / "examples")
    run = [*COMMAND, "run", "docs/examples/arithmetic.toml", "workflow.run_id=adds"]
    environ = clean_environ(OMP_NUM_THREADS="1")
    done = subprocess.run(run, cwd=folder, env=environ, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    trained = json.loads((folder / "runs" / "adds" / "run.json").read_text())["state"]["checkpoint"]
    checkpoints = folder / "runs" / "checkpoints"
    with Kitchen(adapters_in(checkpoints)) as kitchen:
        kitchen.dataset_store.module.splits = {"train": [*mostly_reversed(rows_of("train"))]}
        settings = {
            "model": "tiny",
            "dataset": "rows",
            "batch_size": 128,
            "from_checkpoint": trained,
            "max_steps": 100,
            "learning_rate": 5e-4,
            "adam": ADAM,
        }
        start = run_in(kitchen, "supervised", settings)
    return AdditionModel(checkpoints, trained, start.checkpoint, (done.stdout, done.stderr))
