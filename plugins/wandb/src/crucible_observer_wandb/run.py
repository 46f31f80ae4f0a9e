"""One run on W&B.

W&B's history takes rows in the order of its own `_step` alone, and drops others. So rows are logged
without it, and have the step of training as a metric, `step`, the axis of every chart.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import wandb

from .offline import await_end, await_name, last_values
from .options import Options

STEP, EVALUATED, SAMPLED = "step", "evaluated_step", "sampled_step"
"""Metrics of a row: its step; where it is an evaluation, or samples, that again."""

_PLAIN = re.compile(r"[\w.-]{1,64}", re.ASCII)
_EXIT_CODES = {"finished": 0, "failed": 1, "interrupted": 130}


def id_of(run_id: str) -> str:
    """Return W&B's id of a run: different for every run, and the same each time."""
    if _PLAIN.fullmatch(run_id):
        return run_id
    digest = hashlib.sha256(run_id.encode("utf-8", "surrogatepass")).hexdigest()[:12]
    return f"{re.sub(r'[^a-zA-Z0-9_.-]', '-', run_id)[:48]}-{digest}"


class WandbRun:
    """A run on W&B.

    Args:
        options: the observer's.
        run_id: the run's id.
        config: its settings.
    """

    def __init__(self, options: Options, run_id: str, config: Mapping[str, Any]) -> None:
        named = id_of(run_id)
        self._samples = options.samples
        self._offline_in = options.folder if options.mode == "offline" else None
        earlier = last_values(options.folder, named, (STEP, EVALUATED, SAMPLED))
        # Of a process that is killed, W&B's own process drops what it has not written yet.
        settings: dict[str, Any] = {"console": "off", "x_transaction_log_flush_interval": 1.0}
        if options.api_key is not None and options.mode == "online":
            settings["api_key"] = options.api_key.get_secret_value()
        if options.base_url is not None:
            settings["base_url"] = options.base_url
        options.folder.mkdir(parents=True, exist_ok=True)
        await_name(options.folder, named)
        self._run = wandb.init(
            project=options.project,
            entity=options.entity,
            dir=options.folder,
            id=named,
            name=run_id,
            config=dict(config),
            allow_val_change=True,
            group=options.group,
            tags=options.tags or None,
            mode=options.mode,
            resume="allow",
            reinit="create_new",
            settings=wandb.Settings(**settings),
        )
        self._run.define_metric(STEP, hidden=True)
        self._run.define_metric(EVALUATED, hidden=True)
        self._run.define_metric(SAMPLED, hidden=True)
        self._run.define_metric("*", step_metric=STEP)
        self._last = {
            name: max(earlier.get(name, -1), _whole(self._run.summary.get(name)))
            for name in (STEP, EVALUATED, SAMPLED)
        }

    def log(self, metrics: Mapping[str, float], step: int, *, evaluation: bool) -> None:
        self._log(metrics, step, EVALUATED if evaluation else STEP)

    def show(self, samples: Sequence[Mapping[str, Any]], step: int) -> None:
        columns = ["prompt", "completion", "reward", "answer"]
        rows = [[sample.get(name) for name in columns] for sample in samples[: self._samples]]
        if rows:
            table = wandb.Table(columns=columns, data=rows, allow_mixed_types=True)
            self._log({"samples": table}, step, SAMPLED)

    def rewind(self, step: int) -> None:
        """Steps that are taken again are not logged again: W&B forgets no row."""

    def end(self, status: Literal["finished", "failed", "interrupted"]) -> None:
        self._run.summary["status"] = status
        self._run.finish(exit_code=_EXIT_CODES[status])
        if self._offline_in is not None:
            await_end(self._offline_in, self._run.id)

    def _log(self, values: Mapping[str, Any], step: int, kind: str) -> None:
        if step > self._last[kind]:
            self._last[kind] = step
            self._run.log({**values, STEP: step, kind: step})


def _whole(value: Any) -> int:
    return int(value) if isinstance(value, int | float) else -1
