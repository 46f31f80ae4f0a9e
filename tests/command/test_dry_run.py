"""`crucible run --dry-run`: what would be done, without doing it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from commands import Crucible, Outcome

CONFIG = """
[adapters]
training_client = { use = "noop", latency_scale = 0 }
dataset_store = { use = "noop", latency_scale = 0 }
blob_store = { use = "fsspec", url = "runs" }
metrics_store = { use = "jsonl", path = "metrics" }
[workflow]
use = "supervised"
model = "any"
dataset = "rows"
batch_size = 10
test_size = 100
[observe]
jsonl = "events.jsonl"
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "crucible.toml").write_text(CONFIG)
    return tmp_path


# Always a better one: the learning rate falls.
BEST = ("best_metric=test/nll", "best_mode=min")


def planned(crucible: Crucible, *settings: str) -> Any:
    outcome = crucible("run", "--dry-run", "--json", *settings)
    assert outcome.code == 0, outcome
    return json.loads(outcome.out)


def test_a_dry_run_leaves_nothing_behind(plain_crucible: Crucible, folder: Path) -> None:
    outcome = plain_crucible("run", "--dry-run")
    assert outcome.code == 0, outcome
    assert [file.name for file in folder.iterdir()] == ["crucible.toml"]


def test_it_says_how_much_would_be_done_and_shows_the_first_rows(
    plain_crucible: Crucible, folder: Path
) -> None:
    outcome = plain_crucible("run", "--dry-run", "workflow.epochs=2")
    for line in (
        "train rows       900\n",
        "trained tokens   ",
        "steps            180\n",
        "epochs           2\n",
        "tokens in all    about ",
        "evaluations      1\n",
        "checkpoints      1\n",
        "bytes written    unknown",
    ):
        assert line in outcome.out
    assert outcome.out.count("⟦") == 3


@pytest.mark.parametrize(
    ("settings", "evaluations", "checkpoints"),
    [
        ([], 1, 1),
        (["eval_every=30", "save_every=45"], 3, 2),
        (["eval_every=40", "save_every=40"], 3, 3),
        (["eval_every=40", "eval_on_start=true"], 4, 1),
        (["eval_every=100", "save_every=7"], 1, 13),
        (["eval_every=20", "save_every=30", *BEST], 5, 6),
    ],
)
def test_evaluations_and_checkpoints_are_those_of_the_run(
    plain_crucible: Crucible,
    folder: Path,
    settings: list[str],
    evaluations: int,
    checkpoints: int,
) -> None:
    given = [f"workflow.{each}" for each in settings]
    plan = planned(plain_crucible, *given)
    assert (plan["steps"], plan["done"]) == (90, 0)
    assert plan["memory"] is None  # the training client does not say
    assert (plan["evaluations"], plan["checkpoints"]) == (evaluations, checkpoints)
    assert plain_crucible("run", *given).code == 0
    events = [json.loads(line) for line in (folder / "events.jsonl").read_text().splitlines()]
    ended = [event["event"] for event in events]
    assert ended.count("training.eval") == evaluations
    assert ended.count("training.checkpoint") == checkpoints


def test_of_a_run_that_was_begun_what_is_left_is_counted(
    plain_crucible: Crucible, folder: Path
) -> None:
    given = ["workflow.run_id=r", "workflow.save_every=40", "workflow.max_steps=90"]
    assert plain_crucible("run", *given).code == 0
    plan = planned(plain_crucible, *given[:2], "workflow.max_steps=200", "workflow.eval_every=50")
    assert (plan["steps"], plan["done"], plan["checkpoints"]) == (200, 90, 3)
    assert plan["evaluations"] == 3


