"""Keep metrics in JSON Lines files, one file a run.

Rows are appended and never rewritten; the reader decides which of several rows counts.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from crucible_kitchen import (
    AdapterError,
    AdapterOptions,
    CrucibleWarning,
    InvalidInput,
    LocalPath,
    MetricEntry,
    NotFound,
    check_writable,
    explain_os_errors,
    hookimpl,
    resource,
)
from pydantic import Field

from .files import RunFiles, file_name, lines_of
from .held import HeldRows
from .rows import LONGEST, decode, encode, is_torn


class Options(AdapterOptions):
    path: LocalPath = Field(default=Path("metrics"), examples=["runs/metrics"])
    """Folder with one file for each run; created when it is first needed."""
    batch_size: int = Field(default=1000, ge=1)
    """Rows of a run that are written at a time; 1 writes each at once."""
    max_delay: float = Field(default=1.0, ge=0)
    """Seconds after a run's last write from which the next row is written at once, together with
    all that were held back, so that others can watch the run. Without a next row, `flush`, `read`,
    `close` or the normal end of the program writes them; if it is killed, they are lost."""


@resource
def _run_files(opts: Options) -> RunFiles:
    return RunFiles(opts.path)


@resource
def _held_rows(opts: Options) -> HeldRows:
    return HeldRows(_run_files(opts), opts.batch_size, opts.max_delay)


@hookimpl
def record(
    opts: Options,
    run_id: str,
    metric: str,
    value: float,
    step: int | None,
    metadata: Mapping[str, Any] | None,
) -> None:
    _take(opts, run_id, [encode(run_id, metric, value, step, metadata)])


@hookimpl
def record_many(
    opts: Options,
    run_id: str,
    metrics: Mapping[str, float],
    step: int | None,
    metadata: Mapping[str, Any] | None,
) -> None:
    _take(opts, run_id, [encode(run_id, name, metrics[name], step, metadata) for name in metrics])


def _take(opts: Options, run_id: str, rows: list[bytes]) -> None:
    if not rows:
        return
    try:
        _held_rows(opts).take(run_id, rows)
    except OSError:  # the context manager of every other call would take 2 us
        with _writing(opts):
            raise


@hookimpl
def flush(opts: Options, run_id: str) -> None:
    _write_held(opts, run_id)
    with explain_os_errors(f"cannot sync the metrics in {opts.path.absolute()}"):
        _run_files(opts).sync(run_id)


@hookimpl
def read(opts: Options, run_id: str) -> list[MetricEntry]:
    _write_held(opts, run_id)
    rows: dict[object, MetricEntry] = {}
    file = opts.path / file_name(run_id)
    damaged = 0
    with explain_os_errors(f"cannot read the metrics in {file.absolute()}"):
        for place, line in enumerate(_lines(file)):
            entry = _entry(line, run_id)
            if entry is None:
                damaged += not is_torn(line)
                continue
            # Without a step the place in the file is the key, so that nothing replaces the row. A
            # row that replaces another takes its place, which is the order of dictionaries.
            key = place if entry.step is None else (entry.metric, entry.step)
            rows[key] = entry
    if damaged:
        what = "1 line is" if damaged == 1 else f"{damaged} lines are"
        warnings.warn(
            f"{file.absolute()}: {what} not a metric of the run, and left out", CrucibleWarning, 2
        )
    return list(rows.values())


@hookimpl
def runs(opts: Options) -> list[str]:
    folder = opts.path.absolute()
    try:
        with explain_os_errors(f"cannot list the runs in {folder}"):
            names = [name for name in os.listdir(folder) if name.endswith(".jsonl")]
    except NotFound:
        return []
    return sorted(run for name in names if (run := _run_of(folder / name)) is not None)


@hookimpl
def ping(opts: Options) -> None:
    check_writable(opts.path)


@hookimpl
def close(opts: Options) -> None:
    try:
        if held := _held_rows.peek(opts):
            with _writing(opts):
                held.write_all()  # after a failure they stay, and a later `close` tries again
            _held_rows.pop(opts)
    finally:
        if files := _run_files.peek(opts):
            with explain_os_errors(f"cannot close the files in {opts.path.absolute()}"):
                files.close()


def _write_held(opts: Options, run_id: str) -> None:
    if held := _held_rows.peek(opts):
        with _writing(opts):
            held.write(run_id)


def _writing(opts: Options) -> AbstractContextManager[None]:
    where = f"cannot write metrics to the folder {opts.path.absolute()} (option path)"
    return explain_os_errors(where, no_effect=True)


def _lines(file: Path) -> Iterator[bytes]:
    with suppress(FileNotFoundError):  # a run without rows
        yield from lines_of(file, LONGEST)


def _entry(line: bytes, run_id: str | None = None) -> MetricEntry | None:
    try:
        entry = decode(line)
    except (ValueError, TypeError, KeyError, RecursionError):
        return None
    return entry if run_id is None or entry.run_id == run_id else None


def _run_of(file: Path) -> str | None:
    """Return the run to which a file belongs, or None without rows.

    Every row has its run, since the file names of long ids do not.
    """
    try:
        with explain_os_errors(f"{file} is left out of the list of runs"):
            for line in _lines(file):
                entry = _entry(line)
                if entry is not None and file_name(entry.run_id) == file.name:
                    return entry.run_id
    except InvalidInput:  # a folder, a pipe, a loop of links: not metrics
        pass
    except AdapterError as error:  # it may be a run, so the failure is reported
        warnings.warn(str(error), CrucibleWarning, 2)
    return None


if TYPE_CHECKING:
    from crucible_kitchen.hookspecs import MetricsStoreOptionalSpec, MetricsStoreSpec

    import crucible_adapter_jsonl.metrics_store as this_module

    _: MetricsStoreSpec[Options] = this_module
    _optional: MetricsStoreOptionalSpec[Options] = this_module
