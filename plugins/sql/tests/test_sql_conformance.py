"""The SQL metrics store keeps every promise of its port, on SQLite and on PostgreSQL."""

from __future__ import annotations

import sqlite3
import uuid
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing
from pathlib import Path
from typing import Any, Protocol

import crucible_adapter_sql.metrics_store as sql
import psycopg
import pytest
from crucible_kitchen import MetricsStore
from crucible_kitchen.testing import MetricsStoreConformance, bound

Reopen = Callable[[], AbstractContextManager[MetricsStore]]
Stored = Callable[[str], dict[tuple[str, int], float]]

# Rows are held until they are asked for.
HELD: dict[str, Any] = {"max_delay": 3600}


class Server(Protocol):
    url: str


class TestSQLite(MetricsStoreConformance):
    variant = "SQLite"

    @pytest.fixture
    def reopen(self, tmp_path: Path) -> Reopen:
        return lambda: bound("metrics_store", sql, url=f"sqlite:///{tmp_path}/m.db", **HELD)

    @pytest.fixture
    def metrics_store(self, reopen: Reopen) -> Iterator[MetricsStore]:
        with reopen() as store:
            yield store

    @pytest.fixture
    def stored(self, tmp_path: Path) -> Stored:
        def look_up(run_id: str) -> dict[tuple[str, int], float]:
            with closing(sqlite3.connect(tmp_path / "m.db")) as connection:
                rows = connection.execute(
                    "SELECT metric, step, value FROM crucible_metrics"
                    " WHERE run_id = ? AND step IS NOT NULL",
                    (run_id,),
                ).fetchall()
            assert len({row[:2] for row in rows}) == len(rows)
            return {(metric, step): value for metric, step, value in rows}

        return look_up


@pytest.mark.slow
class TestPostgreSQL(MetricsStoreConformance):
    variant = "PostgreSQL"

    @pytest.fixture
    def table(self) -> str:
        return f"metrics {uuid.uuid4().hex}"

    @pytest.fixture
    def reopen(self, server: Server, table: str) -> Reopen:
        return lambda: bound("metrics_store", sql, url=server.url, table=table, **HELD)

    @pytest.fixture
    def metrics_store(self, reopen: Reopen) -> Iterator[MetricsStore]:
        with reopen() as store:
            yield store

    @pytest.fixture
    def stored(self, server: Server, table: str) -> Stored:
        def look_up(run_id: str) -> dict[tuple[str, int], float]:
            with closing(psycopg.connect(server.url)) as connection:
                rows = connection.execute(
                    f'SELECT metric, step, value FROM "{table}"'.encode()
                    + b" WHERE run_id = %s AND step IS NOT NULL",
                    (run_id,),
                ).fetchall()
            assert len({row[:2] for row in rows}) == len(rows)
            return {(metric, step): value for metric, step, value in rows}

        return look_up
