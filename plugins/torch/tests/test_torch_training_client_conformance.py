"""The training client keeps every promise of its port, of all weights and of low-rank updates."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import crucible_adapter_torch.completer as torch_completer
import crucible_adapter_torch.training_client as torch_training_client
import pytest
from crucible_kitchen import TrainingClient
from crucible_kitchen.testing import LEVEL, TrainingClientConformance, bound
from tiny_torch import MODELS


class TestEveryWeight(TrainingClientConformance):
    variant = "all weights"
    level = LEVEL

    @pytest.fixture
    def reopen(self, tmp_path: Path) -> Callable[[], AbstractContextManager[TrainingClient]]:
        return lambda: bound(
            "training_client",
            torch_training_client,
            checkpoint_dir=tmp_path / "checkpoints",
            models=MODELS,
            device="cpu",
            micro_batch_tokens=64,  # so that batches are cut
        )

    @pytest.fixture
    def training_client(
        self, reopen: Callable[[], AbstractContextManager[TrainingClient]]
    ) -> Iterator[TrainingClient]:
        with reopen() as client:
            yield client

    @pytest.fixture
    def model(self) -> str:
        return "tiny"

    @pytest.fixture
    def vocab_size(self) -> int:
        return 257

    @pytest.fixture
    def max_length(self) -> int:
        return 32

    @pytest.fixture
    def score(self) -> Iterator[Callable[..., Any]]:
        options: dict[str, Any] = {"model": "tiny", "models": MODELS, "device": "cpu"}
        with bound("completer", torch_completer, **options) as completer:
            yield completer.score

    @pytest.fixture
    def paused(self) -> Callable[[Any], AbstractContextManager[None]]:
        @contextlib.contextmanager
        def paused(session: Any) -> Iterator[None]:
            go_on = threading.Event()
            session.worker.submit(go_on.wait)
            try:
                yield
            finally:
                go_on.set()

        return paused


class TestLowRankUpdate(TestEveryWeight):
    variant = "LoRA"

    @pytest.fixture
    def lora_rank(self) -> int:
        return 2
