"""What a run shows while it works: lines about what happens, and a bar of its steps."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from ..events import (
    DatasetLoad,
    DatasetRender,
    DatasetRendering,
    Event,
    TrainingCheckpoint,
    TrainingEarlyStop,
    TrainingEval,
    TrainingReference,
    TrainingStep,
    WorkflowInterrupted,
    WorkflowRestart,
    WorkflowStart,
    WorkflowWaiting,
    typed,
)
from .headline import headline, in_words
from .screens import Screen

LINES = 20
"""How many lines about steps a whole run prints where there is no bar."""
SILENCE = 10.0
"""Seconds without a line, where there is no bar, after which rendering prints one."""

LEFT_OUT = {
    "too_long": "left out, too long",
    "truncated": "cut, too long",
    "nothing_left": "of these left out, nothing to train on after the cut",
    "also_in_train": "of these are also trained on",
}
"""What a run says of rows that are not trained on, or not as they are."""


class RunProgress:
    """An observer that shows one run.

    Args:
        screen: where it is shown.
        adapters: returns the bound adapters by port; see `Kitchen.describe`.
    """

    def __init__(self, screen: Screen, adapters: Callable[[], Mapping[str, Any]]) -> None:
        self.run_id: str | None = None
        """The run; None before it begins."""
        self.saved = 0
        """Steps in the last checkpoint."""
        self._screen = screen
        self._adapters = adapters
        self._last_line = time.monotonic()
        self._tokens = self._seconds = 0.0

    def __repr__(self) -> str:
        return "progress"

    def close(self) -> None:
        """Remove the bar from the live part of the screen; the last state of training stays."""
        self._screen.stop()

    def __call__(self, event: Event) -> None:
        known = typed(event)
        if isinstance(known, WorkflowRestart):
            self._restart(known)
        if event.attributes.get("error"):  # of a step, say; who started the run learns why it ended
            return
        match known:
            case WorkflowStart():
                self._start(known)
            case DatasetLoad(rows=int(rows)):
                split = f" [{known.split}]" if known.split else ""
                self._line(f"  {known.dataset}{split}: {rows:,} rows")
            case DatasetRendering(purpose=purpose, rows=rows, total=total):
                self._so_far(purpose, rows, total, "rows", "rendered")
            case TrainingReference(purpose=purpose, pairs=pairs, total=total):
                self._so_far(purpose, pairs, total, "pairs", "scored by the reference")
            case DatasetRender(rows=int(rows), sequences=int(sequences)):
                self._rendered(known, rows, sequences)
            case TrainingStep(metrics=metrics):
                self._step(known.step, known.total, metrics or {})
            case WorkflowWaiting(run_id=run_id, holder=holder, seconds=seconds):
                self._line(
                    f"the run {run_id} is held by {holder}; waiting up to {seconds:g} s to see "
                    "whether it is alive"
                )
            case WorkflowInterrupted(step=step):
                self._line(
                    f"interrupted; saving a checkpoint of step {step} (Ctrl-C again leaves without)"
                )
            case TrainingCheckpoint(step=step):
                self.saved = step
            case TrainingEarlyStop():
                self._line(
                    f"stopped early after step {known.step}: {known.metric} is best, "
                    f"{known.best_value:.4g}, after step {known.best_step}"
                )
            case TrainingEval(step=step, metrics=metrics):
                begins = f"step {step}: "
                room = self._screen.width - len(begins)
                self._line(f"{begins}{in_words(metrics or {}, room)}")

    def _start(self, start: WorkflowStart) -> None:
        self.run_id = start.run_id
        self.saved = start.resumed_at
        begins = f"continues after step {self.saved}" if self.saved else "begins"
        if start.done:
            begins = f"is done, after step {self.saved}; nothing is run again"
        self._line(f"{start.workflow} run {start.run_id} {begins}")
        for port, adapter in self._adapters().items():
            self._line(f"  {port}: {_stack(adapter)}")

    def _restart(self, restart: WorkflowRestart) -> None:
        if (restart.callback or "").endswith("start_session"):
            resumed = "starting the session again"
        elif restart.step:
            resumed = (
                f"restoring the session from its checkpoint; resuming after step {restart.step}"
            )
        else:
            resumed = "starting another session, from the beginning"
        failed = f"{restart.callback} failed ({restart.error})"
        self._line(f"{failed}; {resumed} (restart {restart.restart})")

    def _so_far(self, purpose: str, done: int, total: int | None, items: str, what: str) -> None:
        """Show how far something that comes before the steps is."""
        if self._screen.live:
            if self._seconds:  # training is shown
                return
            self._screen.bar(purpose, done, total, [f"{items} {what}"])
            if done == total:
                self._screen.stop()
        elif time.monotonic() - self._last_line >= SILENCE:
            of = "" if total is None else f" of {total:,}"
            self._line(f"    {purpose}: {done:,}{of} {items} are {what}")

    def _rendered(self, render: DatasetRender, rows: int, sequences: int) -> None:
        """Say what became of the rows, if it is not a sequence of each."""
        if not self._seconds:
            self._screen.stop()
        counts = {name: getattr(render, name) for name in LEFT_OUT}
        said = [f"{counts[name]:,} {what}" for name, what in LEFT_OUT.items() if counts[name]]
        if said or render.purpose == "test" or sequences != rows:
            made = f"{sequences:,} sequences of {rows:,} rows"
            self._line(f"    {render.purpose}: {'; '.join([made, *said])}")

    def _step(self, step: int, total: int, metrics: Mapping[str, float]) -> None:
        figures = [f"{label} {value:.4f}" for label, value in headline(metrics)]
        self._tokens += metrics.get("num_tokens", 0.0)
        self._seconds += metrics.get("time/step", 0.0) or 1e-9
        speed = self._tokens / self._seconds  # of the whole run: a step's own jumps
        if self._screen.live:
            self._screen.bar(
                "", step, total, [*figures, *([f"{speed:,.0f} tok/s"] if speed else [])]
            )
        elif step == 1 or step == total or step * LINES // total > (step - 1) * LINES // total:
            fast = [f"{speed:,.0f} tokens/s"] if speed else []
            self._line("  ".join([f"step {step}/{total}", *figures, *fast]))

    def _line(self, text: str) -> None:
        self._screen.line(text)
        self._last_line = time.monotonic()


def _stack(adapter: Mapping[str, Any]) -> str:
    """Return an adapter's name with those that it wraps in brackets, as in `retry(torch)`."""
    inner = adapter.get("inner", [])
    listed = inner if isinstance(inner, list) else [inner]
    inside = [one for one in listed if isinstance(one, Mapping) and "use" in one]
    return f"{adapter['use']}({', '.join(map(_stack, inside))})" if inside else adapter["use"]
