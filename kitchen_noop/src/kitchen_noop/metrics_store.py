"""Keep metrics in memory."""

from __future__ import annotations

import copy
import threading
from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from crucible_kitchen import MetricEntry, hookimpl, resource

from .conditions import Conditions, round_trip, synthetic  # noqa: F401

_FLUSH_LATENCY = 0.001
_READ_LATENCY = 0.001
"""Seconds. Recording takes none, since most backends hold rows back until the flush."""


class Options(Conditions):
    """Only the conditions."""


@dataclass(frozen=True, slots=True)
class Rows:
    """For each run its entries, by metric and step, in the order of their first record."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    runs: dict[str, dict[Hashable, MetricEntry]] = field(default_factory=dict)


@resource
def _rows(opts: Options) -> Rows:
    return Rows()


@hookimpl
def record(
    opts: Options,
    run_id: str,
    metric: str,
    value: float,
    step: int | None,
    metadata: Mapping[str, Any] | None,
) -> None:
    record_many(opts, run_id, {metric: value}, step, metadata)


@hookimpl
def record_many(
    opts: Options,
    run_id: str,
    metrics: Mapping[str, float],
    step: int | None,
    metadata: Mapping[str, Any] | None,
) -> None:
    round_trip(opts, 0.0)
    entries = [
        MetricEntry.recorded(run_id, metric, value, step, metadata)
        for metric, value in metrics.items()
    ]
    if not entries:
        return
    store = _rows(opts)
    with store.lock:
        run = store.runs.setdefault(run_id, {})
        for entry in entries:
            # Without a step every record is a separate row.
            key = (entry.metric, object() if entry.step is None else entry.step)
            run[key] = entry


@hookimpl
def flush(opts: Options, run_id: str) -> None:
    round_trip(opts, _FLUSH_LATENCY)


@hookimpl
def read(opts: Options, run_id: str) -> list[MetricEntry]:
    round_trip(opts, _READ_LATENCY)
    store = _rows(opts)
    with store.lock:
        entries = list(store.runs.get(run_id, {}).values())
    return [replace(entry, metadata=copy.deepcopy(entry.metadata)) for entry in entries]


@hookimpl
def runs(opts: Options) -> list[str]:
    round_trip(opts, _READ_LATENCY)
    store = _rows(opts)
    with store.lock:
        return sorted(store.runs)


if TYPE_CHECKING:
    from crucible_kitchen.hookspecs import MetricsStoreOptionalSpec, MetricsStoreSpec

    import kitchen_noop.metrics_store as this_module

    _: MetricsStoreSpec[Options] = this_module
    _optional: MetricsStoreOptionalSpec[Options] = this_module
