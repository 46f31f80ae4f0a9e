"""Keep metrics in memory."""

from __future__ import annotations

import copy
import threading
from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from crucible_kitchen import MetricEntry, hookimpl, resource

from .conditions import Conditions, round_trip, synthetic  # noqa: F401

# Seconds. Records are held back until the flush, as most backends do.
FLUSH_LATENCY = 0.001
READ_LATENCY = 0.001


class Options(Conditions):
    """Nothing but the conditions."""


@dataclass(frozen=True, slots=True)
class Rows:
    """For each run its entries, by metric and step, in the order of their first record."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    runs: dict[str, dict[Hashable, MetricEntry]] = field(default_factory=dict)


@resource
def rows(opts: Options) -> Rows:
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
    store = rows(opts)
    with store.lock:
        run = store.runs.setdefault(run_id, {})
        for entry in entries:
            # Without a step every record is a row of its own.
            key = (entry.metric, object() if entry.step is None else entry.step)
            run[key] = entry


@hookimpl
def flush(opts: Options, run_id: str) -> None:
    round_trip(opts, FLUSH_LATENCY)


@hookimpl
def read(opts: Options, run_id: str) -> list[MetricEntry]:
    round_trip(opts, READ_LATENCY)
    store = rows(opts)
    with store.lock:
        entries = list(store.runs.get(run_id, {}).values())
    return [replace(entry, metadata=copy.deepcopy(entry.metadata)) for entry in entries]


@hookimpl
def runs(opts: Options) -> list[str]:
    round_trip(opts, READ_LATENCY)
    store = rows(opts)
    with store.lock:
        return sorted(store.runs)


if TYPE_CHECKING:
    from crucible_kitchen.hookspecs import MetricsStoreOptionalSpec, MetricsStoreSpec

    import kitchen_noop.metrics_store as this_module

    _: MetricsStoreSpec[Options] = this_module
    _optional: MetricsStoreOptionalSpec[Options] = this_module
