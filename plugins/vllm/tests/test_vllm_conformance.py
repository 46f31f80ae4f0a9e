"""The completer keeps every promise of its port, with a model that was trained a little."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from crucible_kitchen import Completer, Kitchen, TrainingClient
from crucible_kitchen.testing import LEVEL, CompleterConformance

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]  # vLLM's own


class TestVllm(CompleterConformance):
    level = LEVEL
    max_examples = 5

    @pytest.fixture
    def completer(self, vllm: Completer) -> Completer:
        return vllm

    @pytest.fixture
    def model(self, folder: Path) -> str:
        return str(folder)

    @pytest.fixture
    def context_length(self) -> int:
        return 192

    @pytest.fixture
    def missing_model(self) -> str:
        return "./missing"

    @pytest.fixture
    def trainer(self, kitchen: Kitchen, session: Any) -> tuple[TrainingClient, Any]:
        return kitchen.training_client, session
