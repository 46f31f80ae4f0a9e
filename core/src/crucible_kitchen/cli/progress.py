"""What a run shows while it trains: a live bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import shlex
import time
from collections.abc import Mapping
from types import TracebackType
from typing import Any

from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from ..events import Event
from ..kitchen import Kitchen
from ..masking import MASK, says_secret, shown
from ..printable import text_of
from .console import Text, console, table
from .interruption import signals

LINES = 20
"""How many lines about steps a whole run prints where there is no terminal."""

LEFT_OUT = {
    "too_long": "left out, too long",
    "truncated": "cut, too long",
    "nothing_left": "of these left out, nothing to train on after the cut",
    "also_in_train": "of these are trained on, too",
}
"""What a run says of rows that are not trained on, or not as they are."""


class Progress:
    """Observes one run, from its start to its summary."""

    def __init__(self, kitchen: Kitchen) -> None:
        self._kitchen = kitchen
        self._console = console()
        self._bar: Bar | None = None
        self._task: TaskID | None = None
        self._started = time.monotonic()
        self._tokens = self._seconds = 0.0
        self._run_id: str | None = None
        self._saved = 0  # steps in the last checkpoint

    def __enter__(self) -> Progress:
        self._forget = self._kitchen.observe(self._event)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._forget()
        self.stop()

    def stop(self) -> None:
        """Take the bar off the screen's live part; its last state stays."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    @property
    def name(self) -> str:
        """What is run, in words."""
        return "the workflow" if self._run_id is None else f"the run {self._run_id}"

    def _event(self, event: Event) -> None:
        about = event.attributes
        if event.name == "workflow.restart":
            goes_on = f"after step {about['step']}" if about["step"] else "from the beginning"
            self._line(
                f"{about['callback']} failed ({about['error']}); the session is set back and "
                f"goes on {goes_on} (restart {about['restart']})"
            )
        if about.get("error"):  # of a step, say; the command tells why the run ended
            return
        match event.name:
            case "workflow.start":
                self._run_id = about["run_id"]
                self._saved = about.get("resumed_at", 0)
                begins = f"continues after step {self._saved}" if self._saved else "begins"
                if about.get("done"):
                    begins = f"is done, after step {self._saved}; nothing is run again"
                bound = self._kitchen.describe()
                self._line(f"{about['workflow']} run {self._run_id} {begins}")
                for name in self._kitchen.configured:
                    if name in bound:
                        self._line(f"  {name}: {_stack(bound[name])}")
            case "dataset.load":
                split = f" [{about['split']}]" if about.get("split") else ""
                self._line(f"  {about['dataset']}{split}: {about['rows']:,} rows")
            case "dataset.render":
                self._rendered(about)
            case "training.step":
                self._step(about["step"], about["total"], about["metrics"])
            case "workflow.waiting":
                self._line(
                    f"the run {about['run_id']} is held by {about['holder']}; waiting up to "
                    f"{about['seconds']:g} s to see whether it is alive"
                )
            case "workflow.interrupted":
                self._line(
                    f"interrupted; saving a checkpoint of step {about['step']} "
                    "(Ctrl-C again leaves without)"
                )
            case "training.checkpoint":
                self._saved = about["step"]
            case "training.eval":
                figures = ", ".join(f"{k} {_figure(v)}" for k, v in about["metrics"].items())
                self._line(f"step {about['step']}: {figures}")

    def _rendered(self, about: Mapping[str, Any]) -> None:
        """Say what became of rows, where it is not a sequence of each."""
        said = [f"{about[name]:,} {what}" for name, what in LEFT_OUT.items() if about[name]]
        if said or about["purpose"] == "test" or about["sequences"] != about["rows"]:
            counts = f"{about['sequences']:,} sequences of {about['rows']:,} rows"
            self._line(f"    {about['purpose']}: {'; '.join([counts, *said])}")

    def _step(self, step: int, total: int, metrics: Mapping[str, float]) -> None:
        loss = metrics.get("train_mean_nll", float("nan"))
        self._tokens += metrics.get("num_tokens", 0.0)
        self._seconds += metrics.get("time/step", 0.0)
        speed = self._tokens / max(self._seconds, 1e-9)  # of the whole run: a step's own jumps
        if self._console.is_terminal:
            if self._bar is None:
                self._bar = Bar(
                    BarColumn(bar_width=None),
                    MofNCompleteColumn(),
                    TextColumn("loss {task.fields[loss]:.4f}"),
                    TextColumn("{task.fields[speed]:,.0f} tok/s"),
                    TimeRemainingColumn(),
                    console=self._console,
                    expand=True,
                )
                self._task = self._bar.add_task("train", total=total, loss=loss, speed=speed)
                self._bar.start()
            assert self._task is not None
            self._bar.update(self._task, completed=step, loss=loss, speed=speed)
        elif step == 1 or step == total or step * LINES // total > (step - 1) * LINES // total:
            self._line(f"step {step}/{total}  loss {loss:.4f}  {speed:,.0f} tokens/s")

    def _line(self, text: str) -> None:
        (self._bar.console if self._bar else self._console).print(Text(text))
        self._console.file.flush()

    def result(self, result: Any) -> None:
        """Print how the run ended."""
        self.stop()
        if result is None:
            return
        fields: dict[str, Any] = {}
        if dataclasses.is_dataclass(result) and not isinstance(result, type):
            names = [field.name for field in dataclasses.fields(result)]
            fields = {name: getattr(result, name) for name in names}
        metrics = fields.pop("metrics", None)
        figures = metrics if isinstance(metrics, Mapping) else {}
        rows = [(name, _figure(value)) for name, value in sorted(figures.items())]
        rows.append(("time", f"{time.monotonic() - self._started:.1f} s"))
        table(("summary", ""), rows)
        for name, value in fields.items():
            if value is not None:  # ids and paths, in one piece to be copied
                line = self._kitchen.redacted(f"{name:<12}{text_of(value)}")
                self._console.print(Text(line), soft_wrap=True)

    def interrupted(self, arguments: list[str], profile: str | None) -> str:
        """Return what to tell someone who pressed Ctrl-C."""
        if self._run_id is None:
            return "interrupted before the run began"
        if signals.done:
            return f"interrupted; {self.name} is done"
        begins = (
            f"continue after step {self._saved}"
            if self._saved
            else ("there is no checkpoint yet, so begin again")
        )
        return f"interrupted; {begins} with{self._command(arguments, profile)}"

    def failed(self, arguments: list[str], profile: str | None) -> str:
        """Return how to go on after a failure, or nothing where no checkpoint was saved."""
        if not self._saved:
            return ""
        return f"to continue after step {self._saved}:{self._command(arguments, profile)}"

    def _command(self, arguments: list[str], profile: str | None) -> str:
        """Return the command that continues the run, on lines of its own."""
        chosen = [] if profile is None else ["--profile", profile]
        kept = [a for a in arguments if not a.startswith("workflow.run_id=")]
        given = [self._shown(argument) for argument in kept]
        words = ["crucible", "run", *chosen, *given, f"workflow.run_id={self._run_id}"]
        command = f"\n\n    {shlex.join(words)}"
        if given != kept:
            command += f"\n\nand the secrets in place of {MASK}, better kept in the environment"
        return command

    def _shown(self, argument: str) -> str:
        """Return an argument without secrets, since what is printed may be kept in a log."""
        key, equals, value = argument.partition("=")
        table, _, path = key.partition(".")
        port, _, option = path.partition(".")
        unknown = table == "adapters" and port not in self._kitchen.describe()
        if unknown and (option or value[:1] in "[{"):  # nobody knows what is a secret in it
            return f"{key}={MASK}"
        if not equals:
            return self._kitchen.redacted(argument, whole=True)
        if any(map(says_secret, path.split("."))):
            return f"{key}={MASK}"
        if value[:1] in ("[", "{"):
            with contextlib.suppress(ValueError, RecursionError):
                plain = json.loads(value)
                without = shown(plain, known=self._redacted)
                return argument if without == plain else f"{key}={json.dumps(without)}"
        return f"{key}={self._redacted(value)}"

    def _redacted(self, value: str) -> str:
        return self._kitchen.redacted(value, whole=True)


def _stack(adapter: Mapping[str, Any]) -> str:
    """Return an adapter's name with those that it wraps in brackets, as in `retry(torch)`."""
    inner = adapter.get("inner", [])
    listed = inner if isinstance(inner, list) else [inner]
    inside = [one for one in listed if isinstance(one, Mapping) and "use" in one]
    return f"{adapter['use']}({', '.join(map(_stack, inside))})" if inside else adapter["use"]


def _figure(value: Any) -> str:
    if not isinstance(value, int | float):  # of a workflow that is not ours
        return text_of(value)
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