def test_where_the_number_of_rows_is_not_known_nothing_is_made_up(
    plain_crucible: Crucible, folder: Path
) -> None:
    (folder / "crucible.toml").write_text(CONFIG.replace("test_size = 100", "streaming = true"))
    plan = planned(plain_crucible, "workflow.max_steps=5")
    assert (plan["steps"], plan["epochs"]) == (5, None)
    assert "train_rows" not in plan["amounts"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--json"], "--json is of --dry-run"),
        (["--dry-run", "--show-rows", "2"], "leave out --show-rows"),
        (["--dry-run", "workflow.use=mine.py:mine"], "no function plan(kitchen, config)"),
        (["--dry-run", "workflow.prompt={none}", "workflow.completion={none}"], "none"),
    ],
)
def test_a_mistake_is_answered_without_a_traceback(
    plain_crucible: Crucible, folder: Path, arguments: list[str], said: str
) -> None:
    (folder / "mine.py").write_text(
        "from crucible_kitchen import WorkflowConfig\n"
        "def mine(kitchen, config: WorkflowConfig): ...\n"
    )
    outcome: Outcome = plain_crucible("run", *arguments)
    assert outcome.code in (1, 2)
    assert said in outcome.err
    assert "Traceback" not in outcome.err


PROBLEMS = """
[adapters]
training_client = { use = "noop", latency_scale = 0 }
completer = { use = "noop", latency_scale = 0 }
blob_store = { use = "fsspec", url = "runs" }
metrics_store = { use = "jsonl", path = "metrics" }
[workflow]
use = "reinforcement"
model = "any"
environment = { use = "arithmetic" }
max_steps = 6
batch_size = 4
group_size = 8
max_tokens = 5
test_size = 7
eval_every = 2
"""


def test_of_reinforcement_it_says_how_much_would_be_sampled(
    plain_crucible: Crucible, tmp_path: Path
) -> None:
    (tmp_path / "crucible.toml").write_text(PROBLEMS)
    plan = planned(plain_crucible)
    assert (plan["steps"], plan["evaluations"], plan["checkpoints"]) == (6, 3, 1)
    assert plan["amounts"]["test_problems"] == 8  # of 7, a sum in both orders
    assert plan["amounts"]["completions_at_most"] == 6 * 4 * 8
    assert plan["amounts"]["sampled_tokens_at_most"] == 6 * 4 * 8 * 5
    assert plan["examples"]
    assert [file.name for file in tmp_path.iterdir()] == ["crucible.toml"]


def test_of_preference_it_counts_pairs_and_computes_no_reference(
    plain_crucible: Crucible, tmp_path: Path
) -> None:
    pairs = [{"prompt": f"{n}+1=", "chosen": f"{n + 1}", "rejected": "x"} for n in range(10)]
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(pair) + "\n" for pair in pairs))
    (tmp_path / "crucible.toml").write_text(
        CONFIG.replace("supervised", "preference")
        .replace('"rows"', '"pairs.jsonl"')
        .replace('{ use = "noop", latency_scale = 0 }\nblob', '"hf-datasets"\nblob')
        .replace("test_size = 100", "test_size = 2")
        .replace("batch_size = 10", "batch_size = 3")
    )
    plan = planned(plain_crucible)
    assert plan["steps"] == 3  # of 8 pairs
    assert plan["amounts"]["train_sequences"] == 16
    assert "⟦" in plan["examples"][0]


TOO_LARGE = """
from crucible_kitchen import WorkflowConfig
from crucible_kitchen.workflows.planning import DoesNotFit, Memory

def mine(kitchen, config: WorkflowConfig): ...

def plan(kitchen, config):
    raise DoesNotFit(Memory(10**9, 10**9, 2 * 10**9, 0, available=10**9, loading=10**9))
"""


def test_what_a_model_that_does_not_fit_would_need_is_printed(
    plain_crucible: Crucible, folder: Path
) -> None:
    (folder / "mine.py").write_text(TOO_LARGE)
    (folder / "crucible.toml").write_text('workflow.use = "mine.py:mine"')
    outcome = plain_crucible("run", "--dry-run")
    assert (outcome.code, "about 4 GB of 1 GB" in outcome.out) == (1, True), outcome
    assert "the model does not fit: a session needs about 4 GB" in outcome.err
    outcome = plain_crucible("run", "--dry-run", "--json")
    plan = json.loads(outcome.out)
    assert (outcome.code, plan["steps"], plan["memory"]["weights"]) == (1, None, 10**9)
