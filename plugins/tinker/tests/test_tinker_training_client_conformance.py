"""The training client keeps every promise of its port, on a SkyRL server."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

import crucible_adapter_tinker.completer as tinker_completer
import crucible_adapter_tinker.training_client as tinker_training_client
import pytest
from crucible_kitchen import FloatArray, TrainingClient
from crucible_kitchen.testing import LEVEL, TrainingClientConformance, bound

if TYPE_CHECKING:
    from skyrl_server import SkyrlServer


@pytest.mark.slow
class TestTrainingClient(TrainingClientConformance):
    level = LEVEL
    max_examples = 5  # each is several operations of the server

    @pytest.fixture
    def reopen(self, skyrl: SkyrlServer) -> Callable[[], AbstractContextManager[TrainingClient]]:
        return lambda: bound("training_client", tinker_training_client, base_url=skyrl.base_url)

    @pytest.fixture
    def training_client(
        self, reopen: Callable[[], AbstractContextManager[TrainingClient]]
    ) -> Iterator[TrainingClient]:
        with reopen() as client:
            yield client

    @pytest.fixture
    def model(self, skyrl: SkyrlServer) -> str:
        return skyrl.model

    @pytest.fixture
    def lora_rank(self) -> int:
        return 8

    @pytest.fixture
    def learning_rate(self) -> float:
        return 5e-3  # an update is multiplied by alpha / rank, which is 4

    @pytest.fixture
    def vocab_size(self) -> int:
        return 261

    @pytest.fixture
    def max_length(self) -> int:
        return 256

    @pytest.fixture
    def paused(self, skyrl: SkyrlServer) -> Callable[[Any], AbstractContextManager[None]]:
        return lambda session: skyrl.paused()

    @pytest.fixture
    def score(
        self, skyrl: SkyrlServer
    ) -> Iterator[Callable[[Sequence[Sequence[int]], str], Sequence[FloatArray]]]:
        with bound("completer", tinker_completer, base_url=skyrl.base_url) as completer:
            yield completer.score

    @pytest.mark.xfail(
        strict=False,  # labels that are not as long work
        reason="a server takes names of 255 characters, so longer labels are cut, and cleaning "
        "removes only what certainly has the prefix",
    )
    @pytest.mark.parametrize("run", ["run", "long" * 100, "ü/[*]?", "%2F"])
    def test_cleaning_removes_what_its_prefix_names_and_is_not_kept(
        self, bench: Any, run: str
    ) -> None:
        super().test_cleaning_removes_what_its_prefix_names_and_is_not_kept(bench, run)

    @pytest.mark.xfail(
        reason="SkyRL 0.3 has no route to delete a checkpoint: one that is deleted is forgotten in "
        "that process, and there for others",
    )
    def test_processes_list_checkpoints_in_one_order(self, bench: Any, elsewhere: Any) -> None:
        super().test_processes_list_checkpoints_in_one_order(bench, elsewhere)
