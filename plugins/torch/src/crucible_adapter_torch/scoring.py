"""The log probabilities that a model gives to the next tokens: one forward pass."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from .batches import Piece
from .language_model import LanguageModel


def target_logprobs(model: LanguageModel, piece: Piece) -> Tensor:
    """Return the log probability, in nats, of each target: float32 `(n,)`."""
    device = model.device
    with model.autocast():
        ids = torch.from_numpy(piece.input_ids).to(device)
        logits = model.logits(ids)
    if piece.real is None:
        logits = logits.flatten(0, 1)
    else:
        logits = logits[torch.from_numpy(piece.real).to(device)]
    targets = torch.from_numpy(piece.targets).to(device)
    return -functional.cross_entropy(logits.float(), targets, reduction="none")
