"""How the SQL metrics store says what is wrong, and that what it keeps is on the disk."""

from __future__ import annotations

import os
import socket
import sqlite3
import subprocess
import sys
import uuid
from contextlib import closing
from pathlib import Path
from typing import Any

import crucible_adapter_sql.metrics_store as sql
import psycopg
import pytest
from crucible_kitchen import (
    AdapterError,
    ConfigurationError,
    InvalidInput,
    Kitchen,
    MetricsStore,
    NotFound,
    Unauthorized,
    Unavailable,
)
from restrictions import files_of_at_most, let_others_reach, not_root


def opened(url: str, **options: Any) -> Kitchen:
    return Kitchen(adapters={"metrics_store": {"use": sql, "url": url, "timeout": 2, **options}})


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "metrics.db"


def settings_of(store: MetricsStore, *names: str) -> list[Any]:
    """What the adapter's own connection is set to."""
    assert isinstance(store.options, sql.Options)
    server = sql._database(store.options)._server
    with server.reading() as connection:
        return [connection.exec_driver_sql(name).scalar() for name in names]


# --- options ---


@pytest.mark.parametrize(
    ("url", "named"),
    [
        ("mysql://root:hush@host/db", "'mysql' is not supported"),
        ("postgresql+psycopg2://u:hush@host/db", "'postgresql\\+psycopg2' is not supported"),
        ("metrics-hush.db", "not an address"),
    ],
)
def test_another_database_is_refused_before_any_call_and_the_two_are_named(
    url: str, named: str
) -> None:
    with opened(url) as kitchen, pytest.raises(ConfigurationError, match=named) as caught:
        _ = kitchen.metrics_store
    assert "sqlite:///" in str(caught.value)
    assert "postgresql://" in str(caught.value)
    assert "hush" not in str(caught.value)


def test_psycopg_that_is_missing_is_named_with_the_line_that_installs_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with (
        opened("postgresql://host/db") as kitchen,
        pytest.raises(InvalidInput, match=r'pip install "crucible-adapter-sql\[postgresql\]"'),
    ):
        kitchen.metrics_store.read("run")


def test_importing_the_adapter_does_not_import_sqlalchemy() -> None:
    program = "import crucible_adapter_sql.metrics_store, sys; print('sqlalchemy' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    assert found.stdout.strip() == b"False"


@pytest.mark.parametrize("scheme", ["postgres", "postgresql", "postgresql+psycopg"])
def test_every_spelling_of_postgresql_is_psycopg(server: Any, scheme: str) -> None:
    with opened(server.url.replace("postgresql", scheme), table="spelling") as kitchen:
        kitchen.metrics_store.record("run", scheme, 1.0, step=0)
        assert scheme in [entry.metric for entry in kitchen.metrics_store.read("run")]


def test_a_database_in_memory_serves_every_thread_until_it_is_closed() -> None:
    from concurrent.futures import ThreadPoolExecutor

    with opened("sqlite://") as kitchen, ThreadPoolExecutor(8) as pool:
        store = kitchen.metrics_store
        list(pool.map(lambda step: store.record("run", "nll", step, step), range(100)))
        assert sorted(entry.value for entry in store.read("run")) == [*range(100)]
        store.ping()


# --- where nothing can be written ---


def test_a_server_that_is_not_there_is_unavailable_and_keeps_the_secret() -> None:
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port = unused.getsockname()[1]
    with opened(f"postgresql://user:hush@127.0.0.1:{port}/db") as kitchen:
        for call in (
            lambda: kitchen.metrics_store.record("run", "nll", 1.0),
            kitchen.metrics_store.runs,
            kitchen.metrics_store.ping,
        ):
            with pytest.raises(Unavailable, match=f"127.0.0.1:{port}/db") as caught:
                call()
            assert caught.value.retryable
            assert "hush" not in str(caught.value)


def test_a_server_that_accepts_and_says_nothing_is_unavailable_after_the_timeout() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        with (
            opened(f"postgresql://user:hush@127.0.0.1:{port}/db") as kitchen,
            pytest.raises(Unavailable, match="timeout"),
        ):
            kitchen.metrics_store.ping()


def test_a_wrong_password_is_unauthorized(server: Any) -> None:
    with opened(server.url.replace(server.password, "wrong-hush")) as kitchen:
        for call in (
            kitchen.metrics_store.ping,
            lambda: kitchen.metrics_store.record("run", "nll", 1.0),
        ):
            with pytest.raises(Unauthorized, match="password authentication failed") as caught:
                call()
            assert "hush" not in str(caught.value)


def test_a_missing_database_is_not_found(server: Any) -> None:
    with (
        opened(server.url.replace("/postgres", "/nowhere")) as kitchen,
        pytest.raises(NotFound, match="nowhere"),
    ):
        kitchen.metrics_store.ping()


def test_a_user_who_may_only_read_can_read_and_a_row_is_unauthorized(server: Any) -> None:
    table, role = uuid.uuid4().hex, f"reader_{uuid.uuid4().hex}"
    with opened(server.url, table=table) as kitchen:
        kitchen.metrics_store.record("run", "nll", 1.0)
    with closing(psycopg.connect(server.url, autocommit=True)) as connection:
        connection.execute(f"CREATE ROLE {role} LOGIN PASSWORD 'hush'")
        connection.execute(f'GRANT SELECT ON "{table}" TO {role}')
    url = f"postgresql://{role}:hush@127.0.0.1:{server.port}/postgres"
    with opened(url, table=table) as kitchen:
        assert [e.value for e in kitchen.metrics_store.read("run")] == [1.0]
        with pytest.raises(Unauthorized, match="permission denied"):
            kitchen.metrics_store.record("run", "nll", 2.0)
    with (
        opened(url, table="new") as kitchen,
        pytest.raises(Unauthorized, match="permission denied"),
    ):
        kitchen.metrics_store.record("run", "nll", 2.0)


