"""The numbers are those of `torch`, whatever the number of workers and the strategy."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from crucible_kitchen import Datum, Kitchen, ModelInput, SessionConfig
from crucible_kitchen.parity import compare
from rows_in_memory import RowsInMemory

TRIALS = int(os.environ.get("TRIALS", "1"))
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(TRIALS == 1, reason="tests of torch and of the kit show it; set TRIALS"),
]
TINY = {
    "model_type": "llama",
    "hidden_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 96,
    "max_position_embeddings": 1024,
}
GSM8K = Path(__file__).resolve().parents[4] / "shared/data/gsm8k/train.jsonl"
WORLDS: list[dict[str, Any]] = [
    {"workers": workers, "strategy": strategy}
    for strategy in ("ddp", "fsdp")
    for workers in (1, 2, 3)
]


def rows() -> list[dict[str, str]]:
    with GSM8K.open(encoding="utf-8") as file:
        found = [json.loads(next(file)) for _ in range(160)]
    return [{"prompt": each["question"], "completion": each["answer"]} for each in found]


def torch_client(folder: Path) -> dict[str, Any]:
    models = {"tiny": TINY}
    return {"use": "torch", "models": models, "device": "cpu", "checkpoint_dir": folder}


def name(world: Mapping[str, Any]) -> str:
    return " ".join(str(value) for value in world.values())


@pytest.mark.skipif(not GSM8K.is_file(), reason="GSM8K is not next to this repository")
@pytest.mark.parametrize("lora", [False, True])
def test_twenty_steps_on_any_number_of_workers_are_those_of_torch(
    tmp_path: Path, lora: bool
) -> None:
    torch = torch_client(tmp_path)
    config = {
        "model": "tiny",
        "dataset": "rows",
        "batch_size": 8,
        "max_steps": 20,
        "learning_rate": 1e-3,
        "max_length": 512,
        "too_long": "drop",
        **({"lora": {"rank": 4}} if lora else {}),
    }
    report = compare(
        "supervised",
        config,
        {"torch": torch, **{name(each): {**torch, "use": "ray", **each} for each in WORLDS}},
        adapters={"dataset_store": {"use": RowsInMemory({"train": rows()})}},
        steps=20,
        tolerances={"loss": 1e-5, "grad_norm": 1e-4},
    )
    print(report)
    assert report.within, report.problems


def step(kitchen: Kitchen, session: Any, number: int) -> float:
    draw = np.random.default_rng(number)
    datums = []
    for length in draw.integers(4, 60, 8):
        tokens = draw.integers(0, 257, length + 1)
        weights = np.ones(length, np.float32)
        inputs = {"target_tokens": tokens[1:], "weights": weights}
        datums.append(Datum(ModelInput.from_ints(tokens[:-1]), inputs))
    client = kitchen.training_client
    future = client.forward_backward(session, datums)
    client.await_(client.optim_step(session, 1e-3))
    return float(client.await_(future).loss)


def test_a_checkpoint_is_continued_by_whoever_has_it_next(tmp_path: Path) -> None:
    torch = torch_client(tmp_path)
    others = [{"use": "ray", **each} for each in WORLDS]
    turns = [torch, *({**torch, **other} for other in others), torch]
    losses, checkpoint = [], None
    for number, client in enumerate(turns):
        with Kitchen({"training_client": client}) as kitchen:
            session = kitchen.training_client.start_session(SessionConfig("tiny", seed=1))
            if checkpoint is not None:
                kitchen.training_client.load_checkpoint(session, checkpoint)
            losses.append(step(kitchen, session, number))
            checkpoint = kitchen.training_client.save_checkpoint(session, str(number))
    with Kitchen({"training_client": torch}) as kitchen:
        session = kitchen.training_client.start_session(SessionConfig("tiny", seed=1))
        alone = [step(kitchen, session, number) for number in range(len(turns))]
    assert losses == pytest.approx(alone, rel=1e-5)
