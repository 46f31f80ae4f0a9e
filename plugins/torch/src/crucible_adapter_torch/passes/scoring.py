"""The log probabilities that a model gives to the next tokens, and their gradient.

Logits are made where a target counts alone, and a limited number at a time: of a vocabulary of
150,000, those of 4,096 tokens are 2.5 GB, and PyTorch's own gradient holds them three times.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional

from ..models.language_model import LanguageModel
from . import unembedding
from .batches import Piece
from .unembedding import Tail

LOGITS = 2**24
"""The most logits in memory at a time: 64 MiB in float32."""
FEW = 2**20
"""So many logits are made for all positions at once, since choosing would save nothing."""


class Loss(Protocol):
    """The loss of some of a piece's targets, a sum over them."""

    def __call__(self, logprobs: Tensor, part: slice) -> Tensor:
        """Return it, a scalar.

        Args:
            logprobs: `(m,)`, the log probabilities.
            part: which targets these are.
        """


def target_logprobs(model: LanguageModel, piece: Piece) -> Tensor:
    """Return the log probability, in nats, of each target that counts: float32 `(k,)`."""
    tail = _tail(model, piece)
    if tail is None:
        return _of_all(model, piece)
    states, targets = _states(model, piece), _targets(model, piece)
    with model.autocast():
        return torch.cat(
            [
                _logprobs(unembedding.logits(model, tail, states[part]), targets[part])
                for part in _parts(model, len(targets))
            ]
        )


def add_gradient(model: LanguageModel, piece: Piece, loss: Loss) -> tuple[Tensor, Tensor]:
    """Add the gradient of a loss to those of the weights; return the loss, a scalar, and the log
    probabilities, `(k,)`, both without a graph.
    """
    tail = _tail(model, piece)
    if tail is None:
        logprobs = _of_all(model, piece)
        value = loss(logprobs, slice(None))
        torch.autograd.backward(value)
        return value.detach(), logprobs.detach()
    states, targets = _states(model, piece), _targets(model, piece)
    values, found, leaves = [], [], []
    with model.autocast():
        for part in _parts(model, len(targets)):
            leaf = states[part].detach().requires_grad_(states.requires_grad)
            logits = unembedding.logits(model, tail, leaf)
            with torch.autocast(model.device.type, enabled=False):
                value, logprobs = _back(logits, targets[part], partial(loss, part=part))
            values.append(value)
            found.append(logprobs)
            leaves.append(leaf)
    if states.requires_grad:
        torch.autograd.backward(
            states, torch.cat([leaf.grad for leaf in leaves if leaf.grad is not None])
        )
    return torch.stack(values).sum(), torch.cat(found)


def _back(
    logits: Tensor, targets: Tensor, loss: Callable[[Tensor], Tensor]
) -> tuple[Tensor, Tensor]:
    """Go back from a loss to what the logits are made of.

    In place: what `log_softmax` of PyTorch allocates is the size of the logits three times.
    """
    table = logits.detach().float()
    torch.log_softmax(table, -1, out=table)
    rows = torch.arange(len(targets), device=targets.device)
    logprobs = table[rows, targets].requires_grad_()
    value = loss(logprobs)
    torch.autograd.backward(value)
    slopes = logprobs.grad
    assert slopes is not None
    table.exp_().mul_(-slopes[:, None])
    table[rows, targets] += slopes
    if logits.requires_grad:
        torch.autograd.backward(logits, table.to(logits.dtype))
    return value.detach(), logprobs.detach()


def _tail(model: LanguageModel, piece: Piece) -> Tail | None:
    """Return how logits are made of chosen positions; None to make them for all."""
    if piece.input_ids.size * model.vocab_size <= FEW:
        return None
    return unembedding.tail_of(model)


def _parts(model: LanguageModel, count: int) -> Iterator[slice]:
    size = max(1, LOGITS // model.vocab_size)
    for start in range(0, max(1, count), size):
        yield slice(start, start + size)


def _states(model: LanguageModel, piece: Piece) -> Tensor:
    """Return the hidden states `(k, H)` of the positions whose targets count."""
    with model.autocast():
        ids = torch.from_numpy(piece.input_ids).to(model.device)
        states = unembedding.hidden_states(model, ids).flatten(0, 1)
    return _chosen(states, piece)


def _of_all(model: LanguageModel, piece: Piece) -> Tensor:
    with model.autocast():
        ids = torch.from_numpy(piece.input_ids).to(model.device)
        logits = model.logits(ids).flatten(0, 1)
    return _logprobs(_chosen(logits, piece), _targets(model, piece))


def _chosen(table: Tensor, piece: Piece) -> Tensor:
    if piece.places is None:
        return table
    return table.index_select(0, torch.from_numpy(piece.places).to(table.device))


def _targets(model: LanguageModel, piece: Piece) -> Tensor:
    return torch.from_numpy(piece.targets).to(model.device)


def _logprobs(logits: Tensor, targets: Tensor) -> Tensor:
    return -functional.cross_entropy(logits.float(), targets, reduction="none")
