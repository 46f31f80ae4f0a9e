"""The four losses and `custom_loss`, against their formulas and against autograd."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from crucible_kitchen import (
    LOSS_FUNCTIONS,
    Datum,
    FloatArray,
    TrainingClient,
    custom_loss,
)
from crucible_kitchen.workflows import CustomLoss
from tiny_torch import TINY, datum
from torch import Tensor


def rows(loss_fn: str) -> list[Datum]:
    """Rows with recorded logprobs far enough from the model's to be clipped, both ways."""
    rng = np.random.default_rng(1)
    rows = []
    for size in (3, 7, 5, 7):
        inputs = {"weights": rng.normal(size=size)}
        if loss_fn != "cross_entropy":
            inputs = {
                "logprobs": rng.normal(-np.log(257), 0.6, size),
                "advantages": rng.normal(size=size),
            }
        rows.append(datum(rng.integers(0, 256, size + 1), **inputs))
    return rows


def formula(loss_fn: str, p: Tensor, row: Datum, low: float | None, high: float | None) -> Tensor:
    """The loss of one row, token by token."""
    values = row.loss_fn_inputs
    total = torch.zeros(())
    for t in range(len(p)):
        if loss_fn == "cross_entropy":
            total = total - float(values["weights"][t]) * p[t]
            continue
        q, a = float(values["logprobs"][t]), float(values["advantages"][t])
        r = torch.exp(p[t] - q)
        clipped = r
        if low is not None and high is not None:
            clipped = min(max(r, torch.tensor(low)), torch.tensor(high))
        if loss_fn == "importance_sampling":
            total = total - r * a
        elif loss_fn == "ppo":
            total = total - min(r * a, clipped * a)
        else:
            total = total - clipped.detach() * p[t] * a
    return total


def row_logprobs(model: Any, row: Datum) -> Tensor:
    ids = torch.tensor([row.model_input.to_ints()])
    targets = torch.from_numpy(row.loss_fn_inputs["target_tokens"])
    table = torch.log_softmax(model(input_ids=ids).logits[0], -1)
    return table[torch.arange(len(targets)), targets]


def gradients(session: Any) -> dict[str, Tensor]:
    return {name: w.grad.clone() for name, w in session.engine.weights.items()}


@pytest.mark.parametrize(
    ("loss_fn", "config"),
    [
        ("cross_entropy", None),
        ("importance_sampling", None),
        ("ppo", None),
        ("ppo", {"clip_low_threshold": 0.5, "clip_high_threshold": 1.1}),
        ("cispo", None),
        ("cispo", {"clip_high_threshold": 1.2}),
    ],
)
def test_loss_and_gradient_are_those_of_the_formula(
    client: TrainingClient, loss_fn: str, config: dict[str, float] | None
) -> None:
    batch = rows(loss_fn)
    session = client.start_session(TINY)
    result = client.await_(client.forward_backward(session, batch, loss_fn, config))
    found = gradients(session)

    thresholds = {**LOSS_FUNCTIONS[loss_fn].config, **(config or {})}
    low, high = thresholds.get("clip_low_threshold"), thresholds.get("clip_high_threshold")
    model = session.engine.model
    model.zero_grad()
    each = [formula(loss_fn, row_logprobs(model, row), row, low, high) for row in batch]
    loss = torch.stack(each).sum()
    loss.backward()  # type: ignore[no-untyped-call]
    assert result.loss == pytest.approx(loss.item(), rel=1e-5)
    for name, gradient in gradients(session).items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-4, atol=1e-5)


def dpo(beta: float) -> CustomLoss:
    """Rafailov et al. 2023 (arXiv 2305.18290) in closed form, against a uniform reference.

    Datums 0 and 1 are the chosen and the rejected answer, and so on.
    """

    def loss(
        datums: Sequence[Datum], logprobs: Sequence[FloatArray]
    ) -> tuple[float, list[FloatArray], dict[str, float]]:
        total, grads = 0.0, []
        for chosen, rejected in zip(logprobs[::2], logprobs[1::2], strict=True):
            margin = beta * (chosen.sum() - rejected.sum() + 0.5 * (len(chosen) - len(rejected)))
            total += float(np.log1p(np.exp(-margin)))
            slope = -beta / (1 + np.exp(margin))
            grads += [np.full_like(chosen, slope), np.full_like(rejected, -slope)]
        return total, grads, {"pairs": len(grads) / 2}

    return loss


def test_custom_loss_has_the_gradient_of_autograd(client: TrainingClient) -> None:
    batch = rows("cross_entropy")
    session = client.start_session(TINY)
    future, loss, metrics = custom_loss(client, session, batch, dpo(0.3))
    client.await_(future)
    found = gradients(session)

    model = session.engine.model
    model.zero_grad()
    p = [row_logprobs(model, row) for row in batch]
    margins = [
        0.3 * (a.sum() - b.sum() + 0.5 * (len(a) - len(b)))
        for a, b in zip(p[::2], p[1::2], strict=True)
    ]
    expected = -torch.stack([torch.nn.functional.logsigmoid(margin) for margin in margins]).sum()
    expected.backward()  # type: ignore[no-untyped-call]
    assert loss == pytest.approx(expected.item(), rel=1e-5)
    assert metrics == {"pairs": 2}
    for name, gradient in gradients(session).items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-4, atol=1e-6)
