"""Events as lines for people."""

from __future__ import annotations

import pytest
from crucible_kitchen import Event
from crucible_kitchen.observers.console import Console


def said(event: Event, capsys: pytest.CaptureFixture[str]) -> str:
    Console()(event)
    out, err = capsys.readouterr()
    assert out == ""
    assert err.endswith("\n")
    return err.rstrip("\n")[14:]  # after the time of day


def about(**more: object) -> dict[str, object]:
    call = {"port": "blob_store", "adapter": "acme", "callback": "read"}
    return {**call, "duration_s": 0.0123, "error": None, **more}


def test_a_call_is_a_line_of_what_and_how_long(capsys: pytest.CaptureFixture[str]) -> None:
    line = said(Event("adapter.call", about()), capsys)
    assert line.split("  ")[0] == "blob_store acme read"
    assert line.endswith("  12.3 ms")


def test_a_wrapper_is_told_apart(capsys: pytest.CaptureFixture[str]) -> None:
    line = said(Event("adapter.around", about(depth=0)), capsys)
    assert line.startswith("blob_store acme around read ")


def test_a_failure_names_the_type_of_the_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert said(Event("adapter.call", about(error="NotFound")), capsys).endswith(
        "12.3 ms  NotFound"
    )


def test_a_step_has_its_number_and_its_metrics(capsys: pytest.CaptureFixture[str]) -> None:
    metrics = {"train_mean_nll": 0.123456, "num_tokens": 9}
    attributes = {"run_id": "r", "step": 3, "total": 12, "metrics": metrics, "duration_s": 2.0}
    line = said(Event("training.step", {**attributes, "error": None}), capsys)
    assert line.startswith("training.step 3/12 ")
    assert line.endswith("2.00 s  train_mean_nll=0.1235 num_tokens=9")


def test_what_takes_no_time_has_none(capsys: pytest.CaptureFixture[str]) -> None:
    line = said(Event("training.epoch", {"run_id": "r", "epoch": 1}), capsys)
    assert line.split() == ["training.epoch", "run_id=r", "epoch=1"]


def test_an_event_is_one_line_of_text_whatever_is_in_it(capsys: pytest.CaptureFixture[str]) -> None:
    line = said(Event("training.epoch", {"run_id": "a\nb\x1b[2J[red]", "epoch": 1}), capsys)
    assert line.split() == ["training.epoch", r"run_id=a\nb\x1b[2J[red]", "epoch=1"]
