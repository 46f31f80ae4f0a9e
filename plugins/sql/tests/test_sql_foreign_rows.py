"""What stands in the table and is no metric hides none; what is no database hangs nothing."""

from __future__ import annotations

import os
import sqlite3
import time
import uuid
import warnings
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import crucible_adapter_sql.metrics_store as sql
import psycopg
import pytest
from crucible_kitchen import (
    CrucibleWarning,
    InvalidInput,
    Kitchen,
    MetricsStore,
    Unauthorized,
    Unavailable,
)
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from restrictions import files_of_at_most, let_others_reach, not_root


def opened(url: str, **options: Any) -> Kitchen:
    return Kitchen(adapters={"metrics_store": {"use": sql, "url": url, "timeout": 2, **options}})


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "metrics.db"


@pytest.fixture
def store(file: Path) -> Iterator[MetricsStore]:
    with opened(f"sqlite:///{file}") as kitchen:
        yield kitchen.metrics_store


def damage(file: Path, change: str, *values: object) -> None:
    with closing(sqlite3.connect(file)) as connection:
        connection.execute(f"UPDATE crucible_metrics SET {change} WHERE metric = 'bad'", values)
        connection.commit()


NO_TEXT = "CAST(x'ff' AS TEXT)"
NO_ROWS = [
    "value = 'abc'",
    "value = x'00ff'",
    "step = 'xyz'",
    "step = 1.5",
    "step = x'01'",
    "recorded_at = 'yesterday'",
    "recorded_at = 5",
    "recorded_at = x'ff'",
    "recorded_at = '2026-13-31 09:30:00'",
    "metadata = '{'",
    "metadata = '[1]'",
    "metadata = 'null'",
    "metadata = 5",
    "metadata = x'ff'",
    "metadata = '{\"a\":NaN}'",
    "metadata = '{\"a\":1e999}'",
    f"metadata = '{'[' * 100_000}'",
    f"metadata = '{{\"a\":{'1' * 5000}}}'",
    f"metadata = {NO_TEXT}",
    f"recorded_at = {NO_TEXT}",
    f"metric = {NO_TEXT}",
    f"value = {NO_TEXT}",
    "metric = x'ff'",
]


@pytest.mark.parametrize("change", NO_ROWS, ids=lambda change: change[:40])
def test_a_row_that_is_not_a_metric_is_left_out_and_named_with_its_database(
    store: MetricsStore, file: Path, change: str
) -> None:
    for metric in ("first", "bad", "last"):
        store.record("run", metric, 1.0, step=1)
    store.flush("run")
    damage(file, change)
    with pytest.warns(
        CrucibleWarning, match=rf"{file}, table crucible_metrics: 1 row is not a metric"
    ) as warned:
        assert [entry.metric for entry in store.read("run")] == ["first", "last"]
    assert len(warned) == 1
    assert list(store.runs()) == ["run"]
    store.record("run", "bad", 2.0, step=1)  # the damaged row is replaced, or stays
    store.flush("run")


@pytest.mark.parametrize("run_id", ["x'00'", "7", NO_TEXT, "''", "1.5"])
def test_a_run_whose_id_is_not_text_does_not_hide_others(
    store: MetricsStore, file: Path, run_id: str
) -> None:
    for run in ("good", "bad"):
        store.record(run, "bad" if run == "bad" else "nll", 1.0)
    store.flush("good")
    damage(file, f"run_id = {run_id}")
    assert {"good"} <= set(store.runs()) <= {"good", "", "7", "1.5"}  # numbers become texts
    assert len(store.read("good")) == 1


cell = (
    st.none()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats()
    | st.text(max_size=8)
    | st.binary(max_size=8)
)


@settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=60
)
@given(
    cells=st.dictionaries(
        st.sampled_from(["step", "value", "recorded_at", "metadata", "slot"]), cell, min_size=1
    )
)
def test_whatever_stands_in_a_row_the_others_are_read(
    store: MetricsStore, file: Path, cells: dict[str, Any]
) -> None:
    for metric in ("first", "bad", "last"):
        store.record("run", metric, 1.0, step=1)
    store.flush("run")
    with closing(sqlite3.connect(file)) as connection:
        for column, value in cells.items():
            try:
                connection.execute(
                    f"UPDATE crucible_metrics SET {column} = ? WHERE metric = 'bad'", [value]
                )
            except sqlite3.IntegrityError:  # a column that may not be NULL
                connection.rollback()
        connection.commit()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CrucibleWarning)
        names = [entry.metric for entry in store.read("run")]
    assert [name for name in names if name != "bad"] == ["first", "last"]
    with closing(sqlite3.connect(file)) as connection:
        connection.execute("DELETE FROM crucible_metrics")
        connection.commit()


def test_times_and_metadata_come_back_to_the_microsecond_from_both_databases(
    server: Any, file: Path
) -> None:
    for url in (f"sqlite:///{file}", server.url):
        with opened(url, table=uuid.uuid4().hex, max_delay=3600) as kitchen:
            store = kitchen.metrics_store
            given = {"split": "tést", "nested": {"a": [1, 2.5, None, "🦜"]}}
            store.record("run", "nll", 1.0, 1, given)
            [before] = store.read("run")
        with opened(url, table=store.options.table) as kitchen:  # type: ignore[attr-defined]
            [after] = kitchen.metrics_store.read("run")
        assert after == before
        assert after.metadata == given


@pytest.mark.parametrize(
    "change",
    [
        "recorded_at = 'infinity'",
        "recorded_at = '-infinity'",
        "recorded_at = '4000-01-01 BC'",
        "recorded_at = '200000-01-01'",
        "metadata = '[1]'",
        "metadata = 'null'",
        "metadata = '{\"a\": 1e999}'",
        f"metadata = '{{\"a\": {'1' * 5000}}}'",
        f"metadata = '{'[' * 2000}{']' * 2000}'",
    ],
    ids=lambda change: change[:40],
)
def test_a_row_of_postgresql_that_no_entry_holds_is_left_out(server: Any, change: str) -> None:
    table = uuid.uuid4().hex
    with opened(server.url, table=table) as kitchen:
        store = kitchen.metrics_store
        for metric in ("first", "bad", "last"):
            store.record("run", metric, 1.0, step=1)
        store.flush("run")
        with closing(psycopg.connect(server.url, autocommit=True)) as connection:
            connection.execute(f"UPDATE \"{table}\" SET {change} WHERE metric = 'bad'")
        with pytest.warns(CrucibleWarning, match=f"table {table}: 1 row is not a metric"):
            assert [entry.metric for entry in store.read("run")] == ["first", "last"]


def test_a_role_with_another_form_of_dates_reads_the_same_times(server: Any) -> None:
    table, role = uuid.uuid4().hex, f"german_{uuid.uuid4().hex}"
    with closing(psycopg.connect(server.url, autocommit=True)) as connection:
        connection.execute(f"CREATE ROLE {role} LOGIN PASSWORD 'hush' SUPERUSER")
        connection.execute(f"ALTER ROLE {role} SET datestyle = 'German'")
        connection.execute(f"ALTER ROLE {role} SET timezone = 'Asia/Kolkata'")
    with opened(server.url, table=table) as kitchen:
        kitchen.metrics_store.record("run", "nll", 1.0)
        [mine] = kitchen.metrics_store.read("run")
    url = f"postgresql://{role}:hush@127.0.0.1:{server.port}/postgres"
    with opened(url, table=table) as kitchen:
        assert kitchen.metrics_store.read("run") == [mine]


# --- places ---


def test_what_is_not_a_file_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    (tmp_path / "loop").symlink_to("loop")
    began = time.monotonic()
    for name in ("pipe", "folder", "loop"):
        with opened(f"sqlite:///{tmp_path}/{name}") as kitchen:
            store = kitchen.metrics_store
            for call in (store.ping, lambda: store.record("run", "nll", 1.0)):  # noqa: B023
                with pytest.raises(InvalidInput, match=f"{tmp_path}/{name}"):
                    call()
    assert time.monotonic() - began < 10
    assert {path.name for path in tmp_path.iterdir()} == {"pipe", "folder", "loop"}


