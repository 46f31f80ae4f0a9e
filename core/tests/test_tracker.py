"""The base of trackers: which run an event is of, and how it ends."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from crucible_kitchen import Tracker
from crucible_kitchen.events import (
    Observers,
    TrainingEval,
    TrainingSamples,
    TrainingStep,
    WorkflowException,
    WorkflowRestart,
    WorkflowStart,
    WorkflowStop,
)
from crucible_kitchen.observers.tracker import status_of

Calls = list[tuple[Any, ...]]


class Recorded:
    """A run that keeps what it was told."""

    def __init__(self, run_id: str, calls: Calls) -> None:
        self._id, self._calls = run_id, calls

    def log(self, metrics: Mapping[str, float], step: int, *, evaluation: bool) -> None:
        self._calls.append((self._id, "eval" if evaluation else "step", step, dict(metrics)))

    def show(self, samples: Sequence[Mapping[str, Any]], step: int) -> None:
        self._calls.append((self._id, "samples", step, len(samples)))

    def rewind(self, step: int) -> None:
        self._calls.append((self._id, "rewind", step))

    def end(self, status: str) -> None:
        self._calls.append((self._id, status))


class Recording(Tracker):
    def __init__(self) -> None:
        super().__init__()
        self.calls: Calls = []

    def open(
        self, run_id: str, *, workflow: str, config: Mapping[str, Any], resumed_at: int
    ) -> Recorded:
        self.calls.append((run_id, workflow, dict(config), resumed_at))
        return Recorded(run_id, self.calls)


@pytest.fixture
def tracker() -> Recording:
    return Recording()


@pytest.fixture
def observers(tracker: Recording) -> Observers:
    made = Observers()
    made.add(tracker)
    return made


def begin(observers: Observers, run_id: str, **about: Any) -> None:
    observers.emit(WorkflowStart(workflow="w", run_id=run_id, **about))


def test_a_run_gets_what_is_of_it(observers: Observers, tracker: Recording) -> None:
    begin(observers, "a", config={"model": "m"}, resumed_at=3)
    begin(observers, "b")
    observers.emit(TrainingStep(step=4, total=9, run_id="a", metrics={"loss": 1.0}))
    observers.emit(TrainingEval(step=4, run_id="a", metrics={"test/nll": 2.0}))
    observers.emit(TrainingSamples(step=4, run_id="a", samples=[{}, {}]))
    observers.emit(TrainingStep(step=1, total=9, metrics={"loss": 3.0}))
    again = {"workflow": "w", "restart": 1, "callback": None, "error": "X"}
    observers.emit(WorkflowRestart(run_id="a", step=2, **again))  # type: ignore[arg-type]
    observers.emit(WorkflowStop(workflow="w", run_id="a"))
    observers.emit(TrainingStep(step=5, total=9, run_id="a", metrics={"loss": 1.0}))
    assert tracker.calls == [
        ("a", "w", {"model": "m"}, 3),
        ("b", "w", {}, 0),
        ("a", "step", 4, {"loss": 1.0}),
        ("a", "eval", 4, {"test/nll": 2.0}),
        ("a", "samples", 4, 2),
        ("b", "step", 1, {"loss": 3.0}),  # of a workflow that does not name its run
        ("a", "rewind", 2),
        ("a", "finished"),
    ]


def test_a_step_that_failed_has_no_metrics_and_is_not_shown(
    observers: Observers, tracker: Recording
) -> None:
    begin(observers, "a")
    step = observers.start(TrainingStep(step=1, total=2, run_id="a"))
    step.end(OSError())
    assert len(tracker.calls) == 1


def test_a_run_that_was_done_before_is_not_opened(observers: Observers, tracker: Recording) -> None:
    begin(observers, "a", done=True)
    observers.emit(WorkflowStop(workflow="w", run_id="a"))
    assert tracker.calls == []


def test_the_end_of_everything_ends_a_run_that_reports_none(
    observers: Observers, tracker: Recording
) -> None:
    for error in (None, KeyboardInterrupt, ValueError):
        try:
            with observers.run("w"):
                begin(observers, "a")
                if error is not None:
                    raise error
        except (KeyboardInterrupt, ValueError):
            pass
    ends = [call for call in tracker.calls if len(call) == 2]
    assert ends == [("a", "finished"), ("a", "interrupted"), ("a", "failed")]


def test_closing_ends_what_is_open(observers: Observers, tracker: Recording) -> None:
    begin(observers, "a")
    tracker.close()
    tracker.close()
    assert [call for call in tracker.calls if len(call) == 2] == [("a", "interrupted")]


def test_a_failure_of_the_run_is_its_end(observers: Observers, tracker: Recording) -> None:
    begin(observers, "a")
    observers.emit(WorkflowException(workflow="w", run_id="a", step=0, error="Unavailable"))
    assert tracker.calls[-1] == ("a", "failed")


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (None, "finished"),
        ("KeyboardInterrupt", "interrupted"),
        ("SystemExit", "interrupted"),
        ("OSError", "failed"),
        ("Unavailable", "failed"),
        ("open", "failed"),  # a name of a module of Python, but not of an error
    ],
)
def test_the_status_is_that_of_the_error(error: str | None, status: str) -> None:
    assert status_of(error) == status


def test_settings_become_flat() -> None:
    config = {"a": 1, "lora": {"rank": 8, "deep": {"x": True}}, "none": None, "l": [1, None]}
    assert Tracker.flat(config) == {"a": 1, "lora.rank": 8, "lora.deep.x": True, "l": "[1, null]"}
