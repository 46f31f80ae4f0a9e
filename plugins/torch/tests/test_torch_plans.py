"""`crucible run --dry-run` says how many bytes a run writes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from crucible_kitchen import Kitchen
from crucible_kitchen.workflows import registry
from crucible_kitchen.workflows.supervised import SupervisedConfig, plan, supervised
from tiny_torch import LLAMA

LARGER = {
    **LLAMA,
    "hidden_size": 64,
    "intermediate_size": 512,
    "num_hidden_layers": 3,
    "max_position_embeddings": 64,
}


@pytest.mark.parametrize("lora", [None, {"rank": 2}])
def test_a_plan_says_how_many_bytes_are_written(tmp_path: Path, lora: Any) -> None:
    folder = tmp_path / "checkpoints"
    adapters: dict[str, Any] = {
        "training_client": {
            "use": "torch",
            "models": {"tiny": LARGER},
            "checkpoint_dir": str(folder),
        },
        "dataset_store": {"use": "noop", "latency_scale": 0},
        "blob_store": {"use": "noop", "latency_scale": 0},
        "metrics_store": {"use": "noop", "latency_scale": 0},
    }
    settings: dict[str, Any] = {
        "model": "tiny",
        "dataset": "rows",
        "max_steps": 3,
        "max_length": 64,
    }
    config = SupervisedConfig.model_validate(
        {**settings, "lora": lora, "save_every": 1, "keep_checkpoints": 2, "test_size": 3}
    )
    with Kitchen(adapters) as kitchen:
        planned = plan(kitchen, config)
        assert not folder.exists()
        registry.run_in(kitchen, supervised, config)
    size = planned.storage
    assert size is not None
    sizes = [file.stat().st_size for file in folder.rglob("*") if file.is_file()]
    left = 2 * size.checkpoint + size.weights
    assert 0.8 * left <= sum(sizes) <= left
    assert (size.written, size.most) == (
        3 * size.checkpoint + size.weights,
        max(3 * size.checkpoint, left),
    )
