"""One run in Trackio."""

from __future__ import annotations

import contextlib
import contextvars
import sqlite3
import sys
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import trackio
from trackio.sqlite_storage import SQLiteStorage

from .options import Options


class TrackioRun:
    """A run in Trackio.

    Args:
        options: the observer's.
        run_id: the run's id.
        config: its settings.
    """

    def __init__(self, options: Options, run_id: str, config: Mapping[str, Any]) -> None:
        self._samples = options.samples
        self._last = last_steps(options.project, run_id)
        self._step = 0
        on = None if options.system_metrics else False  # None finds out what there is
        # In a context of its own: Trackio ends the run that another caller began in this one.
        with _on_stderr():
            self._run = contextvars.copy_context().run(
                trackio.init,
                options.project,
                name=run_id,
                group=options.group,
                config=dict(config),
                resume="allow",
                embed=False,
                auto_log_gpu=on,
                auto_log_cpu=on,
            )

    def log(self, metrics: Mapping[str, float], step: int, *, evaluation: bool) -> None:
        self._log(metrics, step)

    def show(self, samples: Sequence[Mapping[str, Any]], step: int) -> None:
        columns = ["prompt", "completion", "reward", "answer"]
        rows = [[sample.get(name) for name in columns] for sample in samples[: self._samples]]
        if rows:
            self._log({"samples": trackio.Table(columns=columns, data=rows)}, step)

    def rewind(self, step: int) -> None:
        """Steps that are taken again are not logged again: Trackio forgets no row."""

    def end(self, status: Literal["finished", "failed", "interrupted"]) -> None:
        self._run.log({"status": trackio.Markdown(status)}, step=self._step)
        with _on_stderr():
            self._run.finish()

    def _log(self, values: Mapping[str, Any], step: int) -> None:
        """Log the metrics that have no value at this step or a later one."""
        new = {name: value for name, value in values.items() if step > self._last.get(name, -1)}
        if new:
            self._last |= dict.fromkeys(new, step)
            self._run.log(new, step=step)
        self._step = max(self._step, step)


def last_steps(project: str, run_id: str) -> dict[str, int]:
    """Return the last step at which each metric of a run was logged on this machine."""
    file = SQLiteStorage.get_project_db_path(project)
    if not file.exists():
        return {}
    with contextlib.closing(sqlite3.connect(file)) as database:
        found = database.execute(
            "SELECT key, MAX(step) FROM metrics, json_each(metrics.metrics) "
            "WHERE run_name = ? GROUP BY key",
            (run_id,),
        )
        return dict(found.fetchall())


def _on_stderr() -> contextlib.AbstractContextManager[Any]:
    """Let Trackio write its messages where they are no part of a result."""
    return contextlib.redirect_stdout(sys.stderr)
