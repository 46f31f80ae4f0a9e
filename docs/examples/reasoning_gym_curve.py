"""A small model learns a data set of reasoning-gym from rewards, on one core in under ten minutes.

    python docs/examples/reasoning_gym_curve.py FOLDER

It spells words of three and four letters backward. First it is trained on the data set's own
answers to 8,192 problems, 40% of them bare, as the data set wants them, and 60% in a sentence. Then
it learns from the data set's score of its own answers to other problems. FOLDER gets both runs,
`rewards.csv` and `curve.svg`; started again, an interrupted run goes on.
"""

from __future__ import annotations

import csv
import json
import random
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from crucible_environment_reasoning_gym.environment import ReasoningGym
from crucible_environment_reasoning_gym.options import ReasoningGymOptions
from crucible_kitchen import Kitchen
from crucible_kitchen.workflows import run_in

PROBLEMS: dict[str, Any] = {
    "dataset": "spell_backward",
    "config": {"min_word_len": 3, "max_word_len": 4},
    "as_chat": False,
    "prompt": "{question}\n",
    "answer": "text",
}
SHOWN = range(2**30, 2**30 + 8192)
"""Problems whose answers are shown. Rewards are for those from 0, the test for those from 2**31."""
BARE = 0.4
"""The share of the answers that are shown bare."""
MODEL = {
    "model_type": "llama",
    "hidden_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 384,
    "max_position_embeddings": 128,
}
ADAM = {"beta1": 0.9, "beta2": 0.95, "grad_clip_norm": 1.0}


def kitchen(folder: Path) -> Kitchen:
    """Return adapters that keep everything in a folder."""
    one_thread = {"device": "cpu", "threads": 1}
    client = {"checkpoint_dir": str(folder / "checkpoints"), "models": {"tiny": MODEL}}
    return Kitchen(
        {
            "training_client": {"use": "torch", **one_thread, **client},
            "completer": {"use": "torch", **one_thread},
            "dataset_store": "hf-datasets",
            "metrics_store": {"use": "jsonl", "path": str(folder / "metrics")},
            "blob_store": {"use": "fsspec", "url": str(folder)},
        }
    )


def answers() -> Iterator[dict[str, str]]:
    """Yield the data set's own answers, most of them in a sentence."""
    environment, draw = ReasoningGym(ReasoningGymOptions(**PROBLEMS)), random.Random(0)
    for seed in SHOWN:
        prompt = environment.reset(seed)
        bare = draw.random() < BARE
        yield {
            "prompt": str(prompt),
            "completion": f"{environment.answer}" if bare else f"It is {environment.answer}",
        }


def warm_up(folder: Path, steps: int = 600) -> str:
    """Train on answers; return the checkpoint."""
    path = folder / "answers.jsonl"
    folder.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in answers()), "utf-8")
    settings = {
        "model": "tiny",
        "run_id": "warm-up",
        "dataset": str(path),
        "batch_size": 32,
        "max_steps": steps,
        "learning_rate": 3e-3,
        "lr_schedule": "linear",
        "warmup_ratio": 0.05,
        "adam": ADAM,
        "save_every": 100,
    }
    with kitchen(folder) as adapters:
        checkpoint: str = run_in(adapters, "supervised", settings).checkpoint
    return checkpoint


def learn(
    folder: Path, checkpoint: str, steps: int = 60, test_size: int = 200
) -> list[tuple[int, float]]:
    """Learn from rewards; return the mean reward of the test's problems at some steps."""
    settings = {
        "model": "tiny",
        "run_id": "learn",
        "from_checkpoint": checkpoint,
        "environment": {"use": "reasoning-gym", **PROBLEMS},
        "test_size": test_size,
        "batch_size": 16,
        "group_size": 16,
        "max_tokens": 14,
        "max_steps": steps,
        "learning_rate": 2e-4,
        "lr_schedule": "constant",
        "adam": ADAM,
        "eval_every": 10,
        "eval_on_start": True,
        "save_every": 10,
    }
    with kitchen(folder) as adapters:
        run_id = run_in(adapters, "reinforcement", settings).run_id
        rows = [*adapters.metrics_store.read(run_id)]
    reward = "test/env/all/reward/total"
    return [(row.step or 0, row.value) for row in rows if row.metric == reward]


def draw(rewards: list[tuple[int, float]], path: Path) -> None:
    """Draw the rewards as SVG."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams |= {"svg.fonttype": "none", "svg.hashsalt": "curve"}
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(5, 2.6), layout="constrained")
    axes.plot(*zip(*rewards, strict=True), marker="o", markersize=3)
    axes.set(xlabel="step", ylabel="mean held-out reward", ylim=(0, 1))
    axes.grid(alpha=0.3)
    figure.savefig(path, metadata={"Date": None})


def main() -> None:
    folder = Path(sys.argv[1])
    rewards = learn(folder, warm_up(folder))
    with open(folder / "rewards.csv", "w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows([("step", "reward"), *rewards])
    draw(rewards, folder / "curve.svg")
    for step, reward in rewards:
        print(f"step {step:3}: {reward:.3f}")


if __name__ == "__main__":
    main()
