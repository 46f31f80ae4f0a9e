"""What a run shows while it works, on a terminal and in a pipe."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator

import pytest
from crucible_kitchen import Kitchen
from crucible_kitchen.cli import progress
from crucible_kitchen.events import DatasetRender, DatasetRendering, TrainingStep, TypedEvent
from rich.console import Console

Shown = Callable[..., str]


@pytest.fixture
def out() -> io.StringIO:
    return io.StringIO()


@pytest.fixture
def shown(out: io.StringIO, monkeypatch: pytest.MonkeyPatch) -> Iterator[Shown]:
    """Return what is written of some events, on a terminal of 80 columns or elsewhere."""
    kitchen = Kitchen({})

    def shown(*events: TypedEvent, terminal: bool) -> str:
        made = Console(file=out, force_terminal=terminal, width=80, highlight=False)
        monkeypatch.setattr(progress, "console", lambda: made)
        with progress.Progress(kitchen):
            for event in events:
                kitchen.observers.emit(event)
        return out.getvalue()

    yield shown
    kitchen.close()


def rendering(rows: int, total: int | None = 20_000) -> DatasetRendering:
    return DatasetRendering(purpose="train", dataset="rows.jsonl", rows=rows, total=total)


def test_a_terminal_shows_a_bar_while_rows_are_rendered(shown: Shown) -> None:
    written = shown(rendering(300), rendering(12_000), terminal=True)
    assert "train" in written
    assert "12000/20000" in written
    assert "rows rendered" in written


def test_the_bar_goes_when_all_rows_are_rendered(shown: Shown, out: io.StringIO) -> None:
    end = DatasetRender(purpose="test", dataset="rows.jsonl", rows=5, sequences=5)
    written = shown(rendering(4), end, terminal=True)
    last = written.rpartition("\x1b[2K")[2]
    assert "rows rendered" not in last
    assert "test: 5 sequences of 5 rows" in written


def test_the_bar_of_the_steps_follows_that_of_the_rows_and_stays(shown: Shown) -> None:
    step = TrainingStep(step=1, total=2, metrics={"train_mean_nll": 0.5, "num_tokens": 3.0})
    written = shown(rendering(4), step, rendering(5), terminal=True)
    last = written.rpartition("\x1b[2K")[2]
    assert "loss 0.5000" in last
    assert "rows rendered" not in last


@pytest.mark.parametrize(("total", "of"), [(20_000, " of 20,000"), (None, "")])
def test_a_pipe_gets_a_line_of_rendering_after_a_silence(
    shown: Shown, monkeypatch: pytest.MonkeyPatch, total: int | None, of: str
) -> None:
    monkeypatch.setattr(progress, "SILENCE", 0.0)
    written = shown(rendering(1_500, total), terminal=False)
    assert written == f"    train: 1,500{of} rows are rendered\n"


def test_a_pipe_gets_no_line_of_rendering_that_is_quick(shown: Shown) -> None:
    assert shown(*map(rendering, range(100)), terminal=False) == ""