def test_a_file_that_is_not_a_database_is_refused_and_left_alone(file: Path) -> None:
    file.write_text("my thesis" * 1000)
    with opened(f"sqlite:///{file}") as kitchen:
        for call in (
            kitchen.metrics_store.ping,
            lambda: kitchen.metrics_store.record("run", "nll", 1.0),
            kitchen.metrics_store.runs,
        ):
            with pytest.raises(InvalidInput, match=r"metrics\.db: file is not a database"):
                call()
    assert file.read_text() == "my thesis" * 1000


def test_a_folder_that_may_not_be_written_is_unauthorized(tmp_path: Path) -> None:
    tmp_path.chmod(0o555)
    let_others_reach(tmp_path)
    with not_root():
        for file in (tmp_path / "metrics.db", tmp_path / "new" / "metrics.db"):
            with (
                opened(f"sqlite:///{file}") as kitchen,
                pytest.raises(Unauthorized, match=str(tmp_path)),
            ):
                kitchen.metrics_store.record("run", "nll", 1.0)
    tmp_path.chmod(0o755)


def test_a_file_below_a_file_is_refused(file: Path) -> None:
    file.touch()
    with (
        opened(f"sqlite:///{file}/metrics.db") as kitchen,
        pytest.raises(InvalidInput, match="is not a folder"),
    ):
        kitchen.metrics_store.record("run", "nll", 1.0)


def test_a_full_disk_is_unavailable_and_what_was_held_is_written_once_there_is_space(
    file: Path,
) -> None:
    with opened(f"sqlite:///{file}", max_delay=3600) as kitchen:
        store = kitchen.metrics_store
        store.record("run", "nll", 0.0)
        for step in range(500):
            store.record("run", "nll", step, step, {"filler": "x" * 1000})
        with files_of_at_most(200_000):
            with pytest.raises(Unavailable, match="disk") as caught:
                store.flush("run")
            assert caught.value.retryable
        store.flush("run")
    with closing(sqlite3.connect(file)) as connection:
        assert connection.execute("SELECT count(*) FROM crucible_metrics").fetchone() == (501,)


def test_another_programs_table_is_an_error_that_says_what_it_lacks(file: Path) -> None:
    with closing(sqlite3.connect(file)) as connection:
        connection.execute("CREATE TABLE crucible_metrics (x TEXT)")
    with (
        opened(f"sqlite:///{file}") as kitchen,
        pytest.raises(AdapterError, match=r"no such column|no column named"),
    ):
        kitchen.metrics_store.record("run", "nll", 1.0)


# --- ping ---


def test_a_ping_is_answered_and_changes_nothing(server: Any, tmp_path: Path) -> None:
    with opened(server.url, table=uuid.uuid4().hex) as kitchen:
        kitchen.metrics_store.ping()
    with opened(f"sqlite:///{tmp_path}/new/metrics.db") as kitchen:
        kitchen.metrics_store.ping()
        assert list(tmp_path.iterdir()) == []
        kitchen.metrics_store.record("run", "nll", 1.0)
        kitchen.metrics_store.ping()
        assert len(kitchen.metrics_store.read("run")) == 1


def test_a_ping_to_a_place_that_may_not_be_written_is_unauthorized(tmp_path: Path) -> None:
    tmp_path.chmod(0o555)
    let_others_reach(tmp_path)
    with (
        not_root(),
        opened(f"sqlite:///{tmp_path}/new/metrics.db") as kitchen,
        pytest.raises(Unauthorized, match="Permission denied"),
    ):
        kitchen.metrics_store.ping()
    tmp_path.chmod(0o755)


# --- durability ---


def test_a_commit_to_sqlite_waits_for_the_disk(file: Path) -> None:
    with opened(f"sqlite:///{file}", timeout=7) as kitchen:
        kitchen.metrics_store.record("run", "nll", 1.0)
        names = ("PRAGMA synchronous", "PRAGMA journal_mode", "PRAGMA busy_timeout")
        assert settings_of(kitchen.metrics_store, *names) == [2, "wal", 7000]


@pytest.mark.parametrize(("of_role", "used"), [("off", "on"), ("on", "on"), ("local", "local")])
def test_a_commit_to_postgresql_waits_for_the_disk_whatever_the_role_is_set_to(
    server: Any, of_role: str, used: str
) -> None:
    role = f"writer_{uuid.uuid4().hex}"
    with closing(psycopg.connect(server.url, autocommit=True)) as connection:
        connection.execute(f"CREATE ROLE {role} LOGIN PASSWORD 'hush'")
        connection.execute(f"ALTER ROLE {role} SET synchronous_commit = {of_role}")
    url = f"postgresql://{role}:hush@127.0.0.1:{server.port}/postgres"
    with opened(url, timeout=7) as kitchen:
        kitchen.metrics_store.runs()  # whose transaction is rolled back
        names = ("SHOW synchronous_commit", "SHOW lock_timeout")
        assert settings_of(kitchen.metrics_store, *names) == [used, "7s"]


def test_the_first_use_syncs_every_new_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[str] = []
    fsync = os.fsync

    def watched(fd: int) -> None:
        synced.append(os.readlink(f"/proc/self/fd/{fd}"))
        fsync(fd)

    monkeypatch.setattr(os, "fsync", watched)
    with opened(f"sqlite:///{tmp_path}/a/b/metrics.db") as kitchen:
        kitchen.metrics_store.record("run", "nll", 1.0)
    assert set(synced) == {str(tmp_path), str(tmp_path / "a")}
