"""What a call costs through `retry(limit(noop))` when nothing goes wrong, against the noop alone.

    python plugins/compose/benchmarks/compare_dispatch.py [calls]

The two take turns, so that both see the same machine; the smallest time of each counts. An adapter
that does nothing at all shows the price of the wrappers next to that of dispatch itself.
"""

from __future__ import annotations

import functools
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

from crucible_adapter_compose import limit, retry
from crucible_kitchen import PORTS, Kitchen, hookimpl

import kitchen_noop

ROUNDS = 15


class Nothing:
    """A blob store whose callbacks do nothing."""

    @hookimpl
    def read(self, path: str) -> bytes:
        return b""

    @hookimpl
    def stream(self, path: str, chunk_size: int) -> tuple[bytes, ...]:
        return ()

    @hookimpl
    def write(self, path: str, data: bytes) -> None: ...

    @hookimpl
    def exists(self, path: str) -> bool:
        return True


def wrapped(port: str, adapter: Mapping[str, Any], **limits: Any) -> dict[str, Any]:
    limited = {"use": getattr(limit, port), "inner": adapter, **limits}
    return {"use": getattr(retry, port), "inner": limited}


def seconds(call: Callable[[], Any], calls: int) -> float:
    started = time.perf_counter()
    for _ in range(calls):
        call()
    return (time.perf_counter() - started) / calls


def compare(name: str, port: str, adapter: Mapping[str, Any], call: Any, calls: int) -> None:
    variants = {
        "alone": adapter,
        "retry": {"use": getattr(retry, port), "inner": adapter},
        "retry(limit(concurrency))": wrapped(port, adapter, concurrency=64),
        "retry(limit(both))": wrapped(port, adapter, concurrency=64, rate=1e9),
    }
    bound = {v: Kitchen({port: table}).port(PORTS[port]) for v, table in variants.items()}
    best = dict.fromkeys(variants, float("inf"))
    for _ in range(ROUNDS):
        for variant, target in bound.items():
            best[variant] = min(best[variant], seconds(functools.partial(call, target), calls))
    for variant, found in best.items():
        ratio = found / best["alone"]
        print(f"{name:32} {variant:26} {found * 1e6:7.2f} us   {ratio:5.2f} x")


def main() -> None:
    calls = int(sys.argv[1]) if len(sys.argv) > 1 else 5000
    noop: dict[str, Any] = {
        port: {**table, "latency_scale": 0} for port, table in kitchen_noop.ADAPTERS.items()
    }
    compare(
        "noop blob_store.exists", "blob_store", noop["blob_store"], lambda s: s.exists("a"), calls
    )
    flush = ("noop metrics_store.flush", "metrics_store", noop["metrics_store"])
    compare(*flush, lambda s: s.flush("run"), calls)
    compare(
        "nothing, blob_store.exists",
        "blob_store",
        {"use": Nothing()},
        lambda s: s.exists("a"),
        calls,
    )


if __name__ == "__main__":
    main()
