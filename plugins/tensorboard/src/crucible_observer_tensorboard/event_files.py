"""The event files of a run."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.plugins.hparams import api_pb2, metadata
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData, SessionEndInfo
from tensorboard.plugins.hparams.summary_v2 import hparams_pb
from tensorboard.plugins.text.summary_v2 import text_pb
from tensorboard.summary.writer.event_file_writer import EventFileWriter

LONGEST_CELL = 2000
"""Characters of a text in the table of samples."""


class EventFiles:
    """Writes the event files of a run, one for each time that it was started.

    Every event is written to the file at once: of a process that is killed, none is lost.

    TensorBoard reads the files of a folder as one, and drops the events from a step on where it is
    told that the program was started again at that step. So a resumed run has each row once.

    Args:
        folder: where they are.
        about: the settings of the run, flat.
        resumed_at: steps that were done before.
        samples: completions of an evaluation to show.
    """

    def __init__(
        self, folder: Path, about: Mapping[str, Any], resumed_at: int, samples: int
    ) -> None:
        begins = resumed_at == 0 or not any(folder.glob("events.out.tfevents.*"))
        self._writer = EventFileWriter(str(folder))
        self._samples = samples
        self._step = resumed_at
        self._evaluated_at = -1
        # A run without a checkpoint begins again, with the evaluation before its first step.
        self._forget_from(resumed_at + 1 if resumed_at else 0)
        if begins:
            rows = "\n".join(f"| `{name}` | {_cell(value)} |" for name, value in about.items())
            self._write(text_pb("settings", f"| setting | value |\n| --- | --- |\n{rows}"), 0)
            self._write(hparams_pb(dict(about)), 0)

    def log(self, metrics: Mapping[str, float], step: int, *, evaluation: bool) -> None:
        if evaluation:
            if step <= self._evaluated_at:  # once more, after a restart
                return
            self._evaluated_at = step
        self._step = step
        values = [Summary.Value(tag=name, simple_value=value) for name, value in metrics.items()]
        self._write(Summary(value=values), step)

    def show(self, samples: Sequence[Mapping[str, Any]], step: int) -> None:
        if not self._samples:
            return
        columns = ("prompt", "completion", "reward", "answer")
        lines = [f"| {' | '.join(columns)} |", "|" + " --- |" * len(columns)]
        lines += [
            f"| {' | '.join(_cell(sample.get(name)) for name in columns)} |"
            for sample in samples[: self._samples]
        ]
        self._write(text_pb("samples", "\n".join(lines)), step)

    def rewind(self, step: int) -> None:
        self._forget_from(step + 1)
        self._step = step
        self._evaluated_at = min(self._evaluated_at, step)

    def end(self, status: Literal["finished", "failed", "interrupted"]) -> None:
        self._write(text_pb("status", status), self._step)
        if status == "finished":  # TensorBoard keeps the first end; one that failed may go on
            ended = SessionEndInfo(status=api_pb2.STATUS_SUCCESS, end_time_secs=time.time())
            about = metadata.create_summary_metadata(HParamsPluginData(session_end_info=ended))
            value = Summary.Value(
                tag=metadata.SESSION_END_INFO_TAG, metadata=about, tensor=metadata.NULL_TENSOR
            )
            self._write(Summary(value=[value]), self._step)
        self._writer.close()

    def _forget_from(self, step: int) -> None:
        """Let readers drop what was written of this step and later ones."""
        start = SessionLog(status=SessionLog.START)
        self._writer.add_event(Event(wall_time=time.time(), step=step, session_log=start))
        self._writer.flush()

    def _write(self, summary: Summary, step: int) -> None:
        self._writer.add_event(Event(wall_time=time.time(), step=step, summary=summary))
        self._writer.flush()


def _cell(value: Any) -> str:
    """Return a value as a cell of a Markdown table, in which `<` begins no HTML."""
    text = "" if value is None else str(value)
    if len(text) > LONGEST_CELL:
        text = f"{text[:LONGEST_CELL]}..."
    for plain, escaped in (("&", "&amp;"), ("<", "&lt;"), ("|", "&#124;"), ("\n", "<br>")):
        text = text.replace(plain, escaped)
    return text
