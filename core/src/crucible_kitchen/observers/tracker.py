"""Trackers: observers that show runs on pages of their own, such as those of Weights & Biases."""

from __future__ import annotations

import builtins
import json
import threading
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal, Protocol, TypeAlias

from ..events import (
    Event,
    TrainingEval,
    TrainingSamples,
    TrainingStep,
    WorkflowException,
    WorkflowRestart,
    WorkflowRun,
    WorkflowStart,
    WorkflowStop,
    typed,
)
from ..options.adapter_options import AdapterOptions

Status: TypeAlias = Literal["finished", "failed", "interrupted"]
"""How a run ended: as planned, by an error, or by Ctrl-C or a signal."""

SAMPLE_COLUMNS = ("prompt", "completion", "reward", "answer")
"""The keys of a sample, in the order in which a table shows them."""


class ObserverOptions(AdapterOptions):
    """The base of an observer's options: frozen, no unknown keys, defaults from `FromEnv`."""


class TrackedRun(Protocol):
    """One run as a tracker shows it. Its methods are called one at a time."""

    def log(self, metrics: Mapping[str, float], step: int, *, evaluation: bool) -> None:
        """Show what was measured.

        Args:
            metrics: by name.
            step: the number of the step, from 1, or of the step after which it was evaluated, from
                0. A resumed run takes some steps again; these arrive again.
            evaluation: whether it is an evaluation, or a training step.
        """
        ...

    def show(self, samples: Sequence[Mapping[str, Any]], step: int) -> None:
        """Show the completions of an evaluation, of which each has the keys `SAMPLE_COLUMNS`."""
        ...

    def rewind(self, step: int) -> None:
        """The session was restored to the end of this step: later steps arrive again."""
        ...

    def end(self, status: Status) -> None:
        """Show how the run ended, and release what it holds. It may be opened again."""
        ...


class Tracker(ABC):
    """An observer that shows runs: where one begins, what it measures, and how it ends.

        class Acme(Tracker):
            def __init__(self, options: AcmeOptions) -> None: ...
            def open(self, run_id, *, workflow, config, resumed_at):
                return AcmeRun(...)

    Safe to call from any thread.
    """

    def __init__(self) -> None:
        self._runs: dict[str, TrackedRun] = {}
        # Reentrant: a stream that is garbage ends where it is collected, perhaps in here.
        self._lock = threading.RLock()

    @abstractmethod
    def open(
        self, run_id: str, *, workflow: str, config: Mapping[str, Any], resumed_at: int
    ) -> TrackedRun:
        """Return a run: a new one, or, for an id that was opened before, the same once more.

        Args:
            run_id: its id, perhaps with `/`.
            workflow: the workflow's name.
            config: its settings as plain data, without secrets.
            resumed_at: steps that were done before; 0 for a run that begins.
        """

    def __call__(self, event: Event) -> None:
        if event.name in _ABOUT_RUNS:
            with self._lock:
                self._receive(event)

    def close(self) -> None:
        """End the runs whose end was not reported."""
        with self._lock:
            self._end_all("interrupted")

    def _receive(self, event: Event) -> None:
        match typed(event):
            case WorkflowStart(done=False, run_id=run_id) as start:
                self._end(run_id, "interrupted")
                self._runs[run_id] = self.open(
                    run_id,
                    workflow=start.workflow,
                    config=start.config or {},
                    resumed_at=start.resumed_at,
                )
            case TrainingStep(metrics=Mapping() as metrics) as step:
                for run in self._of(step.run_id):
                    run.log(metrics, step.step, evaluation=False)
            case TrainingEval(metrics=Mapping() as metrics) as evaluation:
                for run in self._of(evaluation.run_id):
                    run.log(metrics, evaluation.step, evaluation=True)
            case TrainingSamples(samples=samples) as shown if samples:
                for run in self._of(shown.run_id):
                    run.show(samples, shown.step)
            case WorkflowRestart(run_id=run_id, step=int(step)):
                for run in self._of(run_id):
                    run.rewind(step)
            case WorkflowStop(run_id=run_id):
                self._end(run_id, "finished")
            case WorkflowException(run_id=run_id, error=error):
                self._end(run_id, status_of(error))
            case WorkflowRun():  # of a workflow that reports no end of its own
                self._end_all(status_of(event.attributes.get("error")))

    def _of(self, run_id: str | None) -> Iterator[TrackedRun]:
        """Yield the run; of a workflow that does not name its run, the last that was opened."""
        if run_id is None:
            yield from list(self._runs.values())[-1:]
        elif run_id in self._runs:
            yield self._runs[run_id]

    def _end(self, run_id: str, status: Status) -> None:
        if (run := self._runs.pop(run_id, None)) is not None:
            run.end(status)

    def _end_all(self, status: Status) -> None:
        for run_id in list(self._runs):
            self._end(run_id, status)

    @staticmethod
    def flat(config: Mapping[str, Any]) -> dict[str, bool | int | float | str]:
        """Return settings without nesting: `lora.rank` for a table, JSON for a list.

        Settings that are not set are left out.
        """
        return dict(_flat("", config))


_ABOUT_RUNS = frozenset(
    kind.name
    for kind in (
        TrainingEval,
        TrainingSamples,
        TrainingStep,
        WorkflowException,
        WorkflowRestart,
        WorkflowRun,
        WorkflowStart,
        WorkflowStop,
    )
)


def status_of(error: str | None) -> Status:
    """Return how a run ended whose error is of this type; None is no error."""
    if error is None:
        return "finished"
    kind = getattr(builtins, error, Exception)
    ends_the_process = isinstance(kind, type) and not issubclass(kind, Exception)
    return "interrupted" if ends_the_process else "failed"


def _flat(within: str, value: Any) -> Iterator[tuple[str, bool | int | float | str]]:
    if isinstance(value, Mapping):
        for name, item in value.items():
            yield from _flat(f"{within}.{name}" if within else str(name), item)
    elif isinstance(value, bool | int | float | str):
        yield within, value
    elif value is not None:
        yield within, json.dumps(value, default=str)
