"""What a run shows while it works: a live bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from ..events import (
    DatasetLoad,
    DatasetRender,
    DatasetRendering,
    Event,
    TrainingCheckpoint,
    TrainingEval,
    TrainingStep,
    WorkflowInterrupted,
    WorkflowRestart,
    WorkflowStart,
    WorkflowWaiting,
    typed,
)
from ..kitchen import Kitchen
from ..messages.printable import text_of
from .console import Text, console, table
from .continuation import Continuation

LINES = 20
"""How many lines about steps a whole run prints where there is no terminal."""
SILENCE = 10.0
"""Seconds without a line, where there is no terminal, after which rendering prints one."""

LEFT_OUT = {
    "too_long": "left out, too long",
    "truncated": "cut, too long",
    "nothing_left": "of these left out, nothing to train on after the cut",
    "also_in_train": "of these are also trained on",
}
"""What a run says of rows that are not trained on, or not as they are."""


class Progress:
    """Observes one run, from its start to its summary."""

    def __init__(self, kitchen: Kitchen) -> None:
        self.run_id: str | None = None
        """The run; None before it begins."""
        self.saved = 0
        """Steps in the last checkpoint."""
        self._kitchen = kitchen
        self._console = console()
        self._bar: Bar | None = None
        self._bar_of: Callable[[Console], Bar] | None = None
        self._task = TaskID(0)
        self._started = self._last_line = time.monotonic()
        self._tokens = self._seconds = 0.0

    def __enter__(self) -> Progress:
        self._forget = self._kitchen.observe(self._event)
        return self

    def __exit__(self, *exception: object) -> None:
        self._forget()
        self.stop()

    def stop(self) -> None:
        """Remove the bar from the live part of the screen; the last state of training stays."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = self._bar_of = None

    @property
    def name(self) -> str:
        """What is run, in words."""
        return "the workflow" if self.run_id is None else f"the run {self.run_id}"

    def continuation(self, arguments: Sequence[str], profile: str | None) -> Continuation:
        """Return how to continue the run, which was started with these arguments."""
        return Continuation(self._kitchen, arguments, profile, self.run_id, self.saved)

    def _event(self, event: Event) -> None:
        known = typed(event)
        if isinstance(known, WorkflowRestart):
            self._restart(known)
        if event.attributes.get("error"):  # of a step, say; the command tells why the run ended
            return
        match known:
            case WorkflowStart():
                self._start(known)
            case DatasetLoad(rows=int(rows)):
                split = f" [{known.split}]" if known.split else ""
                self._line(f"  {known.dataset}{split}: {rows:,} rows")
            case DatasetRendering():
                self._rendering(known)
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
            case TrainingEval(step=step, metrics=metrics):
                shown = ", ".join(f"{k} {_number(v)}" for k, v in (metrics or {}).items())
                self._line(f"step {step}: {shown}")

    def _start(self, start: WorkflowStart) -> None:
        self.run_id = start.run_id
        self.saved = start.resumed_at
        begins = f"continues after step {self.saved}" if self.saved else "begins"
        if start.done:
            begins = f"is done, after step {self.saved}; nothing is run again"
        bound = self._kitchen.describe()
        self._line(f"{start.workflow} run {start.run_id} {begins}")
        for port in self._kitchen.configured:
            if port in bound:
                self._line(f"  {port}: {_stack(bound[port])}")

    def _restart(self, restart: WorkflowRestart) -> None:
        resumed = (
            f"restored the session from its checkpoint; resuming after step {restart.step}"
            if restart.step
            else "started another session, from the beginning"
        )
        failed = f"{restart.callback} failed ({restart.error})"
        self._line(f"{failed}; {resumed} (restart {restart.restart})")

    def _rendering(self, rendering: DatasetRendering) -> None:
        """Show how many rows are rendered so far."""
        done, total = rendering.rows, rendering.total
        if not self._console.is_terminal:
            if time.monotonic() - self._last_line >= SILENCE:
                of = "" if total is None else f" of {total:,}"
                self._line(f"    {rendering.purpose}: {done:,}{of} rows are rendered")
        elif self._bar_of is not _training_bar:
            self._update(_rendering_bar, f"    {rendering.purpose}", done, total)

    def _rendered(self, render: DatasetRender, rows: int, sequences: int) -> None:
        """Say what became of the rows, if it is not a sequence of each."""
        if self._bar_of is _rendering_bar:
            self.stop()
        counts = {name: getattr(render, name) for name in LEFT_OUT}
        said = [f"{counts[name]:,} {what}" for name, what in LEFT_OUT.items() if counts[name]]
        if said or render.purpose == "test" or sequences != rows:
            made = f"{sequences:,} sequences of {rows:,} rows"
            self._line(f"    {render.purpose}: {'; '.join([made, *said])}")

    def _step(self, step: int, total: int, metrics: Mapping[str, float]) -> None:
        loss = metrics.get("train_mean_nll", float("nan"))
        self._tokens += metrics.get("num_tokens", 0.0)
        self._seconds += metrics.get("time/step", 0.0)
        speed = self._tokens / max(self._seconds, 1e-9)  # of the whole run: a step's own jumps
        if self._console.is_terminal:
            self._update(_training_bar, "", step, total, loss=loss, speed=speed)
        elif step == 1 or step == total or step * LINES // total > (step - 1) * LINES // total:
            self._line(f"step {step}/{total}  loss {loss:.4f}  {speed:,.0f} tokens/s")

    def _update(
        self,
        bar_of: Callable[[Console], Bar],
        what: str,
        done: int,
        total: int | None,
        **fields: Any,
    ) -> None:
        """Show a bar, in place of one of another kind."""
        if self._bar_of is not bar_of:
            self.stop()
        if self._bar is None:
            self._bar, self._bar_of = bar_of(self._console), bar_of
            self._task = self._bar.add_task(what, total=total, **fields)
            self._bar.start()
        self._bar.update(self._task, description=what, completed=done, total=total, **fields)

    def _line(self, text: str) -> None:
        (self._bar.console if self._bar else self._console).print(Text(text))
        self._console.file.flush()
        self._last_line = time.monotonic()

    def result(self, result: Any) -> None:
        """Print how the run ended."""
        self.stop()
        if result is None:
            return
        fields: dict[str, Any] = {}
        if dataclasses.is_dataclass(result) and not isinstance(result, type):
            names = [field.name for field in dataclasses.fields(result)]
            fields = {name: getattr(result, name) for name in names}
        found = fields.pop("metrics", None)
        metrics = found if isinstance(found, Mapping) else {}
        rows = [(name, _number(value)) for name, value in sorted(metrics.items())]
        rows.append(("time", f"{time.monotonic() - self._started:.1f} s"))
        table(("summary", ""), rows)
        for name, value in fields.items():
            if value is not None:  # ids and paths, in one piece to be copied
                line = self._kitchen.redacted(f"{name:<12}{text_of(value)}")
                self._console.print(Text(line), soft_wrap=True)


def _training_bar(out: Console) -> Bar:
    return Bar(
        BarColumn(bar_width=None),
        MofNCompleteColumn(),
        TextColumn("loss {task.fields[loss]:.4f}"),
        TextColumn("{task.fields[speed]:,.0f} tok/s"),
        TimeRemainingColumn(),
        console=out,
        expand=True,
    )


def _rendering_bar(out: Console) -> Bar:
    return Bar(
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=None),
        MofNCompleteColumn(),
        TextColumn("rows rendered"),
        TimeRemainingColumn(),
        console=out,
        expand=True,
        transient=True,
    )


def _stack(adapter: Mapping[str, Any]) -> str:
    """Return an adapter's name with those that it wraps in brackets, as in `retry(torch)`."""
    inner = adapter.get("inner", [])
    listed = inner if isinstance(inner, list) else [inner]
    inside = [one for one in listed if isinstance(one, Mapping) and "use" in one]
    return f"{adapter['use']}({', '.join(map(_stack, inside))})" if inside else adapter["use"]


def _number(value: Any) -> str:
    if not isinstance(value, int | float):  # of a workflow of another package
        return text_of(value)
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
