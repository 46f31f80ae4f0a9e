import contextlib
import time
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from crucible_kitchen import Kitchen, TrainingClient
from crucible_kitchen.testing import LEVEL, TrainingClientConformance

from kitchen_noop import completer, training_client


class TestNoop(TrainingClientConformance):
    level = LEVEL

    @pytest.fixture
    def kitchen(self) -> Iterator[Kitchen]:
        adapters = {"training_client": training_client, "completer": completer}
        with Kitchen(
            adapters={port: {"use": use, "latency_scale": 0} for port, use in adapters.items()}
        ) as kitchen:
            yield kitchen

    @pytest.fixture
    def training_client(self, kitchen: Kitchen) -> TrainingClient:
        return kitchen.training_client

    @pytest.fixture
    def score(self, kitchen: Kitchen) -> Callable[..., Any]:
        return kitchen.completer.score

    @pytest.fixture
    def paused(self, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
        @contextlib.contextmanager
        def paused(session: training_client.Session) -> Iterator[None]:
            """Let the session be busy for an hour, and then let the hour pass."""
            session.idle_at = time.monotonic() + 3600
            yield
            later = SimpleNamespace(monotonic=lambda: time.monotonic() + 3601, sleep=time.sleep)
            monkeypatch.setattr(training_client, "time", later)

        return paused
