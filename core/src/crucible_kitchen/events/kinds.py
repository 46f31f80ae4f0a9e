"""The kinds of events that workflows emit, with their attributes.

A workflow emits one by its class, and an observer reads it by the same class, so that a type
checker holds the two together:

    observers.emit(WorkflowStop(workflow="mine", run_id=run_id))

    match typed(event):
        case TrainingStep(step=step, total=total): print(f"{step}/{total}")

A kind that takes time is a span. What is known only at its end is None until then:

    load = DatasetLoad(dataset="rows", split="train")
    with observers.start(load) as span:
        rows = read()
        span.set(replace(load, rows=len(rows)))
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass, field
from typing import Any, ClassVar

from .event import Event

_ABSENT = "absent"


def _absent() -> Any:
    """Declare an attribute that an event leaves out while it is None."""
    return field(default=None, metadata={_ABSENT: True})


class TypedEvent:
    """Base of the kinds. Subclasses are frozen dataclasses whose fields are the attributes."""

    name: ClassVar[str]
    """The event's name."""

    def attributes(self) -> dict[str, Any]:
        """Return the attributes as the event carries them."""
        fields: Any = dataclasses.fields(self)  # type: ignore[arg-type]
        values = {each: getattr(self, each.name) for each in fields}
        return {
            each.name: value
            for each, value in values.items()
            if value is not None or _ABSENT not in each.metadata
        }


@dataclass(frozen=True, kw_only=True)
class WorkflowRun(TypedEvent):
    """A span around everything that a workflow does.

    Args:
        workflow: the workflow's name.
    """

    name = "workflow.run"
    workflow: str


@dataclass(frozen=True, kw_only=True)
class WorkflowStart(TypedEvent):
    """A run begins, or continues.

    Args:
        workflow: the workflow's name.
        run_id: the run.
        resumed_at: steps that were done before; 0 for a new run.
        done: whether the run was complete already, so that nothing is run again.
        config: its settings, without secrets.
    """

    name = "workflow.start"
    workflow: str
    run_id: str
    resumed_at: int = 0
    done: bool = False
    config: Mapping[str, Any] | None = _absent()


@dataclass(frozen=True, kw_only=True)
class WorkflowStop(TypedEvent):
    """A run is complete."""

    name = "workflow.stop"
    workflow: str
    run_id: str


@dataclass(frozen=True, kw_only=True)
class WorkflowException(TypedEvent):
    """A run failed, or was interrupted.

    Args:
        workflow: the workflow's name.
        run_id: the run.
        step: steps in the last checkpoint.
        error: the type of the error.
    """

    name = "workflow.exception"
    workflow: str
    run_id: str
    step: int
    error: str


@dataclass(frozen=True, kw_only=True)
class WorkflowWaiting(TypedEvent):
    """Another process may be working on the run; this one waits to see whether it is alive.

    Args:
        run_id: the run.
        holder: the other process.
        seconds: the longest wait.
    """

    name = "workflow.waiting"
    run_id: str
    holder: str
    seconds: float


@dataclass(frozen=True, kw_only=True)
class WorkflowInterrupted(TypedEvent):
    """A run was asked to end; it saves after this step, then ends."""

    name = "workflow.interrupted"
    workflow: str
    run_id: str
    step: int


@dataclass(frozen=True, kw_only=True)
class WorkflowFinishing(TypedEvent):
    """The record is about to say that the run is done."""

    name = "workflow.finishing"
    workflow: str
    run_id: str


@dataclass(frozen=True, kw_only=True)
class WorkflowRestart(TypedEvent):
    """A session failed and is restored from a checkpoint, or started again if there is none.

    Args:
        workflow: the workflow's name.
        run_id: the run.
        step: the step after which training continues; 0 is the beginning.
        restart: how many restarts there have been, this one included.
        callback: the callback that failed, if known.
        error: the type of the error.
    """

    name = "workflow.restart"
    workflow: str
    run_id: str
    step: int
    restart: int
    callback: str | None
    error: str


@dataclass(frozen=True, kw_only=True)
class DatasetLoad(TypedEvent):
    """A span: rows are read from the dataset store.

    Args:
        dataset: the data set's id.
        split: its split, if one was chosen.
        rows: at the end, how many rows were read.
    """

    name = "dataset.load"
    dataset: str
    split: str | None = None
    rows: int | None = _absent()


@dataclass(frozen=True, kw_only=True)
class DatasetRender(TypedEvent):
    """A span: rows become sequences of tokens. The counts are known at the end.

    Args:
        purpose: what the rows are for: "train" or "test".
        dataset: the data set's id.
        split: its split, if one was chosen.
        rows: rows that were read.
        sequences: sequences to learn from, which may be several for a row.
        tokens: tokens of these, trained on or not.
        too_long: sequences left out because of their length.
        truncated: sequences that were cut.
        nothing_left: of the cut ones, those left out because nothing to train on was left.
        also_in_train: of rows to evaluate on, sequences that are trained on as well.
    """

    name = "dataset.render"
    purpose: str
    dataset: str
    split: str | None = None
    rows: int | None = _absent()
    sequences: int | None = _absent()
    tokens: int | None = _absent()
    too_long: int | None = _absent()
    truncated: int | None = _absent()
    nothing_left: int | None = _absent()
    also_in_train: int | None = _absent()


