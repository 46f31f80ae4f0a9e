"""The texts of samples are for trackers: a trace and a line hold figures alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from crucible_kitchen.events import Event, Observers, TrainingSamples, WorkflowStart, without_texts
from crucible_kitchen.observers.console import Console
from crucible_kitchen.observers.jsonl import JsonLines

SAMPLES: list[dict[str, Any]] = [
    {"prompt": "2+2=", "completion": "4", "reward": 1.0, "answer": "4"},
    {"prompt": "2+3=", "completion": "four", "reward": 0.0, "answer": "5"},
    {"prompt": "2+4=", "completion": "unrewarded", "reward": None, "answer": None},
]
EVENT = TrainingSamples(step=3, run_id="r", samples=SAMPLES)


def test_of_samples_their_number_and_mean_reward_are_left() -> None:
    event = without_texts(Event(EVENT.name, EVENT.attributes()))
    assert event.attributes == {"step": 3, "run_id": "r", "samples": 3, "reward": 0.5}


def test_samples_without_a_reward_have_no_mean() -> None:
    event = without_texts(Event(EVENT.name, {**EVENT.attributes(), "samples": SAMPLES[2:]}))
    assert event.attributes == {"step": 3, "run_id": "r", "samples": 1}


def test_another_event_stays_as_it_is() -> None:
    event = Event("training.epoch", {"epoch": 1, "run_id": "r"})
    assert without_texts(event) is event


def test_neither_a_trace_nor_a_line_has_a_text(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    observers = Observers()
    trace = JsonLines(tmp_path / "t.jsonl")
    observers.add(trace)
    observers.add(Console())
    observers.emit(EVENT)
    trace.close()
    written = (tmp_path / "t.jsonl").read_text() + capsys.readouterr().err
    assert "four" not in written
    assert "2+2=" not in written
    assert '"samples": 3' in written
    assert "samples=3 reward=0.5" in written


def test_a_line_leaves_the_settings_of_a_run_out(capsys: pytest.CaptureFixture[str]) -> None:
    observers = Observers()
    observers.add(Console())
    observers.emit(WorkflowStart(workflow="w", run_id="r", config={"model": "m"}))
    assert "model" not in capsys.readouterr().err
