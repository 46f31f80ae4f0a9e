"""Copies of a model over the same tensors."""

from __future__ import annotations

import copy
from collections.abc import Collection
from typing import Any

import torch
from torch import Tensor, nn


@torch.no_grad()
def over_same_tensors(model: Any, but: Collection[Tensor] = ()) -> Any:
    """Return a frozen copy of a model's modules, in evaluation mode, over the same weights.

    Whoever changes the weights must give the model new tensors first, see `move`; what is not a
    weight, such as buffers, is copied.

    Args:
        model: in any state; it is not changed.
        but: weights that the copy shall have for itself.
    """
    own = {id(weight) for weight in but}
    same = {
        # A parameter of another kind knows more than its tensor, and is never trained.
        id(weight): nn.Parameter(weight.detach(), requires_grad=False)
        if type(weight) is nn.Parameter
        else weight
        for weight in model.parameters()
        if id(weight) not in own
    }
    return copy.deepcopy(model, same).eval().requires_grad_(False)


@torch.no_grad()
def move(weights: Collection[nn.Parameter]) -> None:
    """Give weights new tensors of the same values; the old ones stay with those who share them."""
    for weight in weights:
        weight.data = weight.detach().clone()
