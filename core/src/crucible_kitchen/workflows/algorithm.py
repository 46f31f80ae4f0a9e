"""What distinguishes one training workflow from another, and what they all return.

An algorithm sees sessions, batches and log probabilities. It never sees the id of a run, a
checkpoint, a metrics store or a restart: these are the loop's, so that every algorithm has them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, Protocol, TypeAlias, TypeVar

from .batches import Batches

T = TypeVar("T")

Metrics: TypeAlias = Mapping[str, float]
Measure: TypeAlias = Callable[[], Metrics]
"""Awaits a submitted pass and returns what it measured, by metric."""


@dataclass(frozen=True, slots=True)
class Prepared(Generic[T]):
    """What to train on, and what is known of it.

    Args:
        items: in their stored order, or as batches whose order is their own.
        depends_on: what the results depend on, such as digests, as plain data by name. A run is
            not continued where one of them has changed.
        facts: what else the run's record is to hold, such as how many rows were left out.
        trial: called before the first step, when the places that a run writes to have been tried,
            to find out whether what comes later can be done.
    """

    items: Sequence[T] | Batches[T]
    depends_on: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)
    trial: Callable[[], None] = lambda: None


@dataclass(frozen=True, slots=True)
class Sample:
    """A completion to look at.

    Args:
        prompt: what was asked, as text.
        completion: what the model answered, as text.
        reward: what it got for that, if it is rewarded.
        answer: the right answer, where there is one.
    """

    prompt: str
    completion: str
    reward: float | None = None
    answer: str | None = None


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What an evaluation measured, and the completions that it measured it on.

    Args:
        metrics: by name.
        samples: kept in the blob store, under the run's id.
    """

    metrics: Metrics
    samples: Sequence[Sample] = ()


class Algorithm(Protocol[T]):
    """What distinguishes one training workflow from another, and what they all return.

    `session` is an argument each time because a restart without a checkpoint starts another one.
    """

    @property
    def evaluates(self) -> bool:
        """Whether there is anything to evaluate on."""
        ...

    def prepare(self, session: Any) -> Sequence[T] | Prepared[T]:
        """Return the items to train on. The session has its starting weights, also in a run that
        is continued. Whatever can fail before the first step should fail here.
        """
        ...

    def submit(self, session: Any, batch: Sequence[T], step: int) -> Measure | Iterator[Measure]:
        """Submit the gradient of one step, counted from 0; return what awaits and measures it.

        The loop submits the optimizer step that follows, and may submit further steps before it
        calls the returned function. `num_tokens` among the measured values gives
        `tokens_per_second`.

        A step of several updates is a generator that yields after the gradient of each: the loop
        submits an optimizer step, and asks for the next. Where two of them measure a metric of one
        name, the later counts.
        """
        ...

    def evaluate(self, session: Any) -> Metrics | Evaluation:
        """Measure the weights as they are. Nothing is in flight."""
        ...


@dataclass(frozen=True, slots=True)
class TrainingResult:
    """How a run ended.

    Args:
        run_id: its id.
        steps: optimizer steps taken.
        metrics: the last value of every metric.
        checkpoint: the reference of the last checkpoint.
        weights: a model reference of the run's weights, where the training client offers one.
        best_step: the step after which they were the best, where `best_metric` chose them.
    """

    run_id: str
    steps: int
    metrics: Metrics
    checkpoint: str | None
    weights: str | None
    best_step: int | None = None
