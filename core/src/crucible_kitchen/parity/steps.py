"""A training step as it is submitted, and what a backend answers to it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import Unsupported
from ..ports import TrainingClient
from ..types import AdamParams, Array, Datum, FloatArray, ForwardBackwardResult, SessionConfig
from ..workflows.evaluation.measures import token_logprobs


@dataclass(frozen=True, slots=True, eq=False)
class Pass:
    """The arguments of one `forward_backward`."""

    datums: Sequence[Datum]
    loss_fn: str
    loss_fn_config: Mapping[str, float] | None

    @property
    def strengths(self) -> list[npt.NDArray[np.float64]]:
        """How much each token counts, float64 `(N_i,)` of each datum: its weight or advantage."""
        name = "weights" if self.loss_fn == "cross_entropy" else "advantages"
        return [
            np.asarray(
                datum.loss_fn_inputs.get(name, np.ones(datum.model_input.length)), np.float64
            )
            for datum in self.datums
        ]

    @property
    def counted(self) -> list[Array]:
        """Which tokens a backend must compute, bool `(N_i,)` of each datum: those of which some
        loss input is not 0.
        """
        found = []
        for datum in self.datums:
            inputs = [v for name, v in datum.loss_fn_inputs.items() if name != "target_tokens"]
            each = [np.asarray(value) != 0 for value in inputs]
            found.append(np.any(each, axis=0) if each else np.ones(datum.model_input.length, bool))
        return found


@dataclass(frozen=True, slots=True, eq=False)
class Step:
    """One optimizer step: the passes whose gradients it sums, and the arguments of `optim_step`."""

    passes: Sequence[Pass]
    learning_rate: float
    adam: AdamParams

    @property
    def tokens(self) -> int:
        """How many tokens have a logprob that is compared."""
        return sum(int(mask.sum()) for each in self.passes for mask in each.counted)

    @property
    def strength(self) -> float:
        """The sum of the absolute weights or advantages of its tokens; 1 if all are 0."""
        return sum(float(np.abs(s).sum()) for each in self.passes for s in each.strengths) or 1.0


@dataclass(frozen=True, slots=True, eq=False)
class Measured:
    """What a backend answered to one step.

    Args:
        loss: the sum over the tokens of all passes.
        grad_norm: the norm of the gradient before clipping; None if the backend does not say.
        logprobs: in nats, float32 `(N_i,)`, of each datum of each pass, in order.
    """

    loss: float
    grad_norm: float | None
    logprobs: Sequence[FloatArray]


@dataclass(slots=True)
class Submitted:
    """A step that a client has received, with its futures."""

    step: Step
    passes: Sequence[Any]
    update: Any

    def measured(self, client: TrainingClient) -> Measured:
        """Await everything.

        Raises:
            AdapterError: an operation failed, or its result is not that of its datums.
        """
        results: list[ForwardBackwardResult] = [client.await_(future) for future in self.passes]
        norm = client.await_(self.update).grad_norm
        logprobs: list[FloatArray] = []
        for each, result in zip(self.step.passes, results, strict=True):
            lengths = [datum.model_input.length for datum in each.datums]
            logprobs += token_logprobs(client, result, lengths)
        return Measured(
            float(sum(result.loss for result in results)),
            None if norm is None else float(norm),
            logprobs,
        )


def replay(
    client: TrainingClient, config: SessionConfig, steps: Sequence[Step], facts: dict[str, Any]
) -> Iterator[Measured]:
    """Take the steps in a session of their own, which is closed at the end; yield each one's
    answer before the next is submitted.

    Args:
        client: the backend.
        config: of the session.
        steps: in order.
        facts: gets what the client says of the session, `get_info`.

    Raises:
        AdapterError: a call failed.
    """
    session = client.start_session(config)
    try:
        facts |= facts_of(client, session)
        for step in steps:
            passes = [
                client.forward_backward(session, each.datums, each.loss_fn, each.loss_fn_config)
                for each in step.passes
            ]
            update = client.optim_step(session, step.learning_rate, step.adam)
            yield Submitted(step, passes, update).measured(client)
    finally:
        client.close_session(session)


def facts_of(client: TrainingClient, session: Any) -> dict[str, Any]:
    """Return what a client says of a session; nothing where it does not say."""
    try:
        return dict(client.get_info(session))
    except Unsupported:
        return {}
