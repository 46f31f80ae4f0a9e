"""What backends answered to the same steps, and how far they are from the first of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from .steps import Measured, Step
from .tolerances import Tolerances, dtype_of


@dataclass(slots=True)
class Backend:
    """What one backend did.

    Args:
        name: what it was asked for by.
        adapter: the adapter's name.
        facts: what it says of its session, `get_info`.
        measured: its answer to each step, up to the one that failed, if one did.
        error: what it failed with, in words; None if nothing failed.
    """

    name: str
    adapter: str
    facts: dict[str, Any] = field(default_factory=dict)
    measured: list[Measured] = field(default_factory=list)
    error: str | None = None

    @property
    def dtype(self) -> str | None:
        """What it computes in; None if it does not say."""
        return dtype_of(self.facts)


@dataclass(frozen=True, slots=True)
class Difference:
    """How far a backend is from the reference in one step.

    Args:
        loss: relative to the sum of what the tokens add to it, each taken as positive: where no
            weight is negative, to the loss.
        grad_norm: relative to the reference; None where one of the two does not say.
        logprobs: the largest one, in nats.
        datum: index of the datum in which it is, over all passes of the step.
        token: index of the token.
    """

    loss: float
    grad_norm: float | None
    logprobs: float
    datum: int
    token: int

    def figures(self) -> dict[str, float]:
        """Return the differences that are known, by name."""
        known = {"loss": self.loss, "grad_norm": self.grad_norm, "logprobs": self.logprobs}
        return {name: value for name, value in known.items() if value is not None}


def difference(step: Step, found: Measured, reference: Measured) -> Difference:
    """Compare the answers of two backends to the same step.

    Tokens whose loss inputs are all 0 are left out: a backend need not compute them.
    """
    counted = [mask for each in step.passes for mask in each.counted]
    largest, datum, token = 0.0, 0, 0
    pairs = zip(found.logprobs, reference.logprobs, counted, strict=True)
    for index, (one, other, mask) in enumerate(pairs):
        # A difference that is not a number is the largest there is.
        apart = np.abs(one.astype(np.float64) - other)
        apart = np.where(mask, np.where(np.isnan(apart), np.inf, apart), 0.0)
        if len(apart) and apart.max() > largest:
            largest, datum, token = float(apart.max()), index, int(apart.argmax())
    norm = None
    if found.grad_norm is not None and reference.grad_norm is not None:
        norm = _relative(found.grad_norm, reference.grad_norm, abs(reference.grad_norm))
    loss = _relative(found.loss, reference.loss, size(step, reference))
    return Difference(loss, norm, largest, datum, token)


def differences(steps: Sequence[Step], found: Backend, reference: Backend) -> list[Difference]:
    """Compare the answers of two backends to the steps that both have taken."""
    answers = zip(steps, found.measured, reference.measured, strict=False)
    return [difference(step, one, other) for step, one, other in answers]


def size(step: Step, measured: Measured) -> float:
    """Return the sum of what each token adds to a step's loss, taken as positive."""
    total, logprobs = 0.0, iter(measured.logprobs)
    for each in step.passes:
        for strengths, logprob in zip(each.strengths, logprobs, strict=False):
            of_token = logprob if each.loss_fn in ("cross_entropy", "cispo") else 1.0
            total += float(np.abs(strengths * of_token).sum())
    return total


def _relative(one: float, other: float, size: float) -> float:
    if one == other:
        return 0.0
    apart = abs(one - other) / size if size else np.inf
    return float(np.inf if np.isnan(apart) else apart)


