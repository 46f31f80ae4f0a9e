"""The trainer of a tiny model that answers in words, and one engine for all tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from crucible_kitchen import Completer, Kitchen, SessionConfig
from vllm_model import COMPLETER, MODELS, TEMPLATE, train


@pytest.fixture(scope="session")
def kitchen(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kitchen]:
    pytest.importorskip("vllm", reason="vLLM is not installed: it is too large to be demanded")
    pytest.importorskip("torch", reason="torch is not installed")
    folder = tmp_path_factory.mktemp("checkpoints")
    shared = {"models": MODELS, "device": "cpu"}
    client = {"use": "torch", "checkpoint_dir": str(folder), **shared}
    with Kitchen(adapters={"training_client": client, "completer": COMPLETER}) as kitchen:
        yield kitchen


@pytest.fixture(scope="session")
def session(kitchen: Kitchen) -> Any:
    """A session whose model answers in words, and mostly comes to an end."""
    client = kitchen.training_client
    session = client.start_session(SessionConfig("tiny"))
    client.helper("get_tokenizer")(session).tokenizer.chat_template = TEMPLATE
    train(client, session, 60)
    return session


@pytest.fixture(scope="session")
def folder(kitchen: Kitchen, session: Any) -> Path:
    """The weights of the session in a folder."""
    return Path(kitchen.training_client.save_weights_for_sampler(session, "answers"))


@pytest.fixture(scope="session")
def vllm(kitchen: Kitchen) -> Completer:
    """The adapter, whose engine starts with the first weights that it is asked for."""
    return kitchen.completer
