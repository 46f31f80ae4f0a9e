"""What TensorBoard shows of a run, as its own reader finds it in the event files."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from crucible_kitchen import ConfigurationError, Event, Kitchen
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
from crucible_kitchen.settings import in_code
from crucible_kitchen.workflows import run_in
from crucible_observer_tensorboard.observer import Options, TensorBoard
from tensorboard.backend.event_processing.plugin_event_accumulator import EventAccumulator
from tensorboard.util.tensor_util import make_ndarray

import kitchen_noop

CONFIG = {"model": "tiny", "learning_rate": 0.5, "lora": {"rank": 8}, "prompt": None, "b": [1, 2]}
SAMPLES = [
    {"prompt": "2+2=", "completion": "4", "reward": 1.0, "answer": "4"},
    {"prompt": "a|b\n<b>", "completion": "five", "reward": 0.0, "answer": None},
]

Emit = Callable[..., None]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "tensorboard"


@pytest.fixture
def started(folder: Path) -> Iterator[Callable[[], tuple[Observers, TensorBoard]]]:
    """Return a function that starts the observer again, as another process does."""
    made: list[TensorBoard] = []

    def start() -> tuple[Observers, TensorBoard]:
        observers = Observers()
        made.append(TensorBoard(Options(folder=folder)))
        observers.add(made[-1])
        return observers, made[-1]

    yield start
    for one in made:
        one.close()


def start(observers: Observers, resumed_at: int = 0, run_id: str = "r") -> None:
    observers.emit(
        WorkflowStart(workflow="mine", run_id=run_id, resumed_at=resumed_at, config=CONFIG)
    )


def steps(observers: Observers, first: int, last: int, run_id: str = "r") -> None:
    for step in range(first, last + 1):
        metrics = {"loss": 1.0 / step, "num_tokens": 7.0}
        observers.emit(TrainingStep(step=step, total=9, run_id=run_id, metrics=metrics))


def evaluation(observers: Observers, step: int) -> None:
    observers.emit(TrainingEval(step=step, run_id="r", metrics={"test/nll": float(step)}))


def shown(folder: Path) -> EventAccumulator:
    found = EventAccumulator(str(folder), size_guidance={"tensors": 0})
    found.Reload()
    return found


def scalars(folder: Path, name: str) -> list[tuple[int, float]]:
    found = shown(folder).Tensors(name)
    return [(each.step, make_ndarray(each.tensor_proto).item()) for each in found]


def texts(folder: Path, name: str) -> list[tuple[int, str]]:
    return [
        (each.step, each.tensor_proto.string_val[0].decode())
        for each in shown(folder).Tensors(name)
    ]


Start = Callable[[], tuple[Observers, TensorBoard]]


def test_each_metric_has_its_step(started: Start, folder: Path) -> None:
    observers, _ = started()
    start(observers)
    evaluation(observers, 0)
    steps(observers, 1, 2)
    evaluation(observers, 2)
    steps(observers, 3, 3)
    assert observers.failed == []
    assert scalars(folder / "r", "loss") == [(1, 1.0), (2, 0.5), (3, pytest.approx(1 / 3))]
    assert scalars(folder / "r", "test/nll") == [(0, 0.0), (2, 2.0)]


def test_what_is_shown_is_in_the_file_before_the_run_ends(started: Start, folder: Path) -> None:
    observers, _ = started()
    start(observers)
    steps(observers, 1, 1)
    assert scalars(folder / "r", "num_tokens") == [(1, 7.0)]


def test_the_settings_are_a_table_and_the_hyperparameters(started: Start, folder: Path) -> None:
    observers, _ = started()
    start(observers)
    [(step, table)] = texts(folder / "r", "settings")
    assert step == 0
    assert "| `model` | tiny |\n| `learning_rate` | 0.5 |\n| `lora.rank` | 8 |" in table
    assert "prompt" not in table
    about = shown(folder / "r").summary_metadata["_hparams_/session_start_info"]
    assert b"learning_rate" in about.plugin_data.content


def test_the_samples_of_an_evaluation_are_a_table(started: Start, folder: Path) -> None:
    observers, _ = started()
    start(observers)
    observers.emit(TrainingSamples(step=4, run_id="r", samples=SAMPLES))
    [(step, table)] = texts(folder / "r", "samples")
    assert step == 4
    assert table.splitlines()[2:] == [
        "| 2+2= | 4 | 1.0 | 4 |",
        "| a&#124;b<br>&lt;b> | five | 0.0 |  |",
    ]


@pytest.mark.parametrize(
    ("error", "status"),
    [(None, "finished"), ("Unavailable", "failed"), ("KeyboardInterrupt", "interrupted")],
)
def test_the_end_of_a_run_is_shown(
    started: Start, folder: Path, error: str | None, status: str
) -> None:
    observers, _ = started()
    start(observers)
    steps(observers, 1, 2)
    about: dict[str, Any] = {"workflow": "mine", "run_id": "r"}
    observers.emit(
        WorkflowException(**about, step=0, error=error) if error else WorkflowStop(**about)
    )
    assert texts(folder / "r", "status") == [(2, status)]
    ended = "_hparams_/session_end_info" in shown(folder / "r").summary_metadata
    assert ended == (status == "finished")


def test_a_resumed_run_has_each_row_once_and_the_settings_once(
    started: Start, folder: Path
) -> None:
    first, killed = started()
    start(first)
    evaluation(first, 0)
    steps(first, 1, 4)
    evaluation(first, 4)
    steps(first, 5, 6)
    second, _ = started()  # after a checkpoint of step 4
    start(second, resumed_at=4)
    steps(second, 5, 7)
    assert [step for step, _ in scalars(folder / "r", "loss")] == [1, 2, 3, 4, 5, 6, 7]
    assert scalars(folder / "r", "test/nll") == [(0, 0.0), (4, 4.0)]
    assert len(texts(folder / "r", "settings")) == 1
    killed.close()


def test_a_run_killed_before_its_first_checkpoint_begins_again(
    started: Start, folder: Path
) -> None:
    for _ in range(2):
        observers, _ = started()
        start(observers)
        evaluation(observers, 0)
        steps(observers, 1, 3)
    assert [step for step, _ in scalars(folder / "r", "loss")] == [1, 2, 3]
    assert [step for step, _ in scalars(folder / "r", "test/nll")] == [0]
    assert len(texts(folder / "r", "settings")) == 1


def test_a_session_that_is_restored_has_each_row_once(started: Start, folder: Path) -> None:
    observers, _ = started()
    start(observers)
    evaluation(observers, 0)
    steps(observers, 1, 3)
    about = {"workflow": "mine", "run_id": "r", "restart": 1, "callback": None, "error": "X"}
    observers.emit(WorkflowRestart(**about, step=0))  # type: ignore[arg-type]
    evaluation(observers, 0)
    steps(observers, 1, 4)
    assert [step for step, _ in scalars(folder / "r", "loss")] == [1, 2, 3, 4]
    assert [step for step, _ in scalars(folder / "r", "test/nll")] == [0]


def test_runs_lie_in_folders_of_their_ids(started: Start, folder: Path) -> None:
    observers, _ = started()
    for run_id in ("a/b", "c"):
        start(observers, run_id=run_id)
        steps(observers, 1, 1, run_id=run_id)
    assert scalars(folder / "a" / "b", "loss") == [(1, 1.0)]
    assert scalars(folder / "c", "loss") == [(1, 1.0)]


def test_a_run_that_is_done_gets_no_file(started: Start, folder: Path) -> None:
    observers, _ = started()
    observers.emit(WorkflowStart(workflow="mine", run_id="r", done=True, config=CONFIG))
    observers.emit(WorkflowStop(workflow="mine", run_id="r"))
    assert not folder.exists()


def test_a_folder_that_cannot_be_written_to_is_a_mistake_before_the_run(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    settings = in_code({"observe": {"tensorboard": {"folder": f"{tmp_path}/file/tensorboard"}}})
    with pytest.raises(ConfigurationError, match=r"^observe.tensorboard: .*file is a file"):
        Kitchen(settings=settings).observe_as_configured()


def test_a_workflow_is_shown_when_the_observer_is_switched_on(folder: Path) -> None:
    quick = {name: {**table, "latency_scale": 0} for name, table in kitchen_noop.ADAPTERS.items()}
    settings = in_code({"adapters": quick, "observe": {"tensorboard": {"folder": str(folder)}}})
    config = {"model": "any", "dataset": "rows", "max_steps": 3, "run_id": "r"}
    with Kitchen(settings=settings) as kitchen:
        kitchen.observe_as_configured()
        run_in(kitchen, "supervised", config)
        assert kitchen.observers.failed == []
    assert [step for step, _ in scalars(folder / "r", "train_mean_nll")] == [1, 2, 3]
    assert texts(folder / "r", "status") == [(3, "finished")]


def test_other_events_are_not_its_business(started: Start, folder: Path) -> None:
    _, observer = started()
    observer(Event("adapter.call", {"port": "x"}))
    observer(dataclasses.replace(Event("training.step", {"step": 1, "total": 2})))
    assert not folder.exists()
