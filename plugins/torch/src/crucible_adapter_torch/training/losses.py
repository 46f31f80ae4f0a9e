"""The four losses of `crucible_kitchen.losses`, on tensors.

Each takes the log probabilities p of the targets, `(n,)`, the loss inputs, `(n,)` each, and the
complete config, and returns the sum over the tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeAlias

from torch import Tensor

Inputs: TypeAlias = Mapping[str, Tensor]
Config: TypeAlias = Mapping[str, float]


def cross_entropy(p: Tensor, inputs: Inputs, config: Config) -> Tensor:
    """-sum w p"""
    return -(inputs["weights"] * p).sum()


def importance_sampling(p: Tensor, inputs: Inputs, config: Config) -> Tensor:
    """-sum r A"""
    return -(_ratio(p, inputs) * inputs["advantages"]).sum()


def ppo(p: Tensor, inputs: Inputs, config: Config) -> Tensor:
    """-sum min(r A, clip(r, lo, hi) A)"""
    ratio, advantages = _ratio(p, inputs), inputs["advantages"]
    return -(ratio * advantages).minimum(_clip(ratio, config) * advantages).sum()


def cispo(p: Tensor, inputs: Inputs, config: Config) -> Tensor:
    """-sum sg(clip(r, lo, hi)) p A"""
    ratio = _clip(_ratio(p, inputs), config).detach()
    return -(ratio * p * inputs["advantages"]).sum()


LOSSES: Mapping[str, Callable[[Tensor, Inputs, Config], Tensor]] = {
    "cross_entropy": cross_entropy,
    "importance_sampling": importance_sampling,
    "ppo": ppo,
    "cispo": cispo,
}


def _ratio(p: Tensor, inputs: Inputs) -> Tensor:
    return (p - inputs["logprobs"]).exp()


def _clip(ratio: Tensor, config: Config) -> Tensor:
    return ratio.clip(config["clip_low_threshold"], config["clip_high_threshold"])
