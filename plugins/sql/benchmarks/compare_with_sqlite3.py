"""Rows a second, beside an `executemany` of the standard library written by hand.

    python plugins/sql/benchmarks/compare_with_sqlite3.py [rows] [postgresql://...]

Both write the same rows to the same disk in transactions of 1000 that are on the disk when they
end, in turns. What the adapter does beyond: it checks each number, stamps it, keeps its metadata,
and replaces what was recorded before.
"""

from __future__ import annotations

import sqlite3
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import crucible_adapter_sql.metrics_store as sql
from crucible_kitchen import Kitchen

T = TypeVar("T")
BATCH = 1000


def by_hand(folder: Path, rows: int) -> None:
    connection = sqlite3.connect(folder / "by_hand.db")
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("CREATE TABLE metrics (run TEXT, metric TEXT, step INTEGER, value REAL)")
    for start in range(0, rows, BATCH):
        with connection:
            connection.executemany(
                "INSERT INTO metrics VALUES (?, ?, ?, ?)",
                [("run", "nll", step, 0.5) for step in range(start, start + BATCH)],
            )
    connection.close()


def through_the_port(url: str, rows: int) -> None:
    options = {"url": url, "table": f"benchmark_{time.time_ns()}", "batch_size": BATCH}
    with Kitchen(adapters={"metrics_store": {"use": sql, **options}}) as kitchen:
        store = kitchen.metrics_store
        for step in range(rows):
            store.record("run", "nll", 0.5, step)
        store.flush("run")


def many_at_a_time(url: str, rows: int) -> None:
    with Kitchen(adapters={"metrics_store": {"use": sql, "url": url, "table": "many"}}) as kitchen:
        for step in range(rows // 10):
            metrics = {f"metric-{number}": 0.5 for number in range(10)}
            kitchen.metrics_store.record_many("run", metrics, step)


def single(url: str, rows: int) -> None:
    with Kitchen(adapters={"metrics_store": {"use": sql, "url": url, "batch_size": 1}}) as kitchen:
        for step in range(rows):
            kitchen.metrics_store.record("single", "nll", 0.5, step)


def main() -> None:
    rows = int(sys.argv[1]) if len(sys.argv) > 1 else 50_000
    found: dict[str, list[float]] = {}

    def measure(name: str, work: Callable[[T, int], None], where: T, count: int) -> None:
        started = time.perf_counter()
        work(where, count)
        found.setdefault(name, []).append(count / (time.perf_counter() - started))

    through_the_port("sqlite://", 1)  # the imports
    for _ in range(3):
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            file = f"sqlite:///{folder}/metrics.db"
            measure("sqlite3 by hand", by_hand, folder, rows)
            measure("SQLite", through_the_port, file, rows)
            measure("SQLite, record_many", many_at_a_time, file, rows)
            measure("SQLite, batch_size=1", single, file, rows // 100)
        for url in sys.argv[2:]:
            measure("PostgreSQL", through_the_port, url, rows)
    for name, rates in found.items():
        print(f"{name:22} {statistics.median(rates):10,.0f} rows/s")


if __name__ == "__main__":
    main()
