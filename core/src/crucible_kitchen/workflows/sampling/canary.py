"""The canary: whether a trainer and its sampler have the same weights, from what both say of one
probe at each synchronisation.

Two backends never agree to the bit, and a small learning rate moves log probabilities by less than
their precision, so an absolute tolerance does not find every stale sampler. Compared as well is how
far each has *moved* since the two last moved together: a sampler that has the weights moves with
the trainer, and one that kept its old weights stays where it was. One that is always a
synchronisation behind moves as well, and is found where the trainer was before.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from ...errors import AdapterError
from ...types import FloatArray, IntArray

MOVED = 8.0
"""A movement is this many times larger than what the two differ by when they agree."""
STAYED = 0.25
"""One that moved by less than this share of the other's movement stayed where it was."""
LEAST_NOISE = 1e-6
"""Nats: the precision of float32 for the log probability of an unlikely token."""
UNSEEN_NOISE = 2**-8 / MOVED
"""Share of a log probability that two may differ by that agreed to the bit on one that was the same
for all tokens, as in a model that knows nothing: that does not show their precision, which may be
as low as that of bfloat16."""
BEHIND = 3.0
"""One that is a synchronisation behind differs by this many times more than when the two agree."""
BEHIND_TIMES = 2
"""Synchronisations in which it does: noise can look like that once."""
LARGEST_DIFFERENCE = 0.05
"""Nats by which the log probabilities of two passes over the same weights may differ, in the mean.
Rounding in bfloat16 gives about 0.01."""


class StaleWeights(AdapterError):
    """The completer and the training client do not have the same weights. No restart repeats it."""

    no_effect = True


class NotFinite(AdapterError):
    """A log probability is NaN or infinite: the model has diverged, say. No restart repeats it."""

    no_effect = True


@dataclass(frozen=True, slots=True, eq=False)
class Probe:
    """Token sequences of which the last tokens are compared.

    Args:
        sequences: token ids, each int64 `(T_i,)`.
        counts: how many tokens at the end of each are compared, 1 to T_i - 1.
    """

    sequences: Sequence[IntArray]
    counts: Sequence[int]

    def same(self, other: Probe) -> bool:
        """Whether the two have the same tokens."""
        both = zip(self.sequences, other.sequences, strict=False)
        equal = len(self.sequences) == len(other.sequences)
        return equal and all(np.array_equal(left, right) for left, right in both)


@dataclass(frozen=True, slots=True, eq=False)
class Sighting:
    """What both said of a probe at a synchronisation.

    Args:
        probe: the tokens.
        sampler: the completer's log probability of each compared token, nats, float32 `(n,)`.
        trainer: the trainer's, of the same tokens.
    """

    probe: Probe
    sampler: FloatArray
    trainer: FloatArray

    @property
    def difference(self) -> float:
        """The mean absolute difference between the two, in nats."""
        return _distance(self.sampler, self.trainer)


