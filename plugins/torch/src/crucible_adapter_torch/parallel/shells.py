"""Models without weights, kept to become whole models again once their weights are divided."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn


@torch.no_grad()
def empty(model: Any) -> Any:
    """Return a copy of a model whose weights have no content; what was one weight stays one."""
    hollow = {
        id(weight): nn.Parameter(torch.empty_like(weight, device="meta"), weight.requires_grad)
        for weight in model.parameters()
    }
    return copy.deepcopy(model, dict(hollow))


@torch.no_grad()
def filled(shell: Any, weights: Mapping[str, Tensor], model: Any) -> Any:
    """Return a frozen copy of a shell with weights.

    Args:
        shell: see `empty`; it is not changed.
        weights: all of them, by name, on the CPU.
        model: what to copy the buffers of, which are not weights.
    """
    whole = {
        id(hollow): nn.Parameter(weights[name], requires_grad=False)
        for name, hollow in shell.named_parameters()
    }
    made = copy.deepcopy(shell, dict(whole))
    for name, buffer in model.named_buffers():
        parent, _, child = name.rpartition(".")
        made.get_submodule(parent)._buffers[child] = buffer.detach().to("cpu", copy=True)
    return made
