"""Work on the batches of later steps, in a thread, while a step is trained on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import copy_context
from dataclasses import dataclass
from typing import Generic, TypeVar

from pydantic import Field

from ..batches import Batches
from ..config import WorkflowConfig

T = TypeVar("T")
R = TypeVar("R")


class AheadConfig(WorkflowConfig):
    """How far sampling may be ahead."""

    max_staleness: int = Field(default=0, ge=0)
    """Steps by which the weights that sample may be older than those that learn, so that sampling
    and updates overlap. From 2 on, which weights sample depends on the timing, and above 0 a run
    that is continued differs from one that was not interrupted."""


@dataclass(slots=True)
class _Job(Generic[R]):
    made: int
    result: Future[R]


class Ahead(Generic[T, R]):
    """Samples the batches of steps, at most `steps` before the step that learns from them.

    With 0 each is sampled when its step comes, from the weights of that moment. Otherwise, what is
    sampled in the thread has the weights of the moment at which it began, and weights are
    synchronised only when the thread is idle: a reference to weights is valid until the next.

    Args:
        batches: those of the run.
        work: samples a batch; its arguments are the items, the step and the reference of weights.
        steps: how far ahead.
        end: the number of steps of the run.
    """

    def __init__(
        self,
        batches: Batches[T],
        work: Callable[[Sequence[T], int, str], R],
        steps: int,
        end: int,
    ) -> None:
        self._batches, self._work, self._steps, self._end = batches, work, steps, end
        self._jobs: dict[int, _Job[R]] = {}
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="sampling")

    def take(self, items: Sequence[T], step: int, synchronise: Callable[[], str]) -> tuple[R, int]:
        """Return what the work makes of the batch of a step, and how many steps its weights are
        old; begin with the batches of later steps.

        Args:
            items: the batch.
            step: steps come in order. Where one comes again, after a restart, what was sampled for
                later ones is dropped.
            synchronise: returns the reference of the weights of the moment.
        """
        if step not in self._jobs:
            self.wait()
            self._jobs.clear()
        job, model = self._jobs.pop(step, None), None
        if job is None:
            model = synchronise()
            found, age = self._work(items, step, model), 0
        else:
            found, age = job.result.result(), step - job.made
        if self._steps and all(each.result.done() for each in self._jobs.values()):
            self._begin(step, model or synchronise())
        return found, age

    def _begin(self, step: int, model: str) -> None:
        first = max([step, *self._jobs]) + 1
        last = min(step + self._steps + 1, self._end)
        if first >= last:
            return
        for _, later, items in self._batches.between(first, last):
            context = copy_context()  # the thread reports to the step that began the work
            result = self._thread.submit(context.run, self._work, items, later, model)
            self._jobs[later] = _Job(step, result)

    def wait(self) -> None:
        """Wait until nothing is sampled, so that weights can be synchronised."""
        for job in self._jobs.values():
            job.result.exception()

    def close(self) -> None:
        """End the thread when it has done what it is at."""
        self._thread.shutdown(cancel_futures=True)