@dataclass(frozen=True, kw_only=True)
class DatasetRendering(TypedEvent):
    """How far rendering is, at most a few times a second, within the span `dataset.render`.

    Args:
        purpose: what the rows are for: "train" or "test".
        dataset: the data set's id.
        split: its split, if one was chosen.
        rows: rows that are rendered so far.
        total: how many there are, if known.
    """

    name = "dataset.rendering"
    purpose: str
    dataset: str
    split: str | None = None
    rows: int
    total: int | None = None


@dataclass(frozen=True, kw_only=True)
class DatasetStream(TypedEvent):
    """A span: a streamed data set is opened, and its first rows are read.

    Args:
        dataset: the data set's id.
        split: its split, if one was chosen.
    """

    name = "dataset.stream"
    dataset: str
    split: str | None = None


@dataclass(frozen=True, kw_only=True)
class DatasetLeftOut(TypedEvent):
    """Rows of a streamed data set are too long to be trained on.

    Args:
        dataset: the data set, in words.
        rows: the names of these rows, such as "row 5".
    """

    name = "dataset.left_out"
    dataset: str
    rows: Sequence[str]


@dataclass(frozen=True, kw_only=True)
class TrainingStep(TypedEvent):
    """A span: one optimizer step, from its submission to its result.

    Args:
        step: its number, from 1.
        total: how many steps the run takes.
        run_id: the run, if the workflow has runs.
        metrics: at the end, the step's metrics by name.
    """

    name = "training.step"
    step: int
    total: int
    run_id: str | None = _absent()
    metrics: Mapping[str, float] | None = _absent()


@dataclass(frozen=True, kw_only=True)
class TrainingEval(TypedEvent):
    """A span: an evaluation.

    Args:
        step: the step after which it happens.
        total: how many steps the run takes, if known.
        run_id: the run, if the workflow has runs.
        metrics: at the end, what was measured, by name.
    """

    name = "training.eval"
    step: int
    total: int | None = _absent()
    run_id: str | None = _absent()
    metrics: Mapping[str, float] | None = _absent()


@dataclass(frozen=True, kw_only=True)
class TrainingSamples(TypedEvent):
    """The completions that an evaluation was measured on. The one event that holds texts.

    Args:
        step: the step after which it happened.
        run_id: the run.
        samples: for each completion `prompt`, `completion`, `reward` and `answer`.
    """

    name = "training.samples"
    step: int
    run_id: str
    samples: Sequence[Mapping[str, Any]]


@dataclass(frozen=True, kw_only=True)
class TrainingEarlyStop(TypedEvent):
    """The best evaluation is so long ago that the run ends.

    Args:
        step: the step after which it ends.
        run_id: the run.
        metric: the metric by which evaluations are compared.
        best_step: the step of the best one.
        best_value: its value.
    """

    name = "training.early_stop"
    step: int
    run_id: str
    metric: str
    best_step: int
    best_value: float


@dataclass(frozen=True, kw_only=True)
class TrainingCheckpoint(TypedEvent):
    """A span: a checkpoint is saved.

    Args:
        step: the step after which it is saved.
        run_id: the run, if the workflow has runs.
    """

    name = "training.checkpoint"
    step: int
    run_id: str | None = _absent()


@dataclass(frozen=True, kw_only=True)
class TrainingReference(TypedEvent):
    """How far a reference is computed before the first step, a few times a second at most, and at
    its end.

    Args:
        purpose: what the pairs are for: "train" or "test".
        pairs: pairs that are computed so far.
        total: how many there are.
    """

    name = "training.reference"
    purpose: str
    pairs: int
    total: int


@dataclass(frozen=True, kw_only=True)
class TrainingEpoch(TypedEvent):
    """A pass over the data begins.

    Args:
        epoch: its number, from 0.
        run_id: the run, if the workflow has runs.
    """

    name = "training.epoch"
    epoch: int
    run_id: str | None = _absent()


KINDS = {kind.name: kind for kind in TypedEvent.__subclasses__()}
"""The kinds by the names of their events."""


def typed(event: Event) -> TypedEvent | None:
    """Return an event as its kind; None if it is of no kind here, or lacks an attribute.

    Attributes that the kind does not declare are left out. The types of values are not checked.
    """
    kind: Any = KINDS.get(event.name)
    if kind is None:
        return None
    fields = dataclasses.fields(kind)
    if any(each.default is MISSING and each.name not in event.attributes for each in fields):
        return None
    known = {f.name: event.attributes[f.name] for f in fields if f.name in event.attributes}
    return kind(**known)  # type: ignore[no-any-return]
