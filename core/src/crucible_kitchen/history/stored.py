"""Runs as the stores have them: the record, the rows of metrics, the samples.

A run's record is the blob `<run_id>/run.json`. A run of which only the metrics are there, or whose
record is damaged, is shown as far as it can be.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, TypeAlias

from ..errors import (
    AdapterError,
    AdapterTimeout,
    ConfigurationError,
    NotFound,
    RateLimited,
    Unavailable,
)
from ..kitchen import Kitchen
from ..messages.durations import duration
from ..messages.spelling import did_you_mean, listed
from ..types import MetricEntry
from ..workflows import runs
from ..workflows.config import LEASE, RECORD, SAMPLES, check_run_id
from ..workflows.runs import RunRecord, ids_with
from ..workflows.runs.cleaning import lease_of

SampleRow: TypeAlias = Mapping[str, Any]
"""What is kept of a sample: `prompt`, `completion`, `reward`, `answer`, or whatever is there."""


@dataclass(frozen=True, slots=True)
class StoredRun:
    """A run as the stores have it.

    Args:
        run_id: its id.
        status: that of its record; `killed` if it says `running` and no process works on it;
            `damaged` if the record cannot be read; `no record` if only its metrics are there.
        record: its record, if that can be read.
        problem: why there is no record; "" if there is one.
    """

    run_id: str
    status: str
    record: RunRecord | None = None
    problem: str = ""

    @property
    def seconds(self) -> float | None:
        """Seconds from its first start to its end, or until now; pauses between are included."""
        if self.record is None or (began := _time(self.record.created)) is None:
            return None
        ended = _time(self.record.ended) if self.status != "running" else datetime.now(UTC)
        return None if ended is None else max((ended - began).total_seconds(), 0.0)

    @property
    def took(self) -> str:
        """The same in words; records have whole seconds."""
        if self.seconds is None:
            return ""
        return "under 1 s" if self.seconds < 1 else duration(self.seconds)


def _time(text: str | None) -> datetime | None:
    try:
        found = datetime.fromisoformat(text or "")
    except ValueError:
        return None
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def ids(kitchen: Kitchen) -> list[str]:
    """Return the ids of the runs that can be found, sorted.

    Those with a record in the blob store; where that cannot list its blobs, or is not configured,
    those of the metrics store.

    Raises:
        ConfigurationError: neither store is configured, or can list what it has.
    """
    configured = kitchen.configured
    if "blob_store" in configured and kitchen.blob_store.supports("list"):
        return sorted(ids_with(kitchen.blob_store.list("")))
    if "metrics_store" in configured and kitchen.metrics_store.supports("runs"):
        return sorted(kitchen.metrics_store.runs())
    there = _stores(kitchen)
    raise ConfigurationError(
        f"runs cannot be listed: {' and '.join(there)} cannot list what it has; name a run"
    )


def _stores(kitchen: Kitchen) -> Sequence[str]:
    """Return the ports where runs may be; an error if no adapter is configured for either."""
    there = [port for port in ("blob_store", "metrics_store") if port in kitchen.configured]
    if not there:
        raise ConfigurationError(
            "no blob_store is configured, where the records of runs are; name a crucible.toml, or "
            "write adapters.blob_store=..."
        )
    return there


def find(kitchen: Kitchen) -> list[StoredRun]:
    """Return every run that can be found, the newest first; those without a time are last.

    Raises:
        ConfigurationError: runs cannot be listed.
        AdapterError: a store is away.
    """
    found = [_stored(kitchen, run_id) for run_id in ids(kitchen)]
    began = {run.run_id: run.record and _time(run.record.created) for run in found}
    never = datetime.min.replace(tzinfo=UTC)
    return sorted(found, key=lambda run: began[run.run_id] or never, reverse=True)


def get(kitchen: Kitchen, run_id: str) -> StoredRun:
    """Return a run.

    Raises:
        ConfigurationError: there is none of this id; names the one that is spelled most like it.
            Or no store is configured, where it may be.
        AdapterError: a store is away.
    """
    _stores(kitchen)
    run = _stored(kitchen, run_id) if _can_be_an_id(run_id) else None
    if run is None or (run.record is None and not run.problem and not rows(kitchen, run_id)):
        try:
            known = ids(kitchen)
        except ConfigurationError:  # the error of before says more
            known = []
        hint = did_you_mean(run_id, known)
        if not hint and known:
            hint = f"; there is {listed(run_id, known)}"
        raise ConfigurationError(f"there is no run {run_id!r}{hint}")
    return run


def _can_be_an_id(run_id: str) -> bool:
    try:
        check_run_id(run_id)
    except ValueError:
        return False
    return True


def _stored(kitchen: Kitchen, run_id: str) -> StoredRun:
    if "blob_store" not in kitchen.configured:
        return StoredRun(run_id, "no record")
    try:
        record = runs.read(kitchen, run_id)
    except (Unavailable, AdapterTimeout, RateLimited):
        raise
    except (ConfigurationError, AdapterError) as error:
        return StoredRun(run_id, "damaged", problem=str(error))
    if record is None:
        return StoredRun(run_id, "no record")
    status = record.status
    if status == "running" and not is_worked_on(kitchen, run_id):
        status = "killed"
    return StoredRun(run_id, status, record)


def is_worked_on(kitchen: Kitchen, run_id: str) -> bool:
    """Say whether a process holds the lease on a run, or seems to."""
    try:
        lease_of(kitchen, run_id).look()
    except ConfigurationError:
        return True
    return False


def rows(kitchen: Kitchen, run_id: str) -> list[MetricEntry]:
    """Return the rows of metrics of a run; none where no metrics store is configured."""
    if "metrics_store" not in kitchen.configured:
        return []
    return kitchen.metrics_store.read(run_id)


def blobs(kitchen: Kitchen, run_id: str) -> list[str] | None:
    """Return the paths of the blobs of a run, sorted; None where they cannot be listed.

    Those of a run whose id begins with this one, such as `a/b` besides `a`, are not among them.
    """
    if "blob_store" not in kitchen.configured or not kitchen.blob_store.supports("list"):
        return None
    there = kitchen.blob_store.list(f"{run_id}/")
    others = {each for name in (RECORD, LEASE) for each in ids_with(there, name)} - {run_id}
    return sorted(p for p in there if not any(p.startswith(f"{other}/") for other in others))


def sample_paths(kitchen: Kitchen, run_id: str) -> list[str]:
    """Return the paths of the samples of a run, sorted: a file for each evaluation, and what else
    the workflow keeps there.
    """
    folder = f"{run_id}/{SAMPLES}/"
    return [path for path in blobs(kitchen, run_id) or [] if path.startswith(folder)]


def samples(kitchen: Kitchen, path: str) -> Iterator[SampleRow]:
    """Yield the samples of a file. A line that is damaged is a sample that says so."""
    try:
        content = kitchen.blob_store.read(path)
    except NotFound:  # deleted meanwhile
        return
    for number, line in enumerate(content.decode(errors="replace").split("\n"), 1):
        if not line.strip():
            continue
        try:
            found = json.loads(line)
        except (ValueError, RecursionError):
            found = None
        yield found if isinstance(found, dict) else {"damaged": f"line {number} of {path}"}


def step_of(path: str) -> int | None:
    """Return the step of the evaluation that a file of samples is of; None if it is of none."""
    stem = path.rpartition("/")[2].removesuffix(".jsonl")
    return int(stem) if stem.isdecimal() and stem.isascii() else None
