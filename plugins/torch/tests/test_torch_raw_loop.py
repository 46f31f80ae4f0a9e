"""Training through the adapter is training: a plain PyTorch loop gives the same numbers."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from crucible_kitchen import AdamParams, SessionConfig, TrainingClient
from tiny_torch import datum


@pytest.mark.parametrize("model", ["deep", "gpt2"])
def test_ten_steps_give_the_losses_of_a_plain_pytorch_loop(
    client: TrainingClient, model: str
) -> None:
    rows = np.random.default_rng(0).integers(0, 256, (10, 4, 9))
    session = client.start_session(SessionConfig(model))
    plain = copy.deepcopy(session.engine.model)
    adam = AdamParams(weight_decay=0.01, grad_clip_norm=1.0)
    losses, norms = [], []
    for batch in rows:
        weights = np.full(8, 1 / 32)
        future = client.forward_backward(session, [datum(row, weights=weights) for row in batch])
        norms.append(client.await_(client.optim_step(session, 3e-3, adam)).grad_norm)
        losses.append(client.await_(future).loss)

    optimizer = torch.optim.AdamW(
        plain.parameters(), lr=3e-3, betas=(0.9, 0.95), eps=1e-8, weight_decay=0.01
    )
    for tokens, loss, norm in zip(torch.from_numpy(rows), losses, norms, strict=True):
        logits = plain(input_ids=tokens[:, :-1]).logits
        expected = torch.nn.functional.cross_entropy(
            logits.reshape(-1, 257), tokens[:, 1:].reshape(-1)
        )
        expected.backward()  # type: ignore[no-untyped-call]
        expected_norm = torch.nn.utils.clip_grad_norm_(plain.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        assert loss == pytest.approx(expected.item(), rel=1e-5)
        assert norm == pytest.approx(expected_norm.item(), rel=1e-4)
