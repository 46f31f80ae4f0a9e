"""Small models for the adapter `torch`, and what its tests do with them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
import torch
from crucible_kitchen import (
    AdamParams,
    Datum,
    FloatArray,
    Kitchen,
    LoraConfig,
    ModelInput,
    OptimStepResult,
    SessionConfig,
    TrainingClient,
)
from numpy.typing import ArrayLike
from torch import Tensor

LLAMA: dict[str, Any] = {
    "model_type": "llama",
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "max_position_embeddings": 32,
}
MODELS: dict[str, dict[str, Any]] = {
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
    # Its embedding, which is also its unembedding, is a class of its own that scales rows.
    "gemma": {**LLAMA, "model_type": "gemma3_text", "head_dim": 8, "num_key_value_heads": 1},
}
TINY = SessionConfig("tiny")
CONTINUED = {
    "full": SessionConfig("drops", seed=3),
    "lora": SessionConfig("drops", seed=3, lora=LoraConfig(rank=2, dropout=0.3)),
}
"""Sessions whose training depends on every part of their state."""
ADAM = AdamParams()

MakeKitchen: TypeAlias = Callable[..., Kitchen]
"""Makes a kitchen; its arguments are options of the training client."""


def datum(sequence: ArrayLike, **inputs: ArrayLike) -> Datum:
    """Make a datum that predicts each token of a sequence from those before it.

    Args:
        sequence: token ids, `(T + 1,)`.
        inputs: loss inputs, `(T,)` each; without any, the weights are ones.
    """
    tokens = np.array(sequence)
    inputs = inputs or {"weights": np.ones(len(tokens) - 1)}
    arrays = {name: np.asarray(values, np.float32) for name, values in inputs.items()}
    return Datum(ModelInput.from_ints(tokens[:-1]), {"target_tokens": tokens[1:], **arrays})


def random_datums() -> list[Datum]:
    """Eight rows of 3 to 10 random tokens; the same each time."""
    rng = np.random.default_rng(0)
    return [datum(rng.integers(0, 256, rng.integers(4, 12))) for _ in range(8)]


def train(
    client: TrainingClient,
    session: Any,
    datums: Sequence[Datum],
    steps: int = 1,
    rate: float = 1e-2,
    adam: AdamParams = ADAM,
) -> OptimStepResult:
    """Take steps on the datums; return the last result."""
    for _ in range(steps):
        loss = client.forward_backward(session, datums)
        step = client.optim_step(session, rate, adam)
        client.await_(loss)
        result: OptimStepResult = client.await_(step)
    return result


def train_on_parts(client: TrainingClient, session: Any, datums: Sequence[Datum]) -> None:
    """Take five steps on parts of the datums."""
    for step in range(5):
        train(client, session, datums[step % 3 :])


def logprobs(client: TrainingClient, session: Any, datums: Sequence[Datum]) -> list[FloatArray]:
    """Return the log probabilities of the targets: a function of all weights of the session."""
    plain = [
        Datum(d.model_input, {"target_tokens": d.loss_fn_inputs["target_tokens"]}) for d in datums
    ]
    return [output["logprobs"] for output in client.await_(client.forward(session, plain)).outputs]


def same(left: Iterable[FloatArray], right: Iterable[FloatArray]) -> bool:
    """Whether two lists of arrays are equal to the bit."""
    return all(np.array_equal(a, b) for a, b in zip(left, right, strict=True))


def tensors(session: Any) -> dict[str, Tensor]:
    """Return copies of the weights of a session and of their moments, by name."""
    engine = session.engine
    return {n: t.detach().clone() for n, t in {**engine.weights, **engine.moments()}.items()}


def state(session: Any) -> dict[str, Tensor]:
    """Return the tensors of a session and the numbers of its randomness, by name."""
    randomness = session.engine.randomness().items()
    return {**tensors(session), **{name: torch.tensor(number) for name, number in randomness}}


def assert_equal_to_the_bit(left: Mapping[str, Tensor], right: Mapping[str, Tensor]) -> None:
    assert left.keys() == right.keys()
    for name, tensor in left.items():
        assert torch.equal(tensor, right[name]), name


class Gate:
    """Makes the model of a session wait inside its next forward pass.

    Attributes:
        entered: set when the pass has begun.
        open: set it to let the pass, and later ones, continue.
    """

    def __init__(self, session: Any) -> None:
        self.entered, self.open = threading.Event(), threading.Event()
        session.engine.model.register_forward_pre_hook(self._wait)

    def _wait(self, module: Any, args: Any) -> None:
        self.entered.set()
        assert self.open.wait(30)


def break_next_pass(session: Any) -> None:
    """Let the next forward pass of a session fail."""

    def fail(module: Any, args: Any) -> None:
        handle.remove()
        raise RuntimeError("out of memory")

    handle = session.engine.model.register_forward_pre_hook(fail)
