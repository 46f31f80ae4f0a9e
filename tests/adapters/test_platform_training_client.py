"""The training client of docs/adapters/training-client.md, against the platform that it is for."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import numpy as np
import platform_training_client as adapter
import pytest
from crucible_kitchen import (
    Datum,
    Kitchen,
    ModelInput,
    SessionConfig,
    TrainingClient,
    Unauthorized,
    Unavailable,
)
from crucible_kitchen.testing import LEVEL, TrainingClientConformance, bound

Reopen = Callable[[], AbstractContextManager[TrainingClient]]


class TestPlatform(TrainingClientConformance):
    @pytest.fixture
    def reopen(self, tmp_path: Path) -> Reopen:
        return lambda: bound(
            "training_client", adapter, api_key="sk-valid", base_url=f"file:{tmp_path}"
        )

    @pytest.fixture
    def training_client(self, reopen: Reopen) -> Iterator[TrainingClient]:
        with reopen() as client:
            yield client

    level = LEVEL

    @pytest.fixture
    def vocab_size(self) -> int:
        return 40


@pytest.fixture
def client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[TrainingClient]:
    monkeypatch.setenv("MY_API_KEY", "sk-valid")  # where the users of the platform have it
    with Kitchen(
        adapters={"training_client": {"use": adapter, "base_url": f"file:{tmp_path}"}}
    ) as kitchen:
        yield kitchen.training_client


def test_it_connects_with_valid_credentials(client: TrainingClient) -> None:
    assert client.start_session(SessionConfig("any")).model == "any"


def test_invalid_credentials_are_unauthorized(tmp_path: Path) -> None:
    options = {"api_key": "sk-invalid", "base_url": f"file:{tmp_path}"}
    with bound("training_client", adapter, **options) as client, pytest.raises(Unauthorized):
        client.start_session(SessionConfig("any"))


def test_a_platform_that_does_not_answer_is_unavailable() -> None:
    silent = pytest.raises(Unavailable, match=r"https://api\.example\.com does not answer")
    with bound("training_client", adapter, api_key="sk-valid") as client, silent:
        client.start_session(SessionConfig("any"))


def test_a_batch_is_submitted_and_awaited(client: TrainingClient) -> None:
    session = client.start_session(SessionConfig("any"))
    datums = [
        Datum(
            ModelInput.from_ints([1, 2, 3]),
            {"target_tokens": np.array([2, 3, 4]), "weights": np.ones(3, np.float32)},
        )
    ] * 2
    future = client.forward_backward(session, datums)
    result = client.await_(future)
    assert result.loss == pytest.approx(-sum(o["logprobs"].sum() for o in result.outputs))
