"""What W&B is sent of a run, as the files of its offline mode hold it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from crucible_kitchen import ConfigurationError, Kitchen
from crucible_kitchen.events import (
    Observers,
    TrainingEval,
    TrainingSamples,
    TrainingStep,
    WorkflowException,
    WorkflowStart,
    WorkflowStop,
)
from crucible_kitchen.settings import in_code
from crucible_observer_wandb.observer import WeightsAndBiases
from crucible_observer_wandb.offline import files, last_values, records
from crucible_observer_wandb.options import Options
from crucible_observer_wandb.run import id_of
from hypothesis import given
from hypothesis import strategies as st

CONFIG = {"model": "tiny", "learning_rate": 0.5, "lora": {"rank": 8}}
SAMPLES: list[dict[str, Any]] = [
    {"prompt": "2+2=", "completion": "4", "reward": 1.0, "answer": "4"},
    {"prompt": "2+3=", "completion": "five", "reward": None, "answer": None},
]


@pytest.fixture(autouse=True)
def offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let W&B reach nothing, and find nothing of the tester's."""
    for variable in ("WANDB_API_KEY", "WANDB_PROJECT", "WANDB_ENTITY", "WANDB_MODE", "WANDB_DIR"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("WANDB_ERROR_REPORTING", "false")
    monkeypatch.setenv("WANDB_SILENT", "true")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("NETRC", str(tmp_path / "home" / "netrc"))


Start = Callable[[], Observers]


@pytest.fixture
def started(tmp_path: Path) -> Iterator[Start]:
    """Return a function that starts the observer again, as another process does."""
    made: list[WeightsAndBiases] = []

    def start() -> Observers:
        observers = Observers()
        options = Options(mode="offline", folder=tmp_path, project="p", tags=["t"])
        made.append(WeightsAndBiases(options))
        observers.add(made[-1])
        return observers

    yield start
    for one in made:
        one.close()


def begin(observers: Observers, resumed_at: int = 0, run_id: str = "r") -> None:
    observers.emit(
        WorkflowStart(workflow="mine", run_id=run_id, resumed_at=resumed_at, config=CONFIG)
    )


def steps(observers: Observers, first: int, last: int) -> None:
    for step in range(first, last + 1):
        metrics = {"loss": 1.0 / step}
        observers.emit(TrainingStep(step=step, total=9, run_id="r", metrics=metrics))


def evaluation(observers: Observers, step: int) -> None:
    observers.emit(TrainingEval(step=step, run_id="r", metrics={"test/nll": float(step)}))
    observers.emit(TrainingSamples(step=step, run_id="r", samples=SAMPLES))


def end(observers: Observers, error: str | None = None) -> None:
    about: dict[str, Any] = {"workflow": "mine", "run_id": "r"}
    ended = WorkflowException(**about, step=0, error=error) if error else WorkflowStop(**about)
    observers.emit(ended)
    assert observers.failed == []


def history(folder: Path, name: str, run_id: str = "r") -> list[tuple[int, Any]]:
    """Return the step and the value of each row that has a metric, of all starts of a run."""
    found = []
    for file in files(folder, id_of(run_id)):
        for record in records(file):
            row: dict[str, Any] = {}
            for item in record.history.item:
                *around, last = [*item.nested_key] or [item.key]
                table = row
                for part in around:
                    table = table.setdefault(part, {})
                table[last] = json.loads(item.value_json)
            if name in row:
                found.append((row["step"], row[name]))
    return found


def summary(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for file in files(folder, "r"):
        for record in records(file):
            for item in record.summary.update:
                found[item.key or "/".join(item.nested_key)] = json.loads(item.value_json)
    return found


def run_records(folder: Path, run_id: str = "r") -> list[Any]:
    return [
        record.run
        for file in files(folder, id_of(run_id))
        for record in records(file)
        if record.WhichOneof("record_type") == "run"
    ]


def test_rows_have_the_step_of_training_also_those_of_evaluations(
    started: Start, tmp_path: Path
) -> None:
    observers = started()
    begin(observers)
    evaluation(observers, 0)
    steps(observers, 1, 2)
    evaluation(observers, 2)
    steps(observers, 3, 3)
    end(observers)
    assert history(tmp_path, "loss") == [(1, 1.0), (2, 0.5), (3, pytest.approx(1 / 3))]
    assert history(tmp_path, "test/nll") == [(0, 0.0), (2, 2.0)]


def test_the_axis_of_every_metric_is_the_step(started: Start, tmp_path: Path) -> None:
    observers = started()
    begin(observers)
    end(observers)
    [file] = files(tmp_path, "r")
    metrics = [r.metric for r in records(file) if r.WhichOneof("record_type") == "metric"]
    [every] = [metric for metric in metrics if metric.glob_name == "*"]
    assert every.step_metric == "step"


def test_a_run_has_its_name_project_settings_and_tags(started: Start, tmp_path: Path) -> None:
    observers = started()
    begin(observers)
    end(observers)
    about = run_records(tmp_path)[0]
    assert (about.run_id, about.display_name, about.project, [*about.tags]) == (
        "r",
        "r",
        "p",
        ["t"],
    )
    config = {item.key: json.loads(item.value_json) for item in about.config.update}
    assert {name: config[name] for name in CONFIG} == CONFIG
    assert config["workflow"] == "mine"


def test_the_samples_of_each_evaluation_are_a_table(started: Start, tmp_path: Path) -> None:
    observers = started()
    begin(observers)
    evaluation(observers, 2)
    end(observers)
    [(step, table)] = history(tmp_path, "samples")
    assert (step, table["_type"], table["nrows"]) == (2, "table-file", 2)
    [file] = tmp_path.glob(f"wandb/offline-run-*/files/{table['path']}")
    assert json.loads(file.read_text()) == {
        "columns": ["prompt", "completion", "reward", "answer"],
        "data": [["2+2=", "4", 1.0, "4"], ["2+3=", "five", None, None]],
    }


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (None, "finished", 0),
        ("Unavailable", "failed", 1),
        ("KeyboardInterrupt", "interrupted", 130),
    ],
)
def test_the_end_of_a_run_is_shown(
    started: Start, tmp_path: Path, error: str | None, status: str, code: int
) -> None:
    observers = started()
    begin(observers)
    steps(observers, 1, 1)
    end(observers, error)
    assert summary(tmp_path)["status"] == status
    [file] = files(tmp_path, "r")
    [ended] = [r.exit for r in records(file) if r.WhichOneof("record_type") == "exit"]
    assert ended.exit_code == code


