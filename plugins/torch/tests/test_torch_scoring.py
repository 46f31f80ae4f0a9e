"""Logits are made where a target counts, in parts: with the numbers that all of them would give."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from crucible_adapter_torch.models.language_model import LanguageModel
from crucible_adapter_torch.models.loading import load
from crucible_adapter_torch.options import ModelOptions
from crucible_adapter_torch.passes import scoring, unembedding
from crucible_adapter_torch.passes.batches import Piece, by_row, datum_pieces
from crucible_adapter_torch.passes.unembedding import Tail
from crucible_adapter_torch.training.losses import LOSSES
from crucible_kitchen import LOSS_FUNCTIONS, Datum
from tiny_torch import LLAMA, datum
from torch import Tensor

MODELS: dict[str, dict[str, Any]] = {
    "llama": LLAMA,
    "scaled": {**LLAMA, "model_type": "granite", "logits_scaling": 7.0},
    "limited": {
        **LLAMA,
        "model_type": "gemma2",
        "final_logit_softcapping": 0.5,
        "head_dim": 16,
        "num_key_value_heads": 1,
    },
    "widened": {
        "model_type": "mamba",
        "hidden_size": 32,
        "num_hidden_layers": 1,
    },
    "transposed": {"model_type": "gpt2", "n_embd": 32, "n_layer": 1, "n_head": 2},
}
TAILS = {
    "llama": Tail(),
    "scaled": Tail(scale=1 / 7),
    "limited": Tail(limit=0.5),
    "widened": Tail(),
    "transposed": Tail(),
}


def model_of(name: str, dtype: str = "float32") -> LanguageModel:
    options = ModelOptions.model_validate({"models": MODELS, "device": "cpu", "dtype": dtype})
    return load(options, name, precise=True)


def rows(loss_fn: str, seed: int = 0) -> list[Datum]:
    """Rows of which about half of the targets count; of one none."""
    rng = np.random.default_rng(seed)
    made = []
    for size, share in ((9, 0.5), (3, 0.5), (7, 0.0), (7, 1.0)):
        counts = rng.random(size) < share
        inputs = {name: rng.normal(size=size) * counts for name in LOSS_FUNCTIONS[loss_fn].inputs}
        if "logprobs" in inputs:
            inputs["logprobs"] -= 5.5 * counts
        made.append(datum(rng.integers(0, 256, size + 1), **inputs))
    return made


def whole(loss_fn: str) -> list[Piece]:
    return datum_pieces(rows(loss_fn), LOSS_FUNCTIONS[loss_fn].inputs, 4096)


Found = tuple[float, list[Any], dict[str, Tensor]]


def gradient(model: LanguageModel, loss_fn: str) -> Found:
    """Return the loss of `rows`, their logprobs and the gradients."""
    model.model.zero_grad()
    total, flat, batch = 0.0, [], whole(loss_fn)
    for piece in batch:

        def loss(logprobs: Tensor, part: slice, piece: Piece = piece) -> Tensor:
            inputs = {
                name: torch.from_numpy(values)[part] for name, values in piece.loss_inputs.items()
            }
            return LOSSES[loss_fn](logprobs, inputs, LOSS_FUNCTIONS[loss_fn].config)

        value, logprobs = scoring.add_gradient(model, piece, loss)
        total += value.item()
        flat.append(logprobs.numpy())
    found = {n: w.grad.clone() for n, w in model.model.named_parameters() if w.grad is not None}
    return total, by_row(batch, flat), found


@pytest.fixture
def in_parts(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    def apply() -> None:
        monkeypatch.setattr(scoring, "FEW", 0)
        monkeypatch.setattr(scoring, "LOGITS", 3 * 257)

    return apply


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", MODELS)
def test_what_an_architecture_does_to_its_logits_is_found_out(name: str, dtype: str) -> None:
    found = unembedding.tail_of(model_of(name, dtype))
    assert found is not None
    assert (found.scale, found.limit) == pytest.approx((TAILS[name].scale, TAILS[name].limit))


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("loss_fn", LOSSES)
def test_parts_have_the_numbers_of_all_logits_at_once(
    name: str, loss_fn: str, in_parts: Callable[[], None]
) -> None:
    model = model_of(name)
    loss, logprobs, gradients = gradient(model, loss_fn)
    in_parts()
    other_loss, other_logprobs, other_gradients = gradient(model, loss_fn)
    assert other_loss == pytest.approx(loss, rel=1e-5)
    for left, right in zip(other_logprobs, logprobs, strict=True):
        np.testing.assert_allclose(left, right, rtol=1e-5, atol=1e-6)
    assert other_gradients.keys() == gradients.keys()
    for key, value in gradients.items():
        torch.testing.assert_close(other_gradients[key], value, rtol=1e-4, atol=1e-5)


def test_in_bfloat16_probabilities_are_of_float32(in_parts: Callable[[], None]) -> None:
    model = model_of("llama", "bfloat16")
    loss, _, gradients = gradient(model, "cross_entropy")
    in_parts()
    other_loss, logprobs, other_gradients = gradient(model, "cross_entropy")
    assert {each.dtype for each in logprobs} == {np.dtype(np.float32)}
    assert other_loss == pytest.approx(loss, rel=1e-3)
    for key, value in gradients.items():
        assert (other_gradients[key] - value).norm() < 0.05 * value.norm()


def test_a_batch_in_which_nothing_counts_has_a_gradient_of_zero(
    in_parts: Callable[[], None],
) -> None:
    in_parts()
    model = model_of("llama")
    [piece] = datum_pieces([datum([1, 2, 3], weights=[0, 0])], ["weights"], 4096)
    value, logprobs = scoring.add_gradient(model, piece, lambda logprobs, part: logprobs.sum())
    assert (value.item(), logprobs.shape) == (0, (0,))
    for weight in model.model.parameters():
        assert weight.grad is not None
        assert not weight.grad.any()


def test_the_output_layer_sees_the_positions_that_count_and_few_at_a_time(
    in_parts: Callable[[], None],
) -> None:
    in_parts()
    model, seen = model_of("llama"), []
    unembedding.tail_of(model)
    head = model.model.get_output_embeddings()
    head.register_forward_hook(
        lambda module, inputs, output: seen.append(output.shape[:-1].numel())
    )
    gradient(model, "cross_entropy")
    counted = sum(
        int((each.loss_fn_inputs["weights"] != 0).sum()) for each in rows("cross_entropy")
    )
    assert sum(seen) == counted
    assert max(seen) == 3


def test_a_model_that_makes_its_logits_otherwise_makes_all(in_parts: Callable[[], None]) -> None:
    model = model_of("llama")
    expected = gradient(model, "cross_entropy")
    mixed = model_of("llama")
    original = mixed.model.forward

    def forward(*args: Any, **kwargs: Any) -> Any:  # the logits of a token depend on another's
        output = original(*args, **kwargs)
        output.logits = output.logits.sort(-1).values
        return output

    mixed.model.forward = forward
    assert unembedding.tail_of(mixed) is None
    in_parts()
    loss, _, _ = gradient(mixed, "cross_entropy")
    assert loss != pytest.approx(expected[0], rel=1e-3)


def test_another_thread_may_use_the_model_meanwhile() -> None:
    model, ids = model_of("llama"), torch.tensor([[1, 2, 3]])
    shapes: list[Any] = []

    def read() -> None:
        shapes.append(model.model(input_ids=ids).logits.shape)

    def elsewhere(module: Any, inputs: Any) -> None:
        if not shapes:
            thread = threading.Thread(target=read)
            shapes.append(None)
            thread.start()
            thread.join()

    model.model.model.layers[0].register_forward_pre_hook(elsewhere)
    with torch.no_grad():
        unembedding.hidden_states(model, ids)
    assert shapes[1] == (1, 3, model.vocab_size)
