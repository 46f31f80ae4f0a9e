"""The arithmetic of training: losses, gradients, dropout and AdamW, without a session around it."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence

import numpy as np
import pytest
import torch
from crucible_adapter_torch.models.loading import load
from crucible_adapter_torch.options import ModelOptions
from crucible_adapter_torch.passes.batches import Piece, datum_pieces
from crucible_adapter_torch.randomness import seeded
from crucible_adapter_torch.sampling.generation import Answer
from crucible_adapter_torch.training.engine import Engine
from crucible_kitchen import (
    LOSS_FUNCTIONS,
    AdamParams,
    AdapterError,
    Datum,
    ForwardBackwardResult,
    InvalidInput,
    LoraConfig,
    SamplingParams,
    SessionConfig,
)
from tiny_torch import MODELS, assert_equal_to_the_bit, datum
from torch import Tensor

OPTIONS = ModelOptions(models=MODELS, device="cpu")
NAN_STEP = [datum([1, 2, 3], weights=[3e38, 3e38])]
"""Its gradient is not finite."""


def engine_of(model: str = "tiny", seed: int = 0, lora: LoraConfig | None = None) -> Engine:
    language = load(OPTIONS, model, seed=seed, precise=True)
    return Engine(language, SessionConfig(model, seed=seed, lora=lora))


def cut(datums: Sequence[Datum], budget: int = 4096) -> list[Piece]:
    return datum_pieces(datums, LOSS_FUNCTIONS["cross_entropy"].inputs, budget)


def forward_backward(
    engine: Engine, datums: Sequence[Datum], budget: int = 4096
) -> ForwardBackwardResult:
    return engine.forward_backward(cut(datums, budget), "cross_entropy", {})


def copies(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in tensors.items()}


# --- results ---


def test_logprobs_are_those_of_each_row_alone_in_datum_order(datums: list[Datum]) -> None:
    engine = engine_of()
    result = forward_backward(engine, datums)
    for row, output in zip(datums, result.outputs, strict=True):
        ids = torch.tensor([row.model_input.to_ints()])
        with torch.no_grad():
            table = engine.model(input_ids=ids).logits[0].log_softmax(-1).numpy()
        targets = row.loss_fn_inputs["target_tokens"]
        assert output["logprobs"].dtype == np.float32
        assert output["logprobs"].shape == targets.shape
        np.testing.assert_allclose(
            output["logprobs"], table[np.arange(len(targets)), targets], atol=1e-5
        )


def test_pieces_of_any_size_give_the_same_result(datums: list[Datum]) -> None:
    outcomes = []
    for budget in (1, 20, 4096):
        engine = engine_of()
        outcome = forward_backward(engine, datums, budget)
        outcomes.append((outcome, engine.optim_step(1e-2, AdamParams()).grad_norm))
    whole, norm = outcomes[-1]
    for outcome, piecewise_norm in outcomes[:-1]:
        assert outcome.loss == pytest.approx(whole.loss, rel=1e-5)
        assert piecewise_norm == pytest.approx(norm, rel=1e-5)
        for left, right in zip(outcome.outputs, whole.outputs, strict=True):
            np.testing.assert_allclose(left["logprobs"], right["logprobs"], atol=1e-5)


def test_two_batches_accumulate_to_one_with_transposed_projections(datums: list[Datum]) -> None:
    together, apart = engine_of("gpt2"), engine_of("gpt2")
    forward_backward(together, datums)
    for part in (datums[:3], datums[3:]):
        forward_backward(apart, part)
    norms = [engine.optim_step(1e-3, AdamParams()).grad_norm for engine in (together, apart)]
    assert norms[0] == pytest.approx(norms[1], rel=1e-5)
    for name, weight in together.weights.items():
        torch.testing.assert_close(weight, apart.weights[name], atol=1e-4, rtol=1e-5)


# --- dropout ---


def test_forward_has_no_dropout_and_forward_backward_has(datums: list[Datum]) -> None:
    engine = engine_of("drops")
    before = engine.forward(cut(datums), "cross_entropy", {}).loss
    losses = [forward_backward(engine, datums).loss for _ in range(2)]
    assert losses[0] != losses[1]
    assert engine.forward(cut(datums), "cross_entropy", {}).loss == before


def test_an_evaluation_in_between_does_not_change_the_dropout(datums: list[Datum]) -> None:
    first, second = engine_of("drops"), engine_of("drops")
    second.forward(cut(datums), "cross_entropy", {})
    assert forward_backward(first, datums).loss == forward_backward(second, datums).loss


def test_dropout_is_a_function_of_the_seed_alone(datums: list[Datum]) -> None:
    torch.manual_seed(1)  # the process's own generator has no influence, and is left alone
    before = torch.get_rng_state()
    losses = [forward_backward(engine_of("drops", seed), datums).loss for seed in (5, 5, -6)]
    assert losses[0] == losses[1] != losses[2]
    assert torch.equal(torch.get_rng_state(), before)


SEEDS_AROUND_64_BITS = (1, -1, 2**64 - 1, 2**64 + 1, 2**63, -(2**63), -(2**64) - 1)


def test_no_two_seeds_are_one_modulo_64_bits(datums: list[Datum]) -> None:
    engine, prompt = engine_of("drops"), np.array([1, 2])
    start = copies(engine.weights)
    weights, losses, answers = set(), set(), set()
    for seed in SEEDS_AROUND_64_BITS:
        with seeded(seed):
            weights.add(float(torch.rand(())))
        engine.restore(start, {}, {"seed": seed, "passes": 0})
        losses.add(forward_backward(engine, datums).loss)
        answer = Answer(engine.language, prompt, SamplingParams(1), seed)
        answers.add(float(answer.random.random()))
    assert [len(each) for each in (weights, losses, answers)] == [len(SEEDS_AROUND_64_BITS)] * 3


def test_engines_side_by_side_drop_as_they_do_alone(datums: list[Datum]) -> None:
    """PyTorch's generators belong to the process, so passes with dropout must take turns."""

    def losses(engine: Engine) -> list[float]:
        found = []
        for _ in range(5):
            found.append(forward_backward(engine, datums).loss)
            engine.optim_step(1e-2, AdamParams())
        return found

    alone = [losses(engine_of("drops", seed)) for seed in (1, 2)]
    engines = [engine_of("drops", seed) for seed in (1, 2)]
    together: list[list[float]] = [[], []]

    def work(index: int) -> None:
        together[index].extend(losses(engines[index]))

    threads = [threading.Thread(target=work, args=(index,)) for index in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert together == alone


# --- the optimizer ---


def test_clipping_scales_the_gradient_that_the_moments_get(datums: list[Datum]) -> None:
    engine = engine_of()
    forward_backward(engine, datums)
    plain = engine.optim_step(0.0, AdamParams()).grad_norm
    forward_backward(engine, datums)
    clipped = engine.optim_step(0.0, AdamParams(grad_clip_norm=1.0)).grad_norm
    assert clipped == pytest.approx(plain, rel=1e-6)  # the norm before clipping
    mean = [v for k, v in engine.moments().items() if k.startswith("exp_avg.")]
    assert plain is not None
    first = 0.9 * 0.1 * plain  # both gradients point the same way, since the rate was 0
    norm = torch.stack([m.square().sum() for m in mean]).sum().sqrt().item()
    assert norm == pytest.approx(first + 0.1, rel=1e-4)


def test_every_adam_setting_is_used_at_the_step_that_names_it(datums: list[Datum]) -> None:
    engine = engine_of()
    settings = [AdamParams(0.8, 0.9, 1e-6, 0.1, 2.0), AdamParams(0.5, 0.99, 1e-3, 0.0, 0.0)]
    reference = copies(engine.weights)
    first = {n: torch.zeros_like(w) for n, w in reference.items()}
    second = {n: torch.zeros_like(w) for n, w in reference.items()}
    for t, adam in enumerate(settings, 1):
        forward_backward(engine, datums)
        grads = {n: w.grad.clone() for n, w in engine.weights.items() if w.grad is not None}
        norm = engine.optim_step(0.01, adam).grad_norm
        assert norm is not None
        scale = min(1.0, adam.grad_clip_norm / (norm + 1e-6)) if adam.grad_clip_norm else 1.0
        for n, grad in grads.items():
            first[n] = adam.beta1 * first[n] + (1 - adam.beta1) * grad * scale
            second[n] = adam.beta2 * second[n] + (1 - adam.beta2) * (grad * scale) ** 2
            # torch.optim.AdamW: each step corrects the bias with its own betas
            direction = first[n] / (1 - adam.beta1**t)
            size = (second[n] / (1 - adam.beta2**t)).sqrt() + adam.eps
            reference[n] = reference[n] * (1 - 0.01 * adam.weight_decay) - 0.01 * direction / size
    for name, weight in engine.weights.items():
        torch.testing.assert_close(weight.detach(), reference[name], atol=2e-6, rtol=1e-5)


def test_a_gradient_that_is_not_finite_leaves_weights_and_moments(datums: list[Datum]) -> None:
    engine = engine_of()
    forward_backward(engine, datums)
    engine.optim_step(1e-2, AdamParams())
    weights, moments = copies(engine.weights), copies(engine.moments())
    forward_backward(engine, NAN_STEP)
    with pytest.raises(AdapterError, match="not finite"):
        engine.optim_step(1e-2, AdamParams())
    assert_equal_to_the_bit(engine.weights, weights)
    assert_equal_to_the_bit(engine.moments(), moments)


# --- state ---


@pytest.mark.parametrize("lora", [None, LoraConfig(rank=2, dropout=0.3)], ids=["full", "lora"])
def test_a_restored_engine_continues_to_the_bit(
    datums: list[Datum], lora: LoraConfig | None
) -> None:
    engine, other = (engine_of("drops", seed=3, lora=lora) for _ in range(2))

    def steps(engine: Engine) -> None:
        for _ in range(3):
            forward_backward(engine, datums)
            engine.optim_step(1e-2, AdamParams())

    steps(engine)
    weights, moments, randomness = (
        copies(engine.weights),
        copies(engine.moments()),
        engine.randomness(),
    )
    assert randomness == {"seed": 3, "passes": 3}
    steps(engine)
    forward_backward(other, datums)  # a gradient, which restoring drops
    other.check(weights, moments)
    other.restore(weights, moments, randomness)
    assert all(weight.grad is None for weight in other.weights.values())
    steps(other)
    assert_equal_to_the_bit(other.weights, engine.weights)
    assert_equal_to_the_bit(other.moments(), engine.moments())
    assert other.randomness() == engine.randomness()


def test_an_update_has_a_base_that_depends_on_the_frozen_weights_and_the_scale() -> None:
    assert engine_of().base is None
    same = [engine_of(lora=LoraConfig(rank=2)).base for _ in range(2)]
    others = [
        engine_of(seed=1, lora=LoraConfig(rank=2)).base,
        engine_of(lora=LoraConfig(rank=2, alpha=1.0)).base,
    ]
    assert same[0] == same[1]
    assert len({same[0], *others}) == 3


def test_weights_of_another_model_do_not_fit(datums: list[Datum]) -> None:
    deep = engine_of("deep")
    with pytest.raises(InvalidInput, match="weights of another model"):
        engine_of().check(deep.weights, {})


@pytest.mark.parametrize("lora", [None, LoraConfig(rank=2)], ids=["full", "lora"])
def test_training_does_not_change_a_snapshot(datums: list[Datum], lora: LoraConfig | None) -> None:
    engine = engine_of(lora=lora)
    forward_backward(engine, datums)
    engine.optim_step(1e-1, AdamParams())
    ids = torch.tensor([[1, 2, 3]])
    expected = engine.language.logits(ids).detach()
    snapshot = engine.snapshot()
    forward_backward(engine, datums)
    engine.optim_step(1e-1, AdamParams())
    torch.testing.assert_close(snapshot.logits(ids), expected, atol=1e-5, rtol=1e-5)
    assert not torch.allclose(engine.language.logits(ids), expected, atol=1e-3)
    names = [name for name, weight in snapshot.model.named_parameters() if weight.requires_grad]
    assert names == []


@pytest.mark.parametrize("lora", [None, LoraConfig(rank=2)], ids=["full", "lora"])
def test_a_plain_model_has_updates_merged_and_says_the_same(
    datums: list[Datum], lora: LoraConfig | None
) -> None:
    engine = engine_of(lora=lora)
    forward_backward(engine, datums)
    engine.optim_step(1e-1, AdamParams())
    plain = engine.plain()
    assert plain is not None
    ids = torch.tensor([[1, 2, 3]])
    expected = engine.language.logits(ids).detach()
    torch.testing.assert_close(plain.logits(ids), expected, atol=1e-5, rtol=1e-5)
    assert not any("lora_" in name for name, _ in plain.model.named_parameters())
    assert any(weight.requires_grad for weight in engine.model.parameters())
