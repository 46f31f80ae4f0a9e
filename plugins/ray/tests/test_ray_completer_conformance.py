"""The completer keeps every promise of its port, on one actor and on two."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from crucible_kitchen import Completer, Kitchen, TrainingClient
from crucible_kitchen.testing import LEVEL, CompleterConformance
from vllm_model import CONTEXT

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("same_ray")]


class TestOneActor(CompleterConformance):
    variant = "1 actor"
    level = LEVEL
    max_examples = 5

    @pytest.fixture
    def completer(self, one_actor: Completer) -> Completer:
        return one_actor

    @pytest.fixture
    def model(self, folder: Path) -> str:
        return str(folder)

    @pytest.fixture
    def context_length(self) -> int:
        return CONTEXT

    @pytest.fixture
    def missing_model(self) -> str:
        return "./missing"

    @pytest.fixture
    def trainer(self, kitchen: Kitchen, session: Any) -> tuple[TrainingClient, Any]:
        return kitchen.training_client, session


class TestTwoActors(TestOneActor):
    variant = "2 actors"

    @pytest.fixture
    def completer(self, two_actors: Completer) -> Completer:
        return two_actors
