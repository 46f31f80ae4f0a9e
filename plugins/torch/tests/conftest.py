from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import crucible_adapter_torch.completer as torch_completer
import crucible_adapter_torch.training_client as torch_training_client
import numpy as np
import pytest
from crucible_kitchen import Completer, Datum, Kitchen, ModelInput, TrainingClient

LLAMA = {
    "model_type": "llama",
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "max_position_embeddings": 32,
}
MODELS = {
    "tiny": LLAMA,
    "deep": {**LLAMA, "num_hidden_layers": 2},
    "drops": {**LLAMA, "attention_dropout": 0.2},
    "gpt2": {
        "model_type": "gpt2",
        "hidden_size": 16,
        "n_layer": 1,
        "n_head": 2,
        "n_positions": 32,
        "resid_pdrop": 0.0,
        "embd_pdrop": 0.0,
        "attn_pdrop": 0.0,
    },
}

MakeKitchen = Callable[..., Kitchen]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--architectures",
        choices=["check", "write"],
        help="try every architecture of Transformers; check its page in docs/, or write it",
    )


@pytest.fixture
def make_kitchen(tmp_path: Path) -> Iterator[MakeKitchen]:
    """Make kitchens that share a checkpoint folder; arguments are options of the client."""
    made = []

    def make(**options: Any) -> Kitchen:
        shared = {"models": MODELS, "device": "cpu"}
        client = {"use": torch_training_client, "checkpoint_dir": tmp_path / "ckpt", **shared}
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
def models() -> dict[str, Any]:
    return MODELS


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
def make_datum() -> Callable[..., Datum]:
    def make(sequence: Sequence[int], **inputs: Any) -> Datum:
        tokens = np.array(sequence)
        inputs = inputs or {"weights": np.ones(len(tokens) - 1)}
        arrays = {name: np.asarray(values, np.float32) for name, values in inputs.items()}
        return Datum(ModelInput.from_ints(tokens[:-1]), {"target_tokens": tokens[1:], **arrays})

    return make


@pytest.fixture
def datums(make_datum: Callable[..., Datum]) -> list[Datum]:
    """Eight rows of 3 to 10 random tokens."""
    rng = np.random.default_rng(0)
    return [make_datum(rng.integers(0, 256, rng.integers(4, 12))) for _ in range(8)]
