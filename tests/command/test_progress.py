"""What a run shows while it works, on a terminal and in a pipe."""

from __future__ import annotations

import io
import re
from collections.abc import Callable

import pytest
from crucible_kitchen.events import (
    DatasetRender,
    DatasetRendering,
    Observers,
    TrainingEval,
    TrainingReference,
    TrainingStep,
    TypedEvent,
)
from crucible_kitchen.observers import progress
from crucible_kitchen.observers.headline import in_words
from crucible_kitchen.observers.screens import Terminal
from crucible_kitchen.workflows import run
from rich.console import Console

import kitchen_noop

Shown = Callable[..., str]


@pytest.fixture
def out() -> io.StringIO:
    return io.StringIO()


@pytest.fixture
def shown(out: io.StringIO) -> Shown:
    """Return what is written of some events, on a terminal of 80 columns or elsewhere."""

    def shown(*events: TypedEvent, terminal: bool) -> str:
        made = Console(file=out, force_terminal=terminal, width=80, highlight=False)
        observers = Observers()
        made_of = progress.RunProgress(Terminal(made), dict)
        observers.add(made_of)
        for event in events:
            observers.emit(event)
        made_of.close()
        assert observers.failed == []
        return out.getvalue()

    return shown


def rendering(rows: int, total: int | None = 20_000) -> DatasetRendering:
    return DatasetRendering(purpose="train", dataset="rows.jsonl", rows=rows, total=total)


def step(**metrics: float) -> TrainingStep:
    return TrainingStep(step=1, total=2, metrics=metrics)


