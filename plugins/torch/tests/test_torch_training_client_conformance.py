import contextlib
import threading

import crucible_adapter_torch.completer
import crucible_adapter_torch.training_client
import pytest
from crucible_kitchen.testing import LEVEL, TrainingClientConformance, bound


class TestEveryWeight(TrainingClientConformance):
    variant = "all weights"
    level = LEVEL

    @pytest.fixture
    def reopen(self, tmp_path, models):
        return lambda: bound(
            "training_client",
            crucible_adapter_torch.training_client,
            checkpoint_dir=tmp_path / "checkpoints",
            models=models,
            device="cpu",
            micro_batch_tokens=64,  # so that batches are cut
        )

    @pytest.fixture
    def training_client(self, reopen):
        with reopen() as client:
            yield client

    @pytest.fixture
    def model(self):
        return "tiny"

    @pytest.fixture
    def vocab_size(self):
        return 257

    @pytest.fixture
    def max_length(self):
        return 32

    @pytest.fixture
    def score(self, models):
        adapter = crucible_adapter_torch.completer
        with bound("completer", adapter, model="tiny", models=models, device="cpu") as completer:
            yield completer.score

    @pytest.fixture
    def paused(self):
        @contextlib.contextmanager
        def paused(session):
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
    def lora_rank(self):
        return 2
