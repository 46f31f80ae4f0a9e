"""The training client of the guide keeps every promise."""

import contextlib
import threading
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import bigram_training_client
import pytest
from crucible_kitchen import TrainingClient
from crucible_kitchen.testing import LEVEL, TrainingClientConformance, bound

MANDATORY = types.ModuleType("mandatory_bigram")
"""The same without the optional callbacks."""
for name in ("Options", *TrainingClient.mandatory()):
    setattr(MANDATORY, name, getattr(bigram_training_client, name))


class TestBigram(TrainingClientConformance):
    level = LEVEL
    adapter = bigram_training_client

    @pytest.fixture
    def reopen(self, tmp_path: Path) -> Callable[[], Any]:
        options = {"checkpoint_dir": tmp_path / "checkpoints", "models": {"any": 40}}
        return lambda: bound("training_client", self.adapter, **options)

    @pytest.fixture
    def training_client(self, reopen: Callable[[], Any]) -> Iterator[TrainingClient]:
        with reopen() as client:
            yield client

    @pytest.fixture
    def vocab_size(self) -> int:
        return 40

    @pytest.fixture
    def paused(self) -> Callable[..., Any]:
        @contextlib.contextmanager
        def paused(session: Any) -> Iterator[None]:
            go_on = threading.Event()
            session.worker.submit(go_on.wait)
            try:
                yield
            finally:
                go_on.set()

        return paused


class TestMandatoryCallbacksAlone(TestBigram):
    """The kit learns what it needs even without the optional callbacks."""

    adapter = MANDATORY
