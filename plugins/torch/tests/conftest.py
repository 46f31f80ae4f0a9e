from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import crucible_adapter_torch.completer as torch_completer
import crucible_adapter_torch.training_client as torch_training_client
import pytest
from crucible_kitchen import Completer, Datum, Kitchen, TrainingClient
from tiny_torch import MODELS, MakeKitchen, random_datums


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--architectures",
        choices=["check", "write"],
        help="try every architecture of Transformers; check the page architectures, or write it",
    )


@pytest.fixture
def ckpt(tmp_path: Path) -> Path:
    """The folder of the checkpoints. It does not exist yet."""
    return tmp_path / "ckpt"


@pytest.fixture
def make_kitchen(ckpt: Path) -> Iterator[MakeKitchen]:
    """Make kitchens that share a checkpoint folder; arguments are options of the client."""
    made = []

    def make(**options: Any) -> Kitchen:
        shared = {"models": MODELS, "device": "cpu"}
        client = {"use": torch_training_client, "checkpoint_dir": ckpt, **shared}
        completer = {"use": torch_completer, "model": "tiny", **shared}
        kitchen = Kitchen(
            adapters={"training_client": {**client, **options}, "completer": completer}
        )
        made.append(kitchen)
        return kitchen

    yield make
    for kitchen in made:
        kitchen.close()


@pytest.fixture
def kitchen(make_kitchen: MakeKitchen) -> Kitchen:
    return make_kitchen()


@pytest.fixture
def client(kitchen: Kitchen) -> TrainingClient:
    return kitchen.training_client


@pytest.fixture
def completer(kitchen: Kitchen) -> Completer:
    return kitchen.completer


@pytest.fixture
def datums() -> list[Datum]:
    """Eight rows of 3 to 10 random tokens."""
    return random_datums()
