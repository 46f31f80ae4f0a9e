"""Compare a training step through the adapter with the same step in plain PyTorch.

    python benchmarks/compare_with_raw_loop.py --steps 100

The two take turns, so that the machine's other work affects both alike.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable

import crucible_adapter_torch.training_client as torch_adapter
import numpy as np
import torch
from crucible_kitchen import AdamParams, Datum, Kitchen, ModelInput, SessionConfig
from rich.console import Console
from rich.table import Table
from torch.nn import functional
from transformers import AutoModelForCausalLM, LlamaConfig

SIZES = {
    "hidden_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 384,
}
VOCAB, RATE, CLIP = 257, 1e-3, 1.0


def raw_step(rows: np.ndarray) -> Callable[[], object]:
    model = AutoModelForCausalLM.from_config(LlamaConfig(vocab_size=VOCAB, **SIZES))
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=RATE, betas=(0.9, 0.95), weight_decay=0.0, fused=True
    )

    def step() -> float:
        tokens = torch.from_numpy(rows)
        logits = model(input_ids=tokens[:, :-1], use_cache=False).logits
        loss = functional.cross_entropy(
            logits.flatten(0, 1), tokens[:, 1:].flatten(), reduction="sum"
        )
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP)
        optimizer.step()
        optimizer.zero_grad()
        return loss.item()

    return step


def adapter_step(kitchen: Kitchen, rows: np.ndarray) -> Callable[[], object]:
    client = kitchen.training_client
    session = client.start_session(SessionConfig("tiny"))
    weights = np.ones(rows.shape[1] - 1, np.float32)
    adam = AdamParams(grad_clip_norm=CLIP)

    def step() -> float:
        datums = [
            Datum(ModelInput.from_ints(row[:-1]), {"target_tokens": row[1:], "weights": weights})
            for row in rows
        ]
        loss = client.forward_backward(session, datums)
        client.await_(client.optim_step(session, RATE, adam))
        return client.await_(loss).loss

    return step


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--length", type=int, default=9)
    args = parser.parse_args()
    torch.set_num_threads(1)
    rows = np.random.default_rng(0).integers(0, 256, (args.batch, args.length))
    options = {"use": torch_adapter, "models": {"tiny": SIZES}, "device": "cpu"}
    with tempfile.TemporaryDirectory() as folder:
        kitchen = Kitchen(adapters={"training_client": {**options, "checkpoint_dir": folder}})
        with kitchen:
            steps = {"plain PyTorch": raw_step(rows), "the adapter": adapter_step(kitchen, rows)}
            times: dict[str, list[float]] = {name: [] for name in steps}
            for index in range(args.steps + 5):
                for name, step in steps.items():
                    start = time.perf_counter()
                    step()
                    if index >= 5:  # the first ones warm up
                        times[name].append(time.perf_counter() - start)
    table = Table("step", "median, ms", "fastest, ms", "against plain")
    plain = statistics.median(times["plain PyTorch"])
    for name, seconds in times.items():
        median = statistics.median(seconds)
        table.add_row(
            name, f"{median * 1e3:.1f}", f"{min(seconds) * 1e3:.1f}", f"{median / plain:.3f}"
        )
    Console().print(table)


if __name__ == "__main__":
    main()