class Canary:
    """Compares what a trainer and its sampler say with what they said before.

    Args:
        tolerance: the largest difference, in nats, that is taken for the sampler's precision.
        sampler: the completer's name, for messages.
        trainer: the training client's.
    """

    def __init__(self, tolerance: float, sampler: str, trainer: str) -> None:
        self._tolerance = tolerance
        self._sampler = f"the completer {sampler!r}"
        self._trainer = f"the training client {trainer!r}"
        self._agreed: Sighting | None = None
        self._before: Sighting | None = None
        self._noise = self._least = 0.0
        self._behind = 0

    def check(self, now: Sighting, forward: Callable[[Probe], FloatArray]) -> None:
        """Compare what the two say now with what they said when they last moved together, and at
        the synchronisation before.

        Args:
            now: what they say.
            forward: returns what the trainer says now of a probe.

        Raises:
            StaleWeights: they do not have the same weights. The message says which of them has old
                ones, as far as can be known; so does `details["stale"]`: "sampler", "trainer" or
                None.
            NotFinite: a log probability is NaN or infinite.
        """
        self._check_finite(now)
        agreed, before, self._before = self._agreed, self._before, now
        if agreed is None or before is None:
            self._check_tolerance(now)
            alike = now.difference == 0 and len(now.trainer) > 1 and np.ptp(now.trainer) == 0
            noise = UNSEEN_NOISE * abs(float(now.trainer[0])) if alike else now.difference
            self._agreed, self._noise = now, max(noise, LEAST_NOISE)
            self._least = self._noise
            return
        same = now.probe.same(agreed.probe)
        trainer = _distance(now.trainer if same else forward(agreed.probe), agreed.trainer)
        moved = trainer > MOVED * self._noise
        # Of other completions it is not known whether they are of other weights or another seed.
        if same:
            sampler = _distance(now.sampler, agreed.sampler)
            if moved and sampler < STAYED * trainer:
                raise self._stale("sampler", now, trainer, sampler)
            if now.difference > self._tolerance and sampler > MOVED * self._noise and not moved:
                raise self._stale("trainer", now, trainer, sampler)
        self._check_behind(now, before)
        self._check_tolerance(now)
        if moved:
            self._agreed, self._noise = now, max(now.difference, LEAST_NOISE)
            self._least = min(self._least, self._noise)

    def _check_behind(self, now: Sighting, before: Sighting) -> None:
        if not now.probe.same(before.probe) or np.array_equal(now.trainer, before.trainer):
            return
        if len(now.sampler) == 1:  # noise in one number alone looks like anything
            return
        late = _distance(now.sampler, before.trainer)
        behind = now.difference > BEHIND * self._least and late < STAYED * now.difference
        self._behind = self._behind + 1 if behind else 0
        if self._behind == BEHIND_TIMES:
            raise StaleWeights(
                f"{self._sampler} is stale: it is one synchronisation behind. Its log "
                f"probabilities of a probe differ by {now.difference:.3g} nats on average from "
                f"those of {self._trainer}, and by {late:.3g} nats from what these were at the "
                "synchronisation before",
                details={"stale": "sampler", "difference": now.difference},
            )

    def _check_finite(self, now: Sighting) -> None:
        both = ((self._trainer, now.trainer), (self._sampler, now.sampler))
        bad = [name for name, logprobs in both if not np.isfinite(logprobs).all()]
        if bad:
            raise NotFinite(
                f"the log probabilities of a probe are not finite in {' and '.join(bad)}. Where "
                "that is the training client, the model has diverged: lower the learning rate"
            )

    def _check_tolerance(self, now: Sighting) -> None:
        if now.difference > self._tolerance:
            raise StaleWeights(
                f"{self._sampler} and {self._trainer} have different weights: after a "
                "synchronisation, their log probabilities of a probe differ by "
                f"{now.difference:.3g} nats on average, more than workflow.sampler_tolerance = "
                f"{self._tolerance:g}. Which of them is stale cannot be told from that. If it is "
                "the precision of the sampler, raise the tolerance",
                details={"stale": None, "difference": now.difference},
            )

    def _stale(self, which: str, now: Sighting, trainer: float, sampler: float) -> StaleWeights:
        name = self._sampler if which == "sampler" else self._trainer
        lost = " or lost the updates in rounding" if which == "sampler" else ""
        return StaleWeights(
            f"{name} is stale: it kept old weights{lost}. Since the last synchronisation that was "
            f"seen to work, the log probabilities of a probe moved by {trainer:.3g} nats on "
            f"average in the training client, and by {sampler:.3g} nats in the completer; they now "
            f"differ by {now.difference:.3g} nats",
            details={"stale": which, "difference": now.difference},
        )


def _distance(left: FloatArray, right: FloatArray) -> float:
    return float(np.mean(np.abs(left.astype(np.float64) - right)))
