"""The bench of the tests of a training client: sessions, datums, operations, comparisons."""

from __future__ import annotations

import math
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from ...errors import AdapterError, InvalidInput, Unsupported
from ...ports import TrainingClient
from ...types import (
    AdamParams,
    Datum,
    FloatArray,
    ForwardBackwardResult,
    LoraConfig,
    ModelInput,
    OptimStepResult,
    SessionConfig,
)
from ..refusal import refuses

Floats = NDArray[np.float64]
Config = Mapping[str, float] | None

ADAM = AdamParams()
EPS = 1e4
SGD = AdamParams(beta1=0.0, beta2=0.0, eps=EPS)
"""With an `eps` far above the gradient, and a learning rate multiplied by it, a step of Adam is
one of gradient descent: linear in the gradient, so that equal gradients make equal steps and
rounding errors stay small. Adam proper follows the sign of whatever tiny gradient there is."""

DROPOUT = LoraConfig(rank=4, dropout=0.5)

RATIOS = np.array([0.3, 0.75, 0.85, 1.0, 1.15, 1.3, 5.0])
"""exp(p - q) on both sides of every threshold of the losses that are tried."""


@dataclass
class Bench:
    """What the tests of a training client work with.

    Args:
        client: the client.
        config: of its sessions.
        learning_rate: see the fixture of this name.
        tolerance: see the fixture of this name.
        tokens: token ids from 0 up to, excluding, this number are used.
    """

    client: TrainingClient
    config: SessionConfig
    learning_rate: float
    tolerance: float
    tokens: int
    label: str = field(default_factory=lambda: f"conformance-{uuid.uuid4().hex}/")
    """Labels of checkpoints begin with this."""
    sessions: list[Any] = field(default_factory=list)
    references: list[str] = field(default_factory=list)

    # --- sessions and their checkpoints, which the fixture removes ---

    def start(self, **changes: Any) -> Any:
        """Start a session, with changes to the usual config."""
        session = self.client.start_session(replace(self.config, **changes))
        self.sessions.append(session)
        return session

    def start_with_dropout(self) -> Any:
        """Start a session that trains a low-rank update with dropout, or skip the test."""
        try:
            return self.start(lora=DROPOUT)
        except Unsupported as error:
            pytest.skip(f"takes no low-rank update with dropout: {error}")

    def save(self, session: Any, name: str = "x") -> str:
        reference = self.client.save_checkpoint(session, f"{self.label}{name}")
        self.references.append(reference)
        return reference

    def submit_save(self, session: Any) -> Any:
        """Submit a checkpoint; return the future of its reference."""
        return self.client.save_checkpoint_async(session, f"{self.label}x")

    def saved(self, future: Any) -> str:
        """Wait for a checkpoint that was submitted; return its reference."""
        reference: str = self.client.await_(future)
        self.references.append(reference)
        return reference

    def clean(self) -> None:
        for session in self.sessions:
            self.client.close_session(session)
        if self.client.supports("delete_checkpoint"):
            for reference in self.references:
                self.client.delete_checkpoint(reference)

    # --- datums ---

    def batch(
        self, seed: int, sizes: Sequence[int] = (7, 3, 5), weight: float = 1.0
    ) -> list[Datum]:
        """Make datums of these lengths, of random tokens, each token of the same weight."""
        rng = np.random.default_rng(seed)
        return [
            datum(rng.integers(0, self.tokens, size + 1), weights=np.full(size, weight))
            for size in sizes
        ]

    @property
    def probe(self) -> list[Datum]:
        """All that `batch(1)` and `batch(2)` train on, so that no change goes unseen."""
        return [*self.batch(1), *self.batch(2)]

    def for_loss(self, session: Any, loss_fn: str) -> list[Datum]:
        """Make two datums for a loss, whose ratios in this session are `RATIOS`.

        Their advantages are of one sign in the first and of the other in the second.
        """
        plain = self.batch(3, sizes=(len(RATIOS), len(RATIOS)))
        rng = np.random.default_rng(4)
        made = []
        for sign, each in zip((1.0, -1.0), plain, strict=True):
            inputs = {"weights": rng.normal(size=len(RATIOS))}
            if loss_fn != "cross_entropy":
                p = self.logprobs(session, [each])
                advantages = sign * rng.uniform(0.5, 1.5, len(RATIOS))
                inputs = {"logprobs": p - np.log(RATIOS), "advantages": advantages}
            made.append(with_inputs(each, **inputs))
        return made

    # --- operations, awaited ---

    def forward_backward(
        self, session: Any, datums: Sequence[Datum], loss_fn: str = "cross_entropy"
    ) -> ForwardBackwardResult:
        return self.client.await_(self.client.forward_backward(session, datums, loss_fn))

    def forward(
        self, session: Any, datums: Sequence[Datum], loss_fn: str = "cross_entropy"
    ) -> ForwardBackwardResult:
        return self.client.await_(self.client.forward(session, datums, loss_fn))

    def evaluate(self, session: Any, datums: Sequence[Datum]) -> ForwardBackwardResult:
        """Compute a loss, with or without a gradient."""
        run = self.forward if self.client.supports("forward") else self.forward_backward
        return run(session, datums)

    def optim_step(
        self, session: Any, rate: float | None = None, adam: AdamParams = ADAM
    ) -> OptimStepResult:
        """Take a step and await it. The default rate is the usual one, in the scale of `adam`."""
        usual = self.learning_rate * max(1.0, adam.eps)
        try:
            future = self.client.optim_step(session, usual if rate is None else rate, adam)
        except Unsupported as error:
            pytest.skip(f"refuses {adam}, which is allowed: {error}")
        return self.client.await_(future)

    def step(
        self,
        session: Any,
        datums: Sequence[Datum],
        rate: float | None = None,
        adam: AdamParams = ADAM,
    ) -> ForwardBackwardResult:
        """Submit a pass and its step; return the outcome of the pass."""
        result = self.client.forward_backward(session, datums)
        self.optim_step(session, rate, adam)
        return self.client.await_(result)

    def losses(self, session: Any, seeds: Sequence[int]) -> list[float]:
        """Train on these batches and return the losses on the way."""
        return [self.step(session, self.batch(seed)).loss for seed in seeds]

    def logprobs(self, session: Any, datums: Sequence[Datum]) -> FloatArray:
        """Return what the model says, `(n,)` for all n tokens: a function of all its weights."""
        if self.client.supports("forward"):
            return joined(self.forward(session, datums))
        # Another session with the same weights, where a gradient does no harm.
        reference = self.save(session)
        copy = self.client.start_session(replace(self.config, from_checkpoint=reference))
        try:
            return joined(self.forward_backward(copy, datums))
        finally:
            self.client.close_session(copy)

    def uses(self, session: Any, reference: str) -> dict[str, Callable[[], Any]]:
        """Return a function for each callback that uses a session, by name; it calls and awaits."""
        client, datums = self.client, self.batch(1)
        calls: dict[str, Callable[[], Any]] = {
            "forward_backward": lambda: self.forward_backward(session, datums),
            "forward": lambda: self.forward(session, datums),
            "optim_step": lambda: client.await_(client.optim_step(session, 0.0)),
            "save_checkpoint": lambda: self.save(session),
            "load_checkpoint": lambda: client.load_checkpoint(session, reference),
            "save_weights_for_sampler": lambda: client.save_weights_for_sampler(session),
        }
        for name, call in calls.items():
            call.__name__ = name  # for messages
        return {name: call for name, call in calls.items() if client.supports(name)}

    def first_failure(self, futures: Sequence[Any]) -> tuple[Any, AdapterError]:
        """Return the first of these futures that fails, and its error."""
        for future in futures:
            try:
                self.client.await_(future)
            except AdapterError as error:
                return future, error
        pytest.fail("no operation failed: the fixture `break_session` does not do what it should")

    def check_nothing_is_queued(self, session: Any) -> None:
        """Check that nothing was accumulated, and that the session can be used like a new one."""
        refuses(InvalidInput, self.client.optim_step, session, self.learning_rate)
        assert math.isfinite(self.step(session, [GOOD]).loss)

    # --- comparisons ---

    def same(self, found: Any, expected: Any) -> None:
        """Check that numbers are equal up to rounding."""
        np.testing.assert_allclose(found, expected, rtol=self.tolerance, atol=self.tolerance)

    def same_step(self, before: FloatArray, found: FloatArray, expected: FloatArray) -> None:
        """Check that two steps from one place led to one place, within 1% of the way."""
        way = self._way(before, expected)
        np.testing.assert_allclose(found, expected, atol=0.01 * way, rtol=self.tolerance)

    def other_step(self, before: FloatArray, found: FloatArray, other: FloatArray) -> None:
        """Check that two steps from one place led to two, by more than 2% of the way."""
        apart = float(np.abs(found - other).max())
        assert apart > 0.02 * self._way(before, other) + self.tolerance, "both led to one place"

    def _way(self, before: FloatArray, after: FloatArray) -> float:
        way = float(np.abs(after - before).max())
        assert way > 10 * self.tolerance, "the step is too small to be seen: raise learning_rate"
        return way

    def same_sum(self, found: float, terms: Floats) -> None:
        """Check a sum over tokens, up to the rounding of its terms."""
        np.testing.assert_allclose(
            found, terms.sum(), rtol=0, atol=self.tolerance * np.abs(terms).sum()
        )

    def same_norm(self, found: float | None, expected: float | None) -> None:
        """Check two gradient norms, if both are known."""
        if found is not None and expected is not None:
            np.testing.assert_allclose(found, expected, rtol=max(1e-4, self.tolerance))


def datum(sequence: Sequence[int] | NDArray[np.int64], **inputs: Any) -> Datum:
    """Make a datum that predicts each token of a sequence from those before it."""
    tokens = np.asarray(sequence, np.int64)
    return with_inputs(
        Datum(ModelInput.from_ints(tokens[:-1]), {"target_tokens": tokens[1:]}), **inputs
    )


def with_inputs(plain: Datum, **inputs: Any) -> Datum:
    """Return a datum with these loss inputs, as float32, and no others besides its targets."""
    arrays = {name: np.asarray(values, np.float32) for name, values in inputs.items()}
    targets = plain.loss_fn_inputs["target_tokens"]
    return Datum(plain.model_input, {"target_tokens": targets, **arrays})


def joined(result: ForwardBackwardResult) -> FloatArray:
    """Return the logprobs of all datums, one after the other."""
    return np.concatenate([output["logprobs"] for output in result.outputs])


def values(datums: Sequence[Datum], name: str) -> Floats:
    """Return a loss input of all datums, one after the other."""
    return np.concatenate([d.loss_fn_inputs[name].astype(np.float64) for d in datums])


GOOD = datum([1, 2, 3], weights=[1.0, 1.0])
"""A datum that every session can train on."""