def test_a_resumed_run_continues_the_same_run_without_a_row_twice(
    started: Start, tmp_path: Path
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
    assert [step for step, _ in history(tmp_path, "loss")] == [1, 2, 3, 4, 5, 6, 7]
    assert [step for step, _ in history(tmp_path, "test/nll")] == [4, 7]
    assert [step for step, _ in history(tmp_path, "samples")] == [4, 7]
    assert {run.run_id for run in run_records(tmp_path)} == {"r"}


def test_an_evaluation_that_was_missed_is_logged_when_the_run_is_resumed(
    started: Start, tmp_path: Path
) -> None:
    first = started()
    begin(first)
    steps(first, 1, 4)
    end(first, "KeyboardInterrupt")
    second = started()
    begin(second, resumed_at=4)
    evaluation(second, 4)
    end(second)
    assert [step for step, _ in history(tmp_path, "test/nll")] == [4]


def test_a_file_that_ends_within_a_record_is_read_up_to_there(
    started: Start, tmp_path: Path
) -> None:
    observers = started()
    begin(observers)
    steps(observers, 1, 3)
    end(observers)
    [file] = files(tmp_path, "r")
    whole = file.read_bytes()
    for size in range(0, len(whole), 97):
        file.write_bytes(whole[:size])
        assert last_values(tmp_path, "r", ("step",)).get("step", 0) in range(4)


def test_long_records_are_read_across_blocks(started: Start, tmp_path: Path) -> None:
    observers = started()
    begin(observers)
    long = {f"metric/{number}/{'x' * 200}": 1.0 for number in range(300)}
    for step in range(1, 4):
        observers.emit(TrainingStep(step=step, total=9, run_id="r", metrics=long))
    end(observers)
    [file] = files(tmp_path, "r")
    assert file.stat().st_size > 3 * 2**15
    assert last_values(tmp_path, "r", ("step",)) == {"step": 3}


def test_without_a_key_an_online_run_is_refused_before_it_begins() -> None:
    with pytest.raises(ConfigurationError, match=r"^observe.wandb: there is no API key: .*offline"):
        Kitchen(settings=in_code({"observe": {"wandb": True}})).observe_as_configured()


def test_a_key_is_not_shown() -> None:
    table = {"mode": "offline", "api_key": "k" * 40, "project": ""}
    with pytest.raises(ConfigurationError) as caught:
        Kitchen(settings=in_code({"observe": {"wandb": table}})).observe_as_configured()
    assert "observe.wandb.project" in str(caught.value)
    assert "kkkk" not in str(caught.value) + repr(Options(api_key="k" * 40))


@given(st.text(min_size=1, max_size=300), st.text(min_size=1, max_size=300))
def test_ids_are_what_wandb_takes_and_differ(one: str, other: str) -> None:
    made = id_of(one)
    assert 0 < len(made) <= 64
    assert made.strip() == made
    assert not {*made} & {*":;,#?/'\\%"}
    assert (made == id_of(other)) == (one == other)
