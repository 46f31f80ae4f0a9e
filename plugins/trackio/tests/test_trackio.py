"""What Trackio shows of a run, as its file holds it."""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from crucible_kitchen.events import (
    Observers,
    TrainingEval,
    TrainingSamples,
    TrainingStep,
    WorkflowException,
    WorkflowStart,
    WorkflowStop,
)
from crucible_observer_trackio.observer import Trackio
from crucible_observer_trackio.options import Options

CONFIG = {"model": "tiny", "learning_rate": 0.5, "lora": {"rank": 8}}
SAMPLES = [{"prompt": "2+2=", "completion": "4", "reward": 1.0, "answer": "4"}]

Start = Callable[[], Observers]


@pytest.fixture
def project(request: pytest.FixtureRequest) -> str:
    """A project of the test's own."""
    return f"{request.node.name}"[:60].replace("[", "-").replace("]", "")


@pytest.fixture
def started(project: str) -> Iterator[Start]:
    """Return a function that starts the observer again, as another process does."""
    made: list[Trackio] = []

    def start() -> Observers:
        observers = Observers()
        made.append(Trackio(Options(project=project)))
        observers.add(made[-1])
        return observers

    yield start
    for one in made:
        one.close()


def begin(observers: Observers, resumed_at: int = 0, run_id: str = "it's a/b") -> None:
    observers.emit(
        WorkflowStart(workflow="mine", run_id=run_id, resumed_at=resumed_at, config=CONFIG)
    )


def steps(observers: Observers, first: int, last: int) -> None:
    for step in range(first, last + 1):
        observers.emit(TrainingStep(step=step, total=9, metrics={"loss": 1.0 / step}))


def evaluation(observers: Observers, step: int) -> None:
    observers.emit(TrainingEval(step=step, metrics={"test/nll": float(step)}))
    observers.emit(TrainingSamples(step=step, run_id="it's a/b", samples=SAMPLES))


def end(observers: Observers, error: str | None = None, run_id: str = "it's a/b") -> None:
    about: dict[str, Any] = {"workflow": "mine", "run_id": run_id}
    ended = WorkflowException(**about, step=0, error=error) if error else WorkflowStop(**about)
    observers.emit(ended)
    assert observers.failed == []


def rows(project: str, query: str) -> list[tuple[Any, ...]]:
    file = Path(os.environ["TRACKIO_DIR"]) / f"{project}.db"
    with sqlite3.connect(file) as database:
        return database.execute(query).fetchall()


def history(project: str, name: str) -> list[tuple[int, Any]]:
    """Return the step and the value of each row that has a metric."""
    found = rows(project, "SELECT step, metrics FROM metrics ORDER BY id")
    values = [(step, json.loads(metrics)) for step, metrics in found]
    return [(step, row[name]) for step, row in values if name in row]


def test_metrics_have_their_step_also_those_of_evaluations(started: Start, project: str) -> None:
    observers = started()
    begin(observers)
    evaluation(observers, 0)
    steps(observers, 1, 2)
    evaluation(observers, 2)
    end(observers)
    assert history(project, "loss") == [(1, 1.0), (2, 0.5)]
    assert history(project, "test/nll") == [(0, 0.0), (2, 2.0)]
    assert {*rows(project, "SELECT run_name FROM metrics")} == {("it's a/b",)}


def test_the_settings_are_the_configuration(started: Start, project: str) -> None:
    observers = started()
    begin(observers)
    steps(observers, 1, 1)
    end(observers)
    [(config,)] = rows(project, "SELECT config FROM configs")
    found = json.loads(config)
    assert {name: found[name] for name in CONFIG} == CONFIG
    assert found["workflow"] == "mine"


def test_the_samples_of_each_evaluation_are_a_table(started: Start, project: str) -> None:
    observers = started()
    begin(observers)
    evaluation(observers, 2)
    end(observers)
    [(step, table)] = history(project, "samples")
    assert step == 2
    assert table["_value"] == SAMPLES


@pytest.mark.parametrize(
    ("error", "status"),
    [(None, "finished"), ("Unavailable", "failed"), ("KeyboardInterrupt", "interrupted")],
)
def test_the_end_of_a_run_is_shown(
    started: Start, project: str, error: str | None, status: str
) -> None:
    observers = started()
    begin(observers)
    steps(observers, 1, 3)
    end(observers, error)
    [(step, report)] = history(project, "status")
    assert (step, report["_value"]) == (3, status)


def test_a_resumed_run_continues_the_same_run_without_a_row_twice(
    started: Start, project: str
) -> None:
    first = started()
    begin(first)
    steps(first, 1, 4)
    evaluation(first, 4)
    steps(first, 5, 6)
    end(first, "KeyboardInterrupt")
    second = started()  # after a checkpoint of step 3
    begin(second, resumed_at=3)
    steps(second, 4, 4)
    evaluation(second, 4)
    steps(second, 5, 7)
    evaluation(second, 7)
    end(second)
    assert [step for step, _ in history(project, "loss")] == [1, 2, 3, 4, 5, 6, 7]
    assert [step for step, _ in history(project, "test/nll")] == [4, 7]
    assert [step for step, _ in history(project, "samples")] == [4, 7]
    assert len({*rows(project, "SELECT run_id FROM metrics")}) == 1


def test_an_evaluation_that_was_missed_is_logged_when_the_run_is_resumed(
    started: Start, project: str
) -> None:
    first = started()
    begin(first)
    steps(first, 1, 4)
    end(first, "KeyboardInterrupt")
    second = started()
    begin(second, resumed_at=4)
    evaluation(second, 4)
    end(second)
    assert [step for step, _ in history(project, "test/nll")] == [4]


def test_nothing_is_written_to_standard_output(
    started: Start, capsys: pytest.CaptureFixture[str]
) -> None:
    observers = started()
    begin(observers)
    steps(observers, 1, 1)
    end(observers)
    out, err = capsys.readouterr()
    assert out == ""
    assert "trackio show" in err
