"""The training client keeps every promise of its port.

With TRIALS above 1, as in `tox -e trials`, with one worker and with parts of weights, too.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, ClassVar

import crucible_adapter_ray.training_client as ray_training_client
import pytest
from crucible_kitchen import TrainingClient
from crucible_kitchen.testing import LEVEL, TrainingClientConformance, bound

pytestmark = pytest.mark.usefixtures("same_ray")

TRIALS = int(os.environ.get("TRIALS", "1"))
TINY = {
    "model_type": "llama",
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "max_position_embeddings": 32,
}


class OnRay(TrainingClientConformance):
    level = LEVEL

    options: ClassVar[dict[str, Any]] = {}

    @classmethod
    def where(cls, folder: Path) -> dict[str, Any]:
        """Return the options that say where checkpoints are."""
        return {"checkpoint_dir": folder}

    @pytest.fixture(scope="class")
    @classmethod
    def reopen(
        cls, tmp_path_factory: pytest.TempPathFactory
    ) -> Callable[[], AbstractContextManager[TrainingClient]]:
        usual: dict[str, Any] = {"micro_batch_tokens": 64}  # so that batches are cut
        folder = tmp_path_factory.mktemp("checkpoints")
        return lambda: bound(
            "training_client",
            ray_training_client,
            models={"tiny": TINY},
            device="cpu",
            reuse_workers=True,
            **{**usual, **cls.where(folder), **cls.options},
        )

    @pytest.fixture(scope="class")
    @classmethod
    def client(
        cls, reopen: Callable[[], AbstractContextManager[TrainingClient]]
    ) -> Iterator[TrainingClient]:
        with reopen() as client:
            yield client

    @pytest.fixture
    def training_client(self, client: TrainingClient) -> TrainingClient:
        """The same for all tests, whose sessions have the same workers one after another."""
        return client

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


class TestTwoWorkers(OnRay):
    variant = "2 workers, ddp"
    options: ClassVar[dict[str, Any]] = {"workers": 2}


if TRIALS > 1:  # a session's processes take seconds to start

    class TestOneWorker(OnRay):
        variant = "1 worker"

    class TestTwoWorkersSharded(OnRay):
        variant = "2 workers, fsdp, LoRA, checkpoints in a blob store"
        options: ClassVar[dict[str, Any]] = {"workers": 2, "strategy": "fsdp"}

        @classmethod
        def where(cls, folder: Path) -> dict[str, Any]:
            store = {"use": "fsspec", "url": str(folder / "store")}
            return {"checkpoint_dir": folder / "on their way", "checkpoints": store}

        @pytest.fixture
        def lora_rank(self) -> int:
            return 2
