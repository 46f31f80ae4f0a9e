"""The training client keeps every promise of its port, of all weights and of low-rank updates."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, ClassVar

import crucible_adapter_torch.completer as torch_completer
import crucible_adapter_torch.training_client as torch_training_client
import pytest
from crucible_adapter_torch.checkpoints import exports
from crucible_adapter_torch.models import loading
from crucible_adapter_torch.options import ModelOptions
from crucible_kitchen import TrainingClient
from crucible_kitchen.testing import LEVEL, TrainingClientConformance, bound
from tiny_torch import MODELS


@pytest.fixture(scope="module")
def rounded(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A folder of a model whose weights are bfloat16."""
    folder = tmp_path_factory.mktemp("model")
    made = loading.load(ModelOptions(models=MODELS, dtype="bfloat16", device="cpu"), "tiny")
    exports.write_model(folder, made)
    return str(folder)


class TestEveryWeight(TrainingClientConformance):
    variant = "all weights"
    level = LEVEL

    options: ClassVar[dict[str, Any]] = {}

    @pytest.fixture
    def reopen(self, tmp_path: Path) -> Callable[[], AbstractContextManager[TrainingClient]]:
        usual: dict[str, Any] = {"micro_batch_tokens": 64}  # so that batches are cut
        return lambda: bound(
            "training_client",
            torch_training_client,
            checkpoint_dir=tmp_path / "checkpoints",
            models=MODELS,
            device="cpu",
            **{**usual, **self.options},
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


class TestEveryWeightInLittleMemory(TestEveryWeight):
    variant = "all weights, gradient checkpointing, another attention, a budget that is found"
    within_wrappers = False
    options: ClassVar[dict[str, Any]] = {
        "gradient_checkpointing": True,
        "attn_implementation": "eager",
        "micro_batch_tokens": "auto",
    }


@pytest.mark.filterwarnings("ignore:base_dtype")  # some promises are tried without an update
class TestLowRankUpdateInLittleMemory(TestLowRankUpdate):
    """Of a model that is bfloat16 on disk, as most are."""

    variant = "LoRA, gradient checkpointing, frozen weights in bfloat16"
    within_wrappers = False
    options: ClassVar[dict[str, Any]] = {"gradient_checkpointing": True, "base_dtype": "bfloat16"}

    @pytest.fixture
    def model(self, rounded: str) -> str:
        return rounded
