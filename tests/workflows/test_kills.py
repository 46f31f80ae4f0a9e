"""Every training workflow, killed at a random instant and continued, ends as if it had not been.

Each trial is a `crucible run` of a real, tiny model in a process of its own, killed by SIGKILL. The
record, the rows of metrics, the samples and every file are compared with those of a run that
nothing happened to; weights and moments to the bit. `tox -e trials` makes 25 trials of each
workflow, otherwise one is made.
"""

from __future__ import annotations

import json
import os
import random
import signal
import time
from pathlib import Path
from typing import Any, TypeAlias

import pytest
from killed_runs import ended, files, import_beforehand, outcome, run, start

pytest.importorskip("torch", reason="torch is not installed")
pytestmark = pytest.mark.slow

TRIALS = int(os.environ.get("TRIALS", "1"))
ADAPTERS = """
[adapters]
dataset_store = { use = "hf-datasets", cache_dir = "cache" }
metrics_store = { use = "jsonl", path = "metrics" }
blob_store = { use = "fsspec", url = "runs" }
completer = { use = "torch", device = "cpu" }
[adapters.training_client]
use = "torch"
checkpoint_dir = "checkpoints"
[adapters.training_client.models.tiny]
"""
TINY = {
    "model_type": "llama",
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "max_position_embeddings": 64,
}
SETTINGS = """
model = "tiny"
batch_size = 4
max_steps = 24
learning_rate = 1e-2
save_every = 5
eval_every = 7
eval_on_start = true
keep_checkpoints = 2
dataset = "train.jsonl"
test_size = 4
"""
WORKFLOWS = {
    "supervised": "exact_match = true\nmax_tokens = 4",
    "preference": "",
    "reinforcement": """
reward = "rewards.py:variety"
group_size = 4
max_tokens = 6
kl_penalty = 0.1
num_substeps = 2
best_metric = "test/env/all/reward/total"
best_mode = "max"
""",
    "distillation": """
samples = 2
max_tokens = 6
teacher_model = "deep"
[workflow.teacher_client]
use = "torch"
[workflow.teacher_client.models.deep]
$deep
""",
}
REWARDS = """
def variety(completion, row):
    return len({*completion.tokens.tolist()}) / 6 + len(completion.tokens) % 2
"""
Left: TypeAlias = tuple[dict[str, Any], list[str]]


@pytest.fixture(scope="session", autouse=True)
def imported() -> None:
    import_beforehand()


def toml(table: dict[str, Any]) -> str:
    return "\n".join(f"{name} = {json.dumps(value)}" for name, value in table.items())


def prepared(folder: Path, workflow: str) -> Path:
    own = WORKFLOWS[workflow].replace("$deep", toml({**TINY, "num_hidden_layers": 2}))
    settings = f'\n[workflow]\nuse = "{workflow}"{SETTINGS}{own}'
    (folder / "crucible.toml").write_text(ADAPTERS + toml(TINY) + settings)
    (folder / "rewards.py").write_text(REWARDS)
    with (folder / "train.jsonl").open("w") as file:
        for i in range(36):
            wrong = {"chosen": str(i + 1), "rejected": str(i + 2)}
            row = {"prompt": f"{i}+1=", **(wrong if workflow == "preference" else {})}
            if workflow == "supervised":
                row["completion"] = str(i + 1)
            file.write(json.dumps(row) + "\n")
    return folder


class Alone:
    """What a run of each workflow leaves that nothing happens to, and how long it takes."""

    def __init__(self, factory: pytest.TempPathFactory) -> None:
        self._factory = factory
        self._known: dict[str, tuple[Left, float]] = {}

    def __call__(self, workflow: str) -> tuple[Left, float]:
        if workflow not in self._known:
            folder = prepared(self._factory.mktemp(workflow), workflow)
            start = time.monotonic()
            run(folder, "exp")
            seconds = time.monotonic() - start
            self._known[workflow] = (outcome(folder, "exp"), files(folder)), seconds
        return self._known[workflow]


@pytest.fixture(scope="session")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Alone:
    return Alone(tmp_path_factory)


@pytest.mark.parametrize("workflow", WORKFLOWS)
@pytest.mark.parametrize("seed", range(TRIALS))
def test_a_run_that_is_killed_at_a_random_instant_ends_as_if_it_had_not_been(
    tmp_path: Path, alone: Alone, workflow: str, seed: int
) -> None:
    expected, seconds = alone(workflow)
    folder = prepared(tmp_path, workflow)
    draw = random.Random(f"{workflow} {seed}")
    for _ in range(draw.choice([1, 1, 2])):
        pid = start(folder, "exp")
        if ended(pid, draw.uniform(0, seconds)) is None:
            os.kill(pid, signal.SIGKILL)
            ended(pid, 60)
    run(folder, "exp")
    assert (outcome(folder, "exp"), files(folder)) == expected


@pytest.mark.skipif(TRIALS == 1, reason="tests on noops show it; set TRIALS")
@pytest.mark.parametrize("workflow", WORKFLOWS)
def test_other_data_under_the_same_name_is_refused_with_both_digests(
    tmp_path: Path, workflow: str
) -> None:
    folder = prepared(tmp_path, workflow)
    run(folder, "exp", "workflow.max_steps=5")
    before = json.loads((folder / "runs/exp/run.json").read_text())["depends_on"]["train"]
    data = folder / "train.jsonl"
    data.write_text(data.read_text().replace("7+1=", "8+1="))
    assert ended(start(folder, "exp", "workflow.max_steps=6"), 60) == 2
    said = (folder / "err").read_text()
    assert "was started with something else that changes its results" in said
    digest = before.get("sha256") or before["rows_sha256"]
    assert f"was '{digest}' and is '" in said
