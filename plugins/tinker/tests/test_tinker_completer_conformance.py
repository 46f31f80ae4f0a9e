"""The completer keeps every promise of its port, on a SkyRL server."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

import crucible_adapter_tinker.completer as tinker_completer
import crucible_adapter_tinker.training_client as tinker_training_client
import pytest
from crucible_kitchen import Completer, LoraConfig, SessionConfig, TrainingClient
from crucible_kitchen.testing import LEVEL, CompleterConformance, bound

if TYPE_CHECKING:
    from skyrl_server import SkyrlServer


@pytest.mark.slow
class TestCompleter(CompleterConformance):
    level = LEVEL
    max_examples = 10  # each is several requests
    max_in_flight = 8

    @pytest.fixture
    def reopen(self, skyrl: SkyrlServer) -> Callable[[], AbstractContextManager[Completer]]:
        # Compiled are shapes: one for all prompts of at most 32 tokens, another for twice as many.
        return lambda: bound(
            "completer",
            tinker_completer,
            base_url=skyrl.base_url,
            context_length=63,
            max_concurrency=self.max_in_flight,
        )

    @pytest.fixture
    def completer(
        self, reopen: Callable[[], AbstractContextManager[Completer]]
    ) -> Iterator[Completer]:
        with reopen() as completer:
            yield completer

    @pytest.fixture
    def model(self, skyrl: SkyrlServer) -> str:
        return skyrl.model

    @pytest.fixture
    def prompt(self) -> str:
        return "Hi!"

    @pytest.fixture
    def max_tokens(self) -> int:
        return 4  # each number is compiled

    @pytest.fixture
    def in_flight(self, monkeypatch: pytest.MonkeyPatch) -> Callable[[], int]:
        from tinker import SamplingClient

        sample, lock = SamplingClient.sample, threading.Lock()
        flying = most = 0

        def landed(_: Any) -> None:
            nonlocal flying
            with lock:
                flying -= 1

        def counted(*args: Any, **kwargs: Any) -> Any:
            nonlocal flying, most
            with lock:
                flying += 1
                most = max(most, flying)
            future: Any = sample(*args, **kwargs)
            future.add_done_callback(landed)
            return future

        monkeypatch.setattr(SamplingClient, "sample", counted)
        return lambda: most

    @pytest.fixture
    def trainer(self, skyrl: SkyrlServer) -> Iterator[tuple[TrainingClient, Any]]:
        with bound("training_client", tinker_training_client, base_url=skyrl.base_url) as client:
            session = client.start_session(SessionConfig(skyrl.model, lora=LoraConfig(rank=4)))
            yield client, session
            client.close_session(session)
