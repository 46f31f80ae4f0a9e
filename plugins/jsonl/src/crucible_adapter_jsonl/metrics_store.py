"""Keep metrics in JSON Lines files, one file a run.

Rows are appended and never rewritten; which of several rows counts is decided by the reader.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from crucible_kitchen import (
    AdapterOptions,
    InvalidInput,
    LocalPath,
    MetricEntry,
    Unauthorized,
    Unavailable,
    hookimpl,
    resource,
)

from .files import RunFiles, file_name
from .rows import decode, encode


class Options(AdapterOptions):
    path: LocalPath = Path("metrics")
    """Folder that holds one file for each run; made when it is first needed."""


@resource
def run_files(opts: Options) -> RunFiles:
    return RunFiles(opts.path)


@hookimpl
def record(
    opts: Options,
    run_id: str,
    metric: str,
    value: float,
    step: int | None,
    metadata: Mapping[str, Any] | None,
) -> None:
    _append(opts, run_id, encode(run_id, metric, value, step, metadata))


@hookimpl
def record_many(
    opts: Options,
    run_id: str,
    metrics: Mapping[str, float],
    step: int | None,
    metadata: Mapping[str, Any] | None,
) -> None:
    rows = [encode(run_id, metric, value, step, metadata) for metric, value in metrics.items()]
    if rows:
        _append(opts, run_id, b"".join(rows))


@hookimpl
def flush(opts: Options, run_id: str) -> None:
    run_files(opts).sync(run_id)


@hookimpl
def read(opts: Options, run_id: str) -> list[MetricEntry]:
    rows: dict[object, MetricEntry] = {}
    for place, entry in enumerate(_entries(opts.path / file_name(run_id))):
        # Without a step the place in the file is the key, so that nothing replaces the row. A
        # replaced row stays where the first one was: that is how dictionaries are ordered.
        key = place if entry.step is None else (entry.metric, entry.step)
        rows[key] = entry
    return list(rows.values())


@hookimpl
def runs(opts: Options) -> list[str]:
    # Every row carries its run, since the names of the files of long ids do not.
    first_rows = (next(_entries(file), None) for file in opts.path.glob("*.jsonl"))
    return sorted(row.run_id for row in first_rows if row is not None)


@hookimpl
def close(opts: Options) -> None:
    if files := run_files.pop(opts):
        files.close()


def _append(opts: Options, run_id: str, rows: bytes) -> None:
    try:
        run_files(opts).append(run_id, rows)
    except PermissionError as error:
        raise Unauthorized(
            f"may not write to {opts.path.absolute()}: {error.strerror}", no_effect=True
        ) from error
    except (FileNotFoundError, FileExistsError, NotADirectoryError) as error:
        raise InvalidInput(
            f"cannot make the folder {opts.path.absolute()} (option path): {error.strerror}"
        ) from error
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise Unavailable(
            f"cannot write to {opts.path.absolute()}: {error.strerror}", no_effect=True
        ) from error


def _entries(file: Path) -> Iterator[MetricEntry]:
    try:
        lines = file.open("rb")
    except FileNotFoundError:
        return
    with lines:
        for line in lines:
            if entry := decode(line):
                yield entry


if TYPE_CHECKING:
    from crucible_kitchen.hookspecs import MetricsStoreOptionalSpec, MetricsStoreSpec

    import crucible_adapter_jsonl.metrics_store as this_module

    _: MetricsStoreSpec[Options] = this_module
    _optional: MetricsStoreOptionalSpec[Options] = this_module