def test_a_disk_without_space_is_unavailable_and_leaves_no_half_of_a_row(file: Path) -> None:
    with opened(f"sqlite:///{file}", max_delay=3600) as kitchen:
        store = kitchen.metrics_store
        store.record("run", "nll", 0.0, 0)
        for step in range(1, 200):
            store.record("run", "nll", step, step, {"filler": "x" * 1000})
        with files_of_at_most(100_000), pytest.raises(Unavailable, match=str(file)):
            store.flush("run")
        with opened(f"sqlite:///{file}") as other:
            assert [entry.value for entry in other.metrics_store.read("run")] == [0.0]
        store.flush("run")
        assert len(store.read("run")) == 200


def test_a_ping_writes_and_rolls_back(store: MetricsStore, file: Path, tmp_path: Path) -> None:
    store.ping()
    with files_of_at_most(0), pytest.raises(Unavailable, match=str(tmp_path)):
        store.ping()
    assert list(tmp_path.iterdir()) == []
    store.record("run", "nll", 1.0)
    store.flush("run")
    store.ping()
    assert list(store.runs()) == ["run"]
    store.close()
    store.ping()
    assert [path.name for path in tmp_path.iterdir()] == ["metrics.db"]


def test_a_ping_to_a_file_that_may_only_be_read_is_unauthorized(
    store: MetricsStore, file: Path
) -> None:
    store.record("run", "nll", 1.0)
    store.close()
    let_others_reach(file.parent)
    file.parent.chmod(0o777)
    file.chmod(0o444)
    with not_root(), pytest.raises(Unauthorized, match=str(file)):
        store.ping()


def test_a_ping_to_another_programs_table_says_what_it_lacks(file: Path) -> None:
    with closing(sqlite3.connect(file)) as connection:
        connection.execute("CREATE TABLE crucible_metrics (x TEXT)")
    with (
        opened(f"sqlite:///{file}") as kitchen,
        pytest.raises(Exception, match=r"no such column|no column named"),
    ):
        kitchen.metrics_store.ping()


def test_a_ping_to_postgresql_writes_and_leaves_nothing(server: Any) -> None:
    table = uuid.uuid4().hex
    with opened(server.url, table=table) as kitchen:
        kitchen.metrics_store.ping()
        with closing(psycopg.connect(server.url)) as connection:
            found = connection.execute("SELECT to_regclass(%s)", [f'"{table}"']).fetchone()
            assert found == (None,)
        kitchen.metrics_store.record("run", "nll", 1.0)
        kitchen.metrics_store.ping()
        assert list(kitchen.metrics_store.runs()) == ["run"]


def test_a_ping_by_a_role_that_may_only_read_is_unauthorized(server: Any) -> None:
    table, role = uuid.uuid4().hex, f"reader_{uuid.uuid4().hex}"
    with opened(server.url, table=table) as kitchen:
        kitchen.metrics_store.record("run", "nll", 1.0)
    with closing(psycopg.connect(server.url, autocommit=True)) as connection:
        connection.execute(f"CREATE ROLE {role} LOGIN PASSWORD 'hush'")
        connection.execute(f'GRANT SELECT ON "{table}" TO {role}')
    url = f"postgresql://{role}:hush@127.0.0.1:{server.port}/postgres"
    for changed in (url, f"{server.url}?options=-c%20default_transaction_read_only%3Don"):
        with opened(changed, table=table) as kitchen, pytest.raises(Unauthorized):
            kitchen.metrics_store.ping()


def test_a_ping_gives_up_within_seconds_while_the_table_is_locked(server: Any) -> None:
    table = uuid.uuid4().hex
    with opened(server.url, table=table, timeout=60) as kitchen:
        kitchen.metrics_store.record("run", "nll", 1.0)
        with closing(psycopg.connect(server.url)) as connection:
            connection.execute(f'LOCK TABLE "{table}"')
            began = time.monotonic()
            with pytest.raises(Unavailable):
                kitchen.metrics_store.ping()
            assert time.monotonic() - began < 20
