"""A language model without a model: plausible log probabilities from a formula.

The training client and the completer both use it, so that the log probabilities of both are equal,
as those of a trainer and its inference server should be.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import Final

import numpy as np
from crucible_kitchen import FloatArray, IntArray
from numpy.typing import ArrayLike, NDArray

LEAST_PROBABILITY: Final = 0.003
"""Lower bound of a token's probability: exp(-1.5 * (0.4 + 3.1 * 1.1)), by the formulas below."""


@dataclass(frozen=True, slots=True)
class Weights:
    """The complete state of a noop model.

    Args:
        model: any name.
        seed: the seed of the run that trained it.
        steps: optimizer steps that changed it.
    """

    model: str
    seed: int = 0
    steps: int = 0

    @property
    def key(self) -> int:
        return zlib.crc32(repr((self.model, self.seed)).encode())


def mean_nll(weights: Weights) -> float:
    """Return the negative log likelihood of an average token, in nats.

    It falls from about 3.5 towards 0.4, with seeded noise, as in the first epoch of fine-tuning.
    """
    return 0.4 + 3.1 * _learning_curve(weights)


def gradient_norm(weights: Weights) -> float:
    """Return the L2 norm of the gradient of an average token's loss; it falls with the loss."""
    return 0.1 + 1.9 * _learning_curve(weights)


def logprobs(weights: Weights, tokens: IntArray, positions: IntArray) -> FloatArray:
    """Return the log probability of each token, in nats, float32, shape `(n,)`.

    Args:
        weights: the model.
        tokens: int64 `(n,)`.
        positions: int64 `(n,)`, the place of each token in its sequence.
    """
    difficulty = 0.5 + _uniform(weights.key, tokens, positions)  # 1 on average
    return (-mean_nll(weights) * difficulty).astype(np.float32)


def _learning_curve(weights: Weights) -> float:
    noise = 0.9 + 0.2 * _uniform(weights.key, weights.steps).item()
    return noise / (1 + weights.steps / 20)


def _uniform(*parts: ArrayLike) -> NDArray[np.float64]:
    """Return numbers in [0, 1) that depend only on the parts, on any machine."""
    mixed = np.zeros(1, np.uint64)
    for part in parts:
        # The finalizer of SplitMix64, Steele, Lea and Flood 2014; arrays wrap at 2**64.
        mixed = (mixed ^ np.asarray(part).astype(np.uint64)) + np.uint64(0x9E3779B97F4A7C15)
        mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        mixed ^= mixed >> np.uint64(31)
    return (mixed >> np.uint64(11)).astype(np.float64) * 2.0**-53