def plain(written: str) -> str:
    """Return what a terminal shows at last."""
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", written.rpartition("\x1b[2K")[2])


def test_a_terminal_shows_a_bar_while_rows_are_rendered(shown: Shown) -> None:
    written = shown(rendering(300), rendering(12_000), terminal=True)
    assert "train" in written
    assert "12000/20000" in written
    assert "rows rendered" in written


def test_the_bar_goes_when_all_rows_are_rendered(shown: Shown, out: io.StringIO) -> None:
    end = DatasetRender(purpose="test", dataset="rows.jsonl", rows=5, sequences=5)
    written = shown(rendering(4), end, terminal=True)
    assert "rows rendered" not in plain(written)
    assert "test: 5 sequences of 5 rows" in written


def test_the_bar_of_the_steps_follows_that_of_the_rows_and_stays(shown: Shown) -> None:
    trained = step(train_mean_nll=0.5, num_tokens=3.0)
    written = plain(shown(rendering(4), trained, rendering(5), terminal=True))
    assert "loss 0.5000" in written
    assert "rows rendered" not in written


@pytest.mark.parametrize(("total", "of"), [(20_000, " of 20,000"), (None, "")])
def test_a_pipe_gets_a_line_of_rendering_after_a_silence(
    shown: Shown, monkeypatch: pytest.MonkeyPatch, total: int | None, of: str
) -> None:
    monkeypatch.setattr(progress, "SILENCE", 0.0)
    written = shown(rendering(1_500, total), terminal=False)
    assert written == f"    train: 1,500{of} rows are rendered\n"


def test_a_pipe_gets_no_line_of_rendering_that_is_quick(shown: Shown) -> None:
    assert shown(*map(rendering, range(100)), terminal=False) == ""


@pytest.mark.parametrize("terminal", [True, False])
def test_how_far_a_reference_is_shows_like_rendering_and_goes_at_its_end(
    shown: Shown, monkeypatch: pytest.MonkeyPatch, terminal: bool
) -> None:
    monkeypatch.setattr(progress, "SILENCE", 0.0)
    begun, done = (TrainingReference(purpose="test", pairs=n, total=200) for n in (80, 200))
    written = shown(begun, terminal=terminal)
    assert re.search(r"80( of |/)200", written)
    assert "scored by the reference" in written
    if terminal:
        assert "scored" not in plain(shown(begun, done, terminal=True))


# --- the figures of a step ---

LOOP = {"learning_rate": 1e-4, "progress": 0.5, "num_tokens": 90.0, "time/step": 0.5}


@pytest.mark.parametrize(
    ("metrics", "line"),
    [
        ({"train_mean_nll": 1.25}, "step 1/2  loss 1.2500  180 tokens/s\n"),
        (
            {"env/all/reward/total": 0.5, "optim/entropy": 2.0, "env/all/frac_unparsed": 0.0},
            "step 1/2  reward 0.5000  180 tokens/s\n",
        ),
        (
            {"teacher_kl": 0.25, "env/all/reward/total": 0.5},
            "step 1/2  teacher_kl 0.2500  180 tokens/s\n",
        ),
        (
            {"margin": 3.0, "accuracy": 0.75, "dpo_loss": 0.5},
            "step 1/2  loss 0.5000  accuracy 0.7500  180 tokens/s\n",
        ),
        ({"my_score": 7.0, "other": 1.0}, "step 1/2  my_score 7.0000  180 tokens/s\n"),
        ({}, "step 1/2  180 tokens/s\n"),
    ],
)
def test_a_step_is_shown_by_what_its_workflow_is_watched_by(
    shown: Shown, metrics: dict[str, float], line: str
) -> None:
    assert shown(step(**LOOP, **metrics), terminal=False) == line


def test_a_step_of_a_workflow_that_measures_nothing_is_its_number(shown: Shown) -> None:
    assert shown(step(), terminal=False) == "step 1/2\n"


def test_the_bar_shows_the_same_figures(shown: Shown) -> None:
    written = plain(shown(step(**LOOP, **{"env/all/reward/total": 0.5}), terminal=True))
    assert "1/2 reward 0.5000  180 tok/s" in written
    assert len(written.strip()) <= 80


# --- the figures of an evaluation ---

MANY = {
    "test/env/all/turns_per_episode": 1.0,
    "test/env/all/frac_truncated": 0.0625,
    "test/env/all/by_group/frac_mixed": 0.5,
    "test/env/all/reward/total": 0.9123,
    "test/env/all/reward/total/low": 0.88,
    "test/env/all/reward/total/high": 0.94,
    "test/env/all/ac_tokens_per_turn": 3.5,
}


@pytest.mark.parametrize("terminal", [True, False])
def test_an_evaluation_with_many_metrics_fits_into_a_line(shown: Shown, terminal: bool) -> None:
    [line] = shown(TrainingEval(step=20, metrics=MANY), terminal=terminal).splitlines()
    assert line == "step 20: test/env/all/reward/total 0.9123 (0.88 to 0.94), and 4 more"


def test_an_evaluation_with_few_metrics_is_shown_whole(shown: Shown) -> None:
    few = {"test/exact_match": 0.25, "test/nll": 1.5}
    written = shown(TrainingEval(step=2, metrics=few), terminal=False)
    assert written == "step 2: test/nll 1.5, test/exact_match 0.25\n"


def test_a_line_is_never_longer_than_it_may_be_and_counts_what_is_left_out() -> None:
    first = "test/env/all/reward/total 0.9123 (0.88 to 0.94)"
    for width in range(20, 260):
        written = in_words(MANY, width)
        assert written.startswith(first)
        assert len(written) <= max(width, len(f"{first}, and 4 more"))
        left = re.search(r", and (\d+) more$", written)
        assert written.count("test/") + (int(left[1]) if left else 0) == 5


# --- in Python ---


def test_run_shows_the_same_progress_on_request(capsys: pytest.CaptureFixture[str]) -> None:
    quick = {name: {**table, "latency_scale": 0} for name, table in kitchen_noop.ADAPTERS.items()}
    config = {"model": "any", "dataset": "rows", "max_steps": 2, "run_id": "r"}
    run("supervised", config, adapters=quick, progress=True)
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("supervised run r begins\n  training_client: kitchen_noop.")
    assert "\nstep 2/2  loss " in err


def test_run_shows_nothing_unless_asked(capsys: pytest.CaptureFixture[str]) -> None:
    quick = {name: {**table, "latency_scale": 0} for name, table in kitchen_noop.ADAPTERS.items()}
    run("supervised", {"model": "any", "dataset": "rows", "max_steps": 1}, adapters=quick)
    assert capsys.readouterr() == ("", "")
