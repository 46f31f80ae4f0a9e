"""The SQL metrics store passes the conformance kit, on SQLite and on PostgreSQL."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import crucible_adapter_sql.metrics_store as sql
import psycopg
import pytest
from crucible_kitchen import MetricsStore
from crucible_kitchen.testing import LEVEL, MetricsStoreConformance, bound

Stored = Callable[[str], dict[tuple[str, int], float]]
Reopen = Callable[[], AbstractContextManager[MetricsStore]]
QUERY = 'SELECT metric, value, step FROM "crucible_metrics" WHERE run_id = '


class Server(Protocol):
    url: str


class TestSQLite(MetricsStoreConformance):
    variant = "SQLite"
    level = LEVEL

    @pytest.fixture
    def options(self, tmp_path: Path) -> dict[str, Any]:
        # Rows are held until they are asked for, which is harder than being written in between.
        return {"url": f"sqlite:///{tmp_path}/metrics.db", "max_delay": 3600}

    @pytest.fixture
    def reopen(self, options: dict[str, Any]) -> Reopen:
        return partial(bound, "metrics_store", sql, **options)

    @pytest.fixture
    def metrics_store(self, reopen: Reopen) -> Iterator[MetricsStore]:
        with reopen() as store:
            yield store

    @pytest.fixture
    def stored(self, tmp_path: Path) -> Stored:
        def stored(run_id: str) -> dict[tuple[str, int], float]:
            with closing(sqlite3.connect(tmp_path / "metrics.db")) as connection:
                rows = connection.execute(f"{QUERY}?", [run_id]).fetchall()
            return _by_step(rows)

        return stored


class TestPostgreSQL(TestSQLite):
    variant = "PostgreSQL"

    @pytest.fixture(scope="class")
    @classmethod
    def url(cls, server: Server) -> str:
        """A database of this suite's own: other tests make its tables under other roles."""
        with closing(psycopg.connect(server.url, autocommit=True)) as connection:
            if not connection.execute(
                "SELECT 1 FROM pg_database WHERE datname = 'conformance'"
            ).fetchone():
                connection.execute("CREATE DATABASE conformance")
        return f"{server.url.rpartition('/')[0]}/conformance"

    @pytest.fixture
    def options(self, url: str) -> dict[str, Any]:
        return {"url": url, "max_delay": 3600}

    @pytest.fixture
    def stored(self, url: str) -> Stored:
        def stored(run_id: str) -> dict[tuple[str, int], float]:
            with closing(psycopg.connect(url)) as connection:
                rows = connection.execute(f"{QUERY}%s", [run_id]).fetchall()
            return _by_step(rows)

        return stored


def _by_step(rows: list[Any]) -> dict[tuple[str, int], float]:
    return {(metric, step): value for metric, value, step in rows if step is not None}
