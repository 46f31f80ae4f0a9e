"""What it costs to be observable, and what each handler costs.

    python benchmarks/cost_of_observing.py

Two things are timed: an adapter's callback that does nothing, which is the worst case, and a whole
supervised run on noops without latency. Each is compared with the same code without any question
about observers. The ways take turns, so that other load on the machine hits all alike. Times are
seconds of the processor, all threads together.

Needs crucible-adapter-noop and the extra `otel`.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import operator
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest import mock

from crucible_kitchen import Kitchen, hookimpl
from crucible_kitchen.calls.dispatch import Call, Dispatch
from crucible_kitchen.events import UNOBSERVED, Observer, Observers, Span, TypedEvent
from crucible_kitchen.observers.console import Console
from crucible_kitchen.observers.jsonl import JsonLines
from crucible_kitchen.observers.otel import OpenTelemetry
from crucible_kitchen.workflows import run_in
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from rich.console import Console as Terminal
from rich.table import Table

import kitchen_noop


def run_without_observers(
    self: Dispatch, callback: str, arguments: Mapping[str, Any], outer: Call | None = None
) -> Any:
    """Do what `Dispatch._run` does, and ask nothing about observers."""
    left_out = self._implemented.get(callback)
    if left_out is None:
        inner = self.inner
        assert inner is not None
        call = Call(self, inner, callback, arguments, outer)
        invoke = functools.partial(self._hooks.around, opts=self._opts, call=call)
        return self._finish(callback, arguments, invoke)
    for name, default in left_out.items():
        assert arguments[name] is default
    invoke = functools.partial(getattr(self._hooks, callback), opts=self._opts, **arguments)
    return self._finish(callback, arguments, invoke)


def unobserved(self: Observers, event: str | TypedEvent, /, **attributes: Any) -> Span:
    return UNOBSERVED


def silent(self: Observers, event: str | TypedEvent, /, **attributes: Any) -> None: ...


@contextlib.contextmanager
def not_observable() -> Iterator[None]:
    with (
        mock.patch.object(Dispatch, "_run", run_without_observers),
        mock.patch.object(Observers, "start", unobserved),
        mock.patch.object(Observers, "emit", silent),
    ):
        yield


class Nowhere(SpanExporter):
    def export(self, spans: Any) -> SpanExportResult:
        return SpanExportResult.SUCCESS


def open_telemetry() -> Observer:
    provider = TracerProvider()
    provider.add_span_processor(BatchSpanProcessor(Nowhere()))
    return OpenTelemetry(provider, MeterProvider([InMemoryMetricReader()]))


def ways(folder: Path) -> dict[str, Callable[[], Observer] | None]:
    return {
        "not observable": None,
        "no observer": None,
        "one that does nothing": lambda: lambda event: None,
        "jsonl": lambda: JsonLines(folder / "trace.jsonl"),
        "otel": open_telemetry,
        "console": Console,
    }


# --- what is timed ---


def store() -> ModuleType:
    def read(path: str) -> bytes:
        return b""

    def stream(path: str, chunk_size: int) -> Iterator[bytes]:
        yield b""

    def write(path: str, data: bytes) -> None: ...

    def exists(path: str) -> bool:
        return True

    made = ModuleType("nothing")
    for callback in (read, stream, write, exists):
        setattr(made, callback.__name__, hookimpl(callback))
    return made


def call(observe: Callable[[], Observer] | None, count: int) -> float:
    """Return the seconds of one call that does nothing, measured over `count` calls."""
    with Kitchen({"blob_store": store()}) as kitchen:
        if observe is not None:
            kitchen.observe(observe())
        exists = kitchen.blob_store.exists
        exists("warm")
        started = time.process_time()
        for _ in range(count):
            exists("path")
        return (time.process_time() - started) / count


def run(observe: Callable[[], Observer] | None, steps: int) -> float:
    """Return the seconds of a supervised run, of five calls a step."""
    quick = {name: {**table, "latency_scale": 0} for name, table in kitchen_noop.ADAPTERS.items()}
    config = {"model": "any", "dataset": "rows", "batch_size": 8, "max_steps": steps}
    with Kitchen(quick) as kitchen:
        if observe is not None:
            kitchen.observe(observe())
        started = time.process_time()
        run_in(kitchen, "supervised", config)
        return time.process_time() - started


@dataclass(frozen=True)
class Timed:
    """The fastest turn, in seconds, and the median ratio to the first way's turn of the round."""

    seconds: float
    ratio: float


def in_turns(
    work: Callable[[Callable[[], Observer] | None], float], folder: Path, rounds: int
) -> dict[str, Timed]:
    found: dict[str, list[float]] = {}
    for number in range(rounds):
        order = [*ways(folder).items()]
        for name, observe in order if number % 2 else reversed(order):
            with not_observable() if name == "not observable" else contextlib.nullcontext():
                found.setdefault(name, []).append(work(observe))
    base = found["not observable"]
    return {
        name: Timed(min(turns), statistics.median(map(operator.truediv, turns, base)))
        for name, turns in ((name, found[name]) for name in ways(folder))
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="What it costs to be observable.")
    parser.add_argument("--calls", type=int, default=5_000)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=31)
    args = parser.parse_args()
    table = Table("", "a call that does nothing", "ratio", "more", "a run on noops", "ratio")
    with tempfile.TemporaryDirectory() as folder, open(os.devnull, "w") as nowhere:
        said, sys.stderr = sys.stderr, nowhere  # where the console handler writes
        try:
            few = in_turns(lambda way: call(way, args.calls), Path(folder), args.rounds)
            whole = in_turns(lambda way: run(way, args.steps), Path(folder), args.rounds)
        finally:
            sys.stderr = said
    for name, timed in few.items():
        more = timed.seconds - few["no observer"].seconds
        table.add_row(
            name,
            f"{timed.seconds * 1e6:.2f} µs",
            f"{timed.ratio:.3f}",
            "" if name.startswith("no") else f"{more * 1e6:.1f} µs",
            f"{whole[name].seconds * 1e3:.0f} ms",
            f"{whole[name].ratio:.3f}",
        )
    Terminal().print(table)


if __name__ == "__main__":
    main()
