"""The completer that makes words up keeps every promise of the port that such a one can keep."""

from collections.abc import Iterator
from typing import Any

import pytest
from crucible_kitchen import Completer, Kitchen, SessionConfig, TrainingClient
from crucible_kitchen.testing import LEVEL, CompleterConformance, bound

from kitchen_noop import completer as noop
from kitchen_noop import training_client


class TestNoop(CompleterConformance):
    level = LEVEL

    @pytest.fixture
    def kitchen(self) -> Iterator[Kitchen]:
        tables = {
            port: {"use": module, "latency_scale": 0}
            for port, module in (("completer", noop), ("training_client", training_client))
        }
        with Kitchen(adapters=tables) as kitchen:
            yield kitchen

    @pytest.fixture
    def completer(self, kitchen: Kitchen) -> Completer:
        return kitchen.completer

    @pytest.fixture
    def reopen(self) -> object:
        return lambda: bound("completer", noop, latency_scale=0)

    @pytest.fixture
    def missing_model(self) -> str:
        return "noop://ephemeral/of-a-session-that-is-closed"

    @pytest.fixture
    def trainer(self, kitchen: Kitchen) -> tuple[TrainingClient, Any]:
        client = kitchen.training_client
        return client, client.start_session(SessionConfig("noop", seed=3))
