"""What is sent makes the sums of the contract, on servers that compute something else."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

pytest.importorskip("tinker")

from crucible_adapter_tinker import passes
from crucible_adapter_tinker.names import Clock
from crucible_adapter_tinker.passes import Batch, loss_of
from crucible_adapter_tinker.servers import skyrl
from crucible_adapter_tinker.servers.server import Model
from crucible_kitchen import AdamParams, AdapterError, Datum, ModelInput

RNG = np.random.default_rng(0)


def batch(loss_fn: str, sizes: Sequence[int]) -> Batch:
    datums = []
    for size in sizes:
        inputs = {"weights": RNG.normal(size=size)}
        if loss_fn != "cross_entropy":
            q, advantages = RNG.normal(-2, 1, size), RNG.normal(size=size)
            inputs = {"logprobs": q, "advantages": advantages}
        given = {name: values.astype(np.float32) for name, values in inputs.items()}
        target = {"target_tokens": RNG.integers(0, 9, size)}
        datums.append(Datum(ModelInput.from_ints([1] * size), {**target, **given}))
    clips = {"clip_low_threshold": 0.8, "clip_high_threshold": 1.2}
    return Batch.of(datums, loss_fn, clips if loss_fn in ("ppo", "cispo") else {})


def skyrl_loss(sent: tuple[list[Any], str, Any], p: Sequence[np.ndarray]) -> float:
    """What SkyRL 0.3.0 differentiates: the sum of the means over each datum."""
    datums, loss_fn, config = sent
    total = 0.0
    for datum, logprobs in zip(datums, p, strict=True):
        given = {name: each.to_numpy() for name, each in datum.loss_fn_inputs.items()}
        assert "weights" not in given  # so they are ones
        total += loss_of(loss_fn, config or {}, logprobs, given) / len(logprobs)
    return total


def slopes(loss: Any, p: list[np.ndarray]) -> np.ndarray:
    """The derivative by each log probability, by finite differences."""
    found = []
    for each in p:
        for token in range(len(each)):
            values = []
            for step in (1e-5, -1e-5):
                each[token] += step
                values.append(loss(p))
                each[token] -= step
            found.append((values[0] - values[1]) / 2e-5)
    return np.array(found)


@pytest.mark.parametrize("loss_fn", ["cross_entropy", "importance_sampling", "ppo", "cispo"])
def test_skyrl_gets_what_makes_the_gradient_of_the_sum(loss_fn: str) -> None:
    given = batch(loss_fn, (3, 1, 4))
    p = [RNG.normal(-2, 1, len(each)) for each in given.targets]
    # The gradient of the ratio of cispo is stopped, which a finite difference does not know.
    frozen = [each.copy() for each in p] if loss_fn == "cispo" else None

    def ours(now: list[np.ndarray]) -> float:
        return sum(
            _cispo(each, now[k], frozen[k], given.config)
            if frozen
            else loss_of(loss_fn, given.config, now[k], each)
            for k, each in enumerate(given.weighed)
        )

    def theirs(now: list[np.ndarray]) -> float:
        sent = given.sent_to_skyrl(len(given))
        if not frozen:
            return skyrl_loss(sent, now) / len(given)
        return sum(
            _cispo(
                {n: t.to_numpy() for n, t in d.loss_fn_inputs.items()}, now[k], frozen[k], sent[2]
            )
            / len(now[k])
            for k, d in enumerate(sent[0])
        ) / len(given)

    np.testing.assert_allclose(slopes(theirs, p), slopes(ours, p), rtol=1e-5, atol=1e-7)


def _cispo(given: Any, p: np.ndarray, frozen: np.ndarray, config: Any) -> float:
    ratio = np.exp(frozen - given["logprobs"])
    clipped = np.clip(ratio, config["clip_low_threshold"], config["clip_high_threshold"])
    return float(-np.sum(clipped * p * given["advantages"]))


@pytest.mark.parametrize("sizes", [[(2, 3)], [(2,), (3, 1)], [(1, 1, 1), (4,), (2, 2)]])
def test_what_is_accumulated_on_skyrl_adds_up(sizes: list[tuple[int, ...]]) -> None:
    batches = [batch("cross_entropy", each) for each in sizes]
    sent: list[tuple[str, Any]] = []

    class Client:
        def forward(self, *args: Any) -> None: ...

        def forward_backward(self, *args: Any) -> None:
            sent.append(("pass", args))

        def optim_step(self, params: Any) -> None:
            sent.append(("step", params))

    server = object.__new__(skyrl.SkyrlServer)
    model = Model(Client(), emptied=True)
    for each in batches:
        assert len(list(server.forward_backward(model, each))) == 1
    assert list(server.optim_step(model, 0.1, AdamParams()))
    assert sent.pop()[0] == "step"
    datums = [datum for _, (data, *_) in sent for datum in data]
    total = sum(
        (
            datum.loss_fn_inputs["advantages"].to_numpy()
            / len(datum.loss_fn_inputs["logprobs"].data)
        ).sum()
        for datum in datums
    ) / len(datums)
    expected = sum(each["weights"].sum() for every in batches for each in every.weighed)
    assert total == pytest.approx(expected, rel=1e-5)
    assert not model.batches


def adam_path(
    weight: float, gradients: Sequence[float], start: tuple[int, float, float], steps: Any
) -> list[float]:
    """Adam from a count and moments; `steps` gives rate and parameters of each step."""
    count, m, v = start
    path = []
    for gradient, (rate, adam) in zip(gradients, steps, strict=True):
        count += 1
        m = adam.beta1 * m + (1 - adam.beta1) * gradient
        v = adam.beta2 * v + (1 - adam.beta2) * gradient**2
        mean, square = m / (1 - adam.beta1**count), v / (1 - adam.beta2**count)
        weight -= rate * mean / (np.sqrt(square) + adam.eps)
        path.append(weight)
    return path


@pytest.mark.parametrize(
    "adam", [AdamParams(), AdamParams(beta1=0.8, beta2=0.99), AdamParams(beta1=0, beta2=0, eps=1)]
)
@pytest.mark.parametrize("before", [1, 2, 50])
def test_moments_that_begin_again_on_skyrl_move_weights_as_if_they_were_new(
    adam: AdamParams, before: int
) -> None:
    gradients, clock, sent = RNG.normal(size=5).tolist(), Clock(before, 0), []
    for _ in gradients:
        clock = clock.tick()
        sent.append(skyrl._as_if_begun(clock, 0.1, adam))
    fresh = adam_path(1.0, gradients, (0, 0.0, 0.0), [(0.1, adam)] * len(gradients))
    again = adam_path(1.0, gradients, (before, 0.0, 0.0), sent)
    np.testing.assert_allclose(again, fresh, rtol=1e-9)
    assert skyrl._as_if_begun(Clock(3, 3), 0.1, adam) == (0.1, adam)


@pytest.mark.parametrize("norm", [float("inf"), float("nan")])
def test_a_step_on_a_gradient_that_is_not_finite_has_no_result(norm: float) -> None:
    with pytest.raises(AdapterError, match="the gradient is not finite"):
        passes.step_result(SimpleNamespace(metrics={"skyrl.ai/grad_norm": norm}))


@pytest.mark.parametrize("name", ["skyrl.ai/grad_norm", "grad_norm:mean", "grad_norm"])
def test_the_norm_is_found_by_its_names(name: str) -> None:
    result = passes.step_result(SimpleNamespace(metrics={"loss": 3.0, name: 2.0}))
    assert result.grad_norm == 2.0
    assert result.metrics == {"loss": 3.0, name: 2.0}
    assert passes.step_result(SimpleNamespace(metrics=None)).grad_norm is None


def test_a_batch_is_what_its_datums_were_when_it_was_made() -> None:
    tokens = np.arange(1, 4)
    inputs: dict[str, Any] = {
        "target_tokens": np.arange(2, 5),
        "weights": np.ones(3, np.float32),
    }
    made = Batch.of([Datum(ModelInput.from_ints(tokens), inputs)], "cross_entropy", {})
    for array in (tokens, *inputs.values()):
        array[:] = 0
    [datum], _, _ = made.sent()
    assert datum.model_input.to_ints() == [1, 2, 3]
    assert datum.loss_fn_inputs["target_tokens"].tolist() == [2, 3, 4]
    assert made.weighed[0]["weights"].tolist() == [1.0, 1.0, 1.0]
