"""The completer keeps every promise of its port, with a model that was trained a little."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import crucible_adapter_torch.completer as torch_completer
import crucible_adapter_torch.training_client as torch_training_client
import numpy as np
import pytest
from crucible_kitchen import (
    Completer,
    Datum,
    Kitchen,
    ModelInput,
    SessionConfig,
    TrainingClient,
)
from crucible_kitchen.testing import LEVEL, CompleterConformance, bound

CONTEXT = 192
MODELS = {
    "tiny": {
        "model_type": "llama",
        "hidden_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 64,
        "max_position_embeddings": CONTEXT,
    }
}
TEMPLATE = (
    "{% for message in messages %}{{ message.role }}: {{ message.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant: {% endif %}"
)
ANSWERS = ("it is wide", "ships and salt", "waves, waves", "blue in größe")
END = 256


@pytest.fixture(scope="module")
def kitchen(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kitchen]:
    shared = {"models": MODELS, "device": "cpu"}
    folder = tmp_path_factory.mktemp("checkpoints")
    client = {"use": torch_training_client, "checkpoint_dir": folder, **shared}
    with Kitchen(adapters={"training_client": client}) as kitchen:
        yield kitchen


@pytest.fixture(scope="module")
def session(kitchen: Kitchen) -> Any:
    """A session whose model answers in words, and mostly comes to an end."""
    client = kitchen.training_client
    session = client.start_session(SessionConfig("tiny"))
    client.helper("get_tokenizer")(session).tokenizer.chat_template = TEMPLATE
    datums = []
    for answer in ANSWERS:
        tokens = np.array([*b"assistant: ", *answer.encode(), END])
        weights = np.ones(len(tokens) - 1, np.float32)
        targets = {"target_tokens": tokens[1:], "weights": weights}
        datums.append(Datum(ModelInput.from_ints(tokens[:-1]), targets))
    for _ in range(60):
        client.forward_backward(session, datums)
        client.await_(client.optim_step(session, 1e-2))
    return session


@pytest.fixture(scope="module")
def folder(kitchen: Kitchen, session: Any) -> str:
    return kitchen.training_client.save_weights_for_sampler(session, "answers")


class TestTorch(CompleterConformance):
    level = LEVEL

    @pytest.fixture
    def completer(self, folder: str) -> Iterator[Completer]:
        with bound("completer", torch_completer, model=folder, device="cpu") as completer:
            yield completer

    @pytest.fixture
    def reopen(self, folder: str) -> object:
        def other() -> AbstractContextManager[Completer]:
            return bound("completer", torch_completer, model=folder, device="cpu")

        return other

    @pytest.fixture
    def context_length(self) -> int:
        return CONTEXT

    @pytest.fixture
    def missing_model(self, tmp_path: Path) -> str:
        return str(tmp_path / "missing")

    @pytest.fixture
    def trainer(self, kitchen: Kitchen, session: Any) -> tuple[TrainingClient, Any]:
        return kitchen.training_client, session
