"""How long training stands still for a checkpoint, against safetensors with fsync.

A checkpoint holds the weights and both moments of AdamW, all in float32: 12 bytes a parameter. Ours
is written while the next steps run, so what stands still is the call that submits it, and the
optimizer step that must first copy what is not written yet. The alternative is what a training
script does: `safetensors.torch.save_file`, then fsync, before the next step.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .comparison import Contest, Growth, Row, at_most
from .settings import Settings

LAYER = {
    "model_type": "llama",
    "hidden_size": 512,
    "intermediate_size": 1408,
    "num_attention_heads": 8,
    "max_position_embeddings": 128,
}
LAYERS = (2, 4, 8, 16)
"""Of the models: 6.7, 13, 26 and 52 million parameters."""


class Training:
    """A session that takes steps and saves checkpoints, and the seconds that it stood still."""

    def __init__(self, folder: Path, layers: int, shape: tuple[int, int], device: str) -> None:
        import crucible_adapter_torch.training_client as adapter
        import numpy as np
        from crucible_kitchen import Datum, Kitchen, ModelInput, SessionConfig

        models = {"model": {**LAYER, "num_hidden_layers": layers}}
        options = {"checkpoint_dir": folder / "ours", "models": models, "device": device}
        self.kitchen = Kitchen({"training_client": {"use": adapter, **options}})
        self.client = self.kitchen.training_client
        self.session: Any = self.client.start_session(SessionConfig("model"))
        rows = np.random.default_rng(0).integers(0, 256, shape)
        ones = np.ones(shape[1] - 1, np.float32)
        self.datums = [
            Datum(ModelInput.from_ints(row[:-1]), {"target_tokens": row[1:], "weights": ones})
            for row in rows
        ]
        self.folder, self.stood, self.durable = folder, 0.0, 0.0
        self.parameters = sum(each.numel() for each in self.session.engine.weights.values())
        self.step()  # from here on there are moments
        self.usual = statistics.median(self.step() for _ in range(5))

    def step(self) -> float:
        """Take a step; return the seconds of its optimizer."""
        self.client.await_(self.client.forward_backward(self.session, self.datums))
        started = time.perf_counter()
        self.client.await_(self.client.optim_step(self.session, 1e-5))
        return time.perf_counter() - started

    def save_behind_the_next_steps(self) -> None:
        expected = self.digests()
        started = time.perf_counter()
        saved = self.client.save_checkpoint_async(self.session, "x")
        self.stood += time.perf_counter() - started
        self.stood += max(0.0, self.step() - self.usual)
        reference = self.client.await_(saved)
        self.durable = time.perf_counter() - started
        state = json.loads((self.folder / "ours" / reference / "state.json").read_text())
        assert state["sha256"] == expected, "the checkpoint is not the state when it was submitted"
        self.client.delete_checkpoint(reference)

    def save_with_safetensors(self) -> None:
        from safetensors.torch import save_file

        folder = self.folder / "theirs"
        tensors = self.tensors()
        started = time.perf_counter()
        folder.mkdir()
        for name, each in tensors.items():
            save_file(each, folder / name)
        for path in (*folder.iterdir(), folder):
            descriptor = os.open(path, os.O_RDONLY)
            os.fsync(descriptor)
            os.close(descriptor)
        self.stood += time.perf_counter() - started
        self.step()
        shutil.rmtree(folder)

    def tensors(self) -> dict[str, dict[str, Any]]:
        """Return what a checkpoint holds, by the names of its files."""
        engine = self.session.engine
        weights = {name: weight.detach() for name, weight in engine.weights.items()}
        return {"weights.safetensors": weights, "moments.safetensors": engine.moments()}

    def digests(self) -> dict[str, str]:
        from safetensors.torch import save

        return {n: hashlib.sha256(save(each)).hexdigest() for n, each in self.tensors().items()}


def measured(settings: Settings, layers: int) -> tuple[Contest[Any], Training]:
    """Save with a model of this many layers, each way in turns."""
    shape = (2, 16) if settings.small else (8, 128)
    with tempfile.TemporaryDirectory() as folder:
        training = Training(Path(folder), layers, shape, settings.device)
        try:
            contest = settings.contest()
            contest.clock = lambda: training.stood  # nothing else counts
            contest.run(
                ours=training.save_behind_the_next_steps, theirs=training.save_with_safetensors
            )
        finally:
            training.kitchen.close()
    return contest, training


def rows(settings: Settings) -> Iterator[Row]:
    contest, training = measured(settings, LAYERS[0 if settings.small else -1])
    yield contest.row(
        "ours",
        "theirs",
        what=f"checkpoint of {training.parameters / 1e6:.0f}M parameters, stall of the training",
        against="safetensors with fsync",
        goal=at_most(0.1),
        work=1e-3,
        unit="ms",
        note=f"durable after {training.durable:.1f} s, behind a step of 1,024 tokens",
    )


def growth(settings: Settings) -> Iterator[Growth]:
    names = ("stall, saved behind the next steps", "stall, safetensors with fsync", "until durable")
    curves: dict[str, list[float]] = {name: [] for name in names}
    sizes = []
    for layers in LAYERS:
        contest, training = measured(settings, layers)
        found = (*(statistics.median(contest.seconds[n]) for n in ("ours", "theirs")),)
        for name, seconds in zip(names, (*found, training.durable), strict=True):
            curves[name].append(seconds * 1e3)
        sizes.append(training.parameters / 1e6)
    yield Growth("checkpoint", "million parameters", "ms", sizes, {**curves})