@dataclass(frozen=True, slots=True)
class Compared:
    """A backend against the reference.

    Args:
        backend: what it did.
        differences: of each step that it took.
        tolerances: how far it may be apart.
        first_step_only: whether only the first step can agree, and of later ones the curve of the
            loss: it starts from other random numbers.
        low_rank: whether a low-rank update is trained.
    """

    backend: Backend
    differences: Sequence[Difference]
    tolerances: Tolerances
    first_step_only: bool
    low_rank: bool = False

    @property
    def hint(self) -> str:
        """What the differences look like, where they look like something."""
        name, first = self.backend.name, self.beyond(0) if self.differences else []
        if self.low_rank and not self.first_step_only and first == ["grad_norm"]:
            return (
                f"{name} agrees until its first gradient. If it draws the matrices of a low-rank "
                f"update by itself, as services do, nothing later can agree: "
                f"--first-step-only {name}"
            )
        return ""

    def held(self, step: int) -> Mapping[str, float]:
        """Return the tolerance of each figure that is held to one in a step, counted from 0."""
        within = self.tolerances
        known = self.differences[step].figures()
        if not self.first_step_only:
            return {name: getattr(within, name) for name in known}
        if step:
            return {"loss": within.curve}
        return {"loss": within.loss, "logprobs": within.logprobs}

    def beyond(self, step: int) -> list[str]:
        """Return the names of the figures that are beyond their tolerance in a step."""
        known, held = self.differences[step].figures(), self.held(step)
        return [name for name, within in held.items() if not known[name] <= within]

    def problems(self) -> Iterator[str]:
        """Yield a line for each figure that is beyond its tolerance, and for an error."""
        name = self.backend.name
        for step, found in enumerate(self.differences):
            for figure in self.beyond(step):
                at = f", datum {found.datum}, token {found.token}" if figure == "logprobs" else ""
                yield (
                    f"{name}, step {step + 1}: {figure} differs by "
                    f"{found.figures()[figure]:.2g}, and may by {self.held(step)[figure]:.2g}{at}"
                )
        if self.backend.error is not None:
            yield f"{name}, step {len(self.differences) + 1}: {self.backend.error}"


@dataclass(frozen=True, slots=True)
class Report:
    """What a comparison found.

    Args:
        workflow: whose steps they are.
        steps: what was submitted.
        reference: the first backend.
        others: each against it.
        asked: how many steps there were to be; the workflow may have ended before.
    """

    workflow: str
    steps: Sequence[Step]
    reference: Backend
    others: Sequence[Compared]
    asked: int

    @property
    def backends(self) -> list[Backend]:
        """Every backend, the reference first."""
        return [self.reference, *(each.backend for each in self.others)]

    @property
    def problems(self) -> list[str]:
        """A line for each figure that is beyond its tolerance, and for each error."""
        return [line for each in self.others for line in each.problems()]

    @property
    def within(self) -> bool:
        """Whether every backend took every step, within its tolerances."""
        return not self.problems

    @property
    def doubts(self) -> list[str]:
        """A line for each thing that was not found out, though everything may be within."""
        lines, name = [], self.reference.name
        if len(self.steps) < self.asked:
            lines.append(
                f"the workflow took {len(self.steps)} of the {self.asked} steps that were asked for"
            )
        for each in self.others:
            if self.is_blind(each):
                taken = len(each.differences)
                lines.append(
                    f"over {taken} steps the loss of {name} went {self.moved(taken):.1%} from that "
                    f"of step 1, no further than losses may differ: it is not known whether the "
                    f"weights of {each.backend.name} move. Take more steps, or larger ones"
                    if taken > 1
                    else f"of {each.backend.name} nothing is held after its first gradient: it is "
                    f"not known whether its weights move. Take more steps"
                )
        return lines

    def moved(self, steps: int) -> float:
        """Return how far the reference's loss was from that of step 1 in the first steps, at most;
        relative, as differences are.
        """
        found = [0.0]
        first = self.loss(0, self.reference.measured[0])
        for number, measured in enumerate(self.reference.measured[:steps]):
            step = self.steps[number]
            by_weight = size(step, measured) / step.strength
            found.append(_relative(self.loss(number, measured), first, by_weight))
        return max(found)

    def is_blind(self, each: Compared) -> bool:
        """Return whether a backend that trains nothing would have been within: it is held to the
        first step and the curve of the loss, and the curve is flatter than what it may differ by.
        """
        taken = len(each.differences)
        return each.first_step_only and taken > 0 and self.moved(taken) <= each.tolerances.curve

    def loss(self, step: int, measured: Measured) -> float:
        """Return the loss of a step, counted from 0, by the sum of its absolute weights."""
        return measured.loss / self.steps[step].strength
