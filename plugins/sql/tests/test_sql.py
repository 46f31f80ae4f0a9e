"""What the SQL metrics store promises, on SQLite and on PostgreSQL."""

from __future__ import annotations

import json
import math
import sqlite3
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

import crucible_adapter_sql.metrics_store as sql
import psycopg
import pytest
from crucible_kitchen import (
    CrucibleWarning,
    InvalidInput,
    Kitchen,
    MetricsStore,
    Unavailable,
    Unsupported,
)
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule


class Server(Protocol):
    url: str


Options = dict[str, Any]


def options_of(kind: str, request: pytest.FixtureRequest, folder: Path) -> Options:
    """A database for one test; rows are held until they are asked for."""
    server: Server | None = None if kind == "sqlite" else request.getfixturevalue("server")
    return {
        "url": server.url if server else f"sqlite:///{folder}/metrics.db",
        "table": f"metrics {uuid.uuid4().hex}",
        "max_delay": 3600,
    }


@pytest.fixture(params=["sqlite", "postgresql"])
def options(request: pytest.FixtureRequest, tmp_path: Path) -> Options:
    return options_of(request.param, request, tmp_path)


def opened(options: Options, **other: Any) -> Kitchen:
    return Kitchen(adapters={"metrics_store": {"use": sql, **options, **other}})


@pytest.fixture
def store(options: Options) -> Iterator[MetricsStore]:
    with opened(options) as kitchen:
        yield kitchen.metrics_store


def connection_to(options: Options) -> AbstractContextManager[Any]:
    """A connection that goes round the adapter."""
    url = options["url"]
    if url.startswith("sqlite"):
        file = url.removeprefix("sqlite:///")
        return closing(sqlite3.connect(file, timeout=0, isolation_level=None))
    return closing(psycopg.connect(url, autocommit=True))


def in_database(options: Options, columns: str = "value") -> list[Any]:
    with connection_to(options) as connection:
        query = f'SELECT {columns} FROM "{options["table"]}" ORDER BY id'
        rows = connection.execute(query).fetchall()
    return [row[0] for row in rows] if "," not in columns else rows


@contextmanager
def another_writer_at_work(options: Options) -> Iterator[None]:
    sqlite = options["url"].startswith("sqlite")
    with connection_to(options) as connection:
        connection.execute("BEGIN IMMEDIATE" if sqlite else "BEGIN")
        if not sqlite:
            connection.execute(f'LOCK TABLE "{options["table"]}"')
        yield
        connection.execute("ROLLBACK")


def values(store: MetricsStore, run_id: str = "run") -> list[float]:
    return [entry.value for entry in store.read(run_id)]


def bits(numbers: list[float]) -> list[str]:
    return [number.hex() for number in numbers]  # tells -0.0 from 0.0, and equals NaN to NaN


# --- rows ---


def test_a_row_comes_back_with_everything_it_was_given(store: MetricsStore) -> None:
    before = datetime.now(UTC)
    store.record("run", "nll", 2.5, step=3, metadata={"lr": 1e-3, "tags": ["a", None]})
    [entry] = store.read("run")
    assert (entry.run_id, entry.metric, entry.value, entry.step) == ("run", "nll", 2.5, 3)
    assert entry.metadata == {"lr": 1e-3, "tags": ["a", None]}
    assert before <= entry.timestamp <= datetime.now(UTC)
    assert entry.timestamp.tzinfo is UTC


SPECIAL = [math.nan, math.inf, -math.inf, -0.0, 0.0, 5e-324, -2.2e-308, 1.797e308, 0.1, 2.0**53]


def test_special_numbers_come_back_as_they_went_in(store: MetricsStore) -> None:
    for step, value in enumerate(SPECIAL):
        store.record("run", "x", value, step)
    assert bits(values(store)) == bits(SPECIAL)


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_every_float_comes_back_to_the_bit(
    kind: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    with opened(options_of(kind, request, tmp_path)) as kitchen:

        @settings(max_examples=20, deadline=None)
        @given(st.lists(st.floats(), min_size=1, max_size=100))
        def comes_back(numbers: list[float]) -> None:
            run_id = uuid.uuid4().hex
            for number in numbers:
                kitchen.metrics_store.record(run_id, "x", number)
            assert bits(values(kitchen.metrics_store, run_id)) == bits(numbers)

        comes_back()


def test_what_goes_wrong_without_care_is_measured_here(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "a.db")) as connection:
        connection.execute("CREATE TABLE t (x REAL)")
        connection.executemany("INSERT INTO t VALUES (?)", [(math.nan,), (-0.0,)])
        (nan,), (zero,) = connection.execute("SELECT x FROM t").fetchall()
    assert nan is None
    assert math.copysign(1, zero) == 1


@pytest.mark.parametrize("flushed", [True, False])
def test_recording_a_step_again_replaces_its_row_in_its_place(
    store: MetricsStore, flushed: bool
) -> None:
    for step in (0, 1, 2):
        store.record("run", "nll", float(step), step=step)
    if flushed:
        store.flush("run")
    store.record("run", "nll", 10.0, step=1, metadata={"again": True})
    assert values(store) == [0.0, 10.0, 2.0]
    assert store.read("run")[1].metadata == {"again": True}


def test_the_same_step_of_another_metric_or_run_is_another_row(store: MetricsStore) -> None:
    store.record("run", "a", 1.0, step=0)
    store.record("run", "b", 2.0, step=0)
    store.record("other", "a", 3.0, step=0)
    assert values(store) == [1.0, 2.0]
    assert values(store, "other") == [3.0]


def test_without_a_step_every_call_is_a_row_of_its_own(store: MetricsStore) -> None:
    for value in (1.0, 2.0, 1.0):
        store.record("run", "nll", value)
    assert values(store) == [1.0, 2.0, 1.0]


STEPS = [5, 3, -1, 10**12, 2**63 - 1, -(2**63), 0]


def test_steps_may_come_late_and_go_backwards(store: MetricsStore) -> None:
    for step in STEPS:
        store.record("run", "nll", 0.0, step=step)
        store.flush("run")
    assert [entry.step for entry in store.read("run")] == STEPS


@pytest.mark.parametrize("step", [2**63, -(2**63) - 1, 1 << 20_000], ids=["above", "below", "huge"])
def test_a_step_beyond_64_bits_is_unsupported_and_not_taken(store: MetricsStore, step: int) -> None:
    with pytest.raises(Unsupported, match="step of 'nll'"):
        store.record("run", "nll", 0.0, step=step)
    assert store.read("run") == []


@pytest.mark.parametrize("metadata", [{"a\0b\ud800": "\0\udfff"}, {"": [{"x": 1.5}] * 100}])
def test_metadata_is_whatever_json_can_hold(store: MetricsStore, metadata: dict[str, Any]) -> None:
    store.record("run", "nll", 0.0, metadata=metadata)
    assert store.read("run")[0].metadata == metadata


@pytest.mark.parametrize("bad", [object(), {"x": math.nan}])
def test_metadata_that_is_not_json_is_refused_by_its_key(store: MetricsStore, bad: object) -> None:
    with pytest.raises(InvalidInput, match=r"metadata\['culprit'\]"):
        store.record_many("run", {"a": 1.0, "b": 2.0}, metadata={"culprit": bad})
    assert store.read("run") == []


NAMES = ["", " ", "a/b", "%s", "'; --", "ünï/日本", "🦜" * 250, "A", "a", "null"]


def test_names_are_any_text(store: MetricsStore) -> None:
    for number, name in enumerate(NAMES):
        store.record(name, name, float(number), step=0)
    assert list(store.runs()) == sorted(NAMES)
    for number, name in enumerate(NAMES):
        [entry] = store.read(name)
        assert (entry.run_id, entry.metric, entry.value) == (name, name, float(number))


@pytest.mark.parametrize("name", ["a\0b", "\ud800", "x" * 1001, "🦜" * 251])
def test_a_name_that_a_database_cannot_hold_is_refused_by_both(
    store: MetricsStore, name: str
) -> None:
    for call in (
        lambda: store.record(name, "nll", 0.0),
        lambda: store.record("run", name, 0.0),
        lambda: store.record_many("run", {"a": 1.0, name: 2.0}),
        lambda: store.read(name),
    ):
        with pytest.raises(InvalidInput, match=r"Unicode|NUL|limit is 1000"):
            call()
    assert list(store.runs()) == []


def test_an_unknown_run_has_no_rows_and_asking_makes_nothing(
    store: MetricsStore, options: Options, tmp_path: Path
) -> None:
    assert store.read("nobody") == []
    assert list(store.runs()) == []
    store.flush("nobody")
    assert list(tmp_path.iterdir()) == []
    with pytest.raises((sqlite3.OperationalError, psycopg.errors.UndefinedTable)):
        in_database(options)


def test_record_many_is_one_row_a_metric_of_one_step(store: MetricsStore) -> None:
    store.record_many("run", {"a": 1.0, "b": math.inf}, step=4, metadata={"k": 1})
    store.record_many("run", {})
    assert [(e.metric, e.value, e.step, e.metadata) for e in store.read("run")] == [
        ("a", 1.0, 4, {"k": 1}),
        ("b", math.inf, 4, {"k": 1}),
    ]


def test_runs_are_listed_sorted_by_code_points(store: MetricsStore) -> None:
    for run_id in ("b", "a", "B", "ä", "b"):
        store.record(run_id, "nll", 0.0)
    assert list(store.runs()) == ["B", "a", "b", "ä"]


# --- what is held back ---


def test_rows_are_held_until_flush(store: MetricsStore, options: Options) -> None:
    for value in (1.0, 2.0, 3.0):
        store.record("run", "nll", value)
    assert in_database(options) == [1.0]  # the first is written at once: is anybody there?
    store.flush("run")
    assert in_database(options) == [1.0, 2.0, 3.0]


def test_read_and_runs_see_what_is_held_here_and_what_others_committed(
    store: MetricsStore, options: Options
) -> None:
    with opened(options) as other:
        other.metrics_store.record("run", "nll", 1.0)
        store.record("run", "nll", 2.0)
        other.metrics_store.record("run", "nll", 3.0)
        store.record("new", "nll", 4.0)
        assert values(store) == [1.0, 2.0]
        assert values(other.metrics_store) == [1.0, 2.0, 3.0]
        assert values(store) == [1.0, 2.0, 3.0]
        assert list(other.metrics_store.runs()) == ["new", "run"]
        store.record("held", "nll", 5.0)
        assert list(store.runs()) == ["held", "new", "run"]


def test_a_batch_is_written_when_it_is_full(options: Options) -> None:
    with opened(options, batch_size=10) as kitchen:
        for value in range(10):
            kitchen.metrics_store.record("run", "nll", value)
        assert len(in_database(options)) == 1
        kitchen.metrics_store.record("run", "nll", 10)
        assert len(in_database(options)) == 11


def test_a_batch_size_of_one_writes_each_row_at_once(options: Options) -> None:
    with opened(options, batch_size=1) as kitchen:
        for count in range(1, 4):
            kitchen.metrics_store.record("run", "nll", 0.0)
            assert len(in_database(options)) == count


def test_a_row_that_comes_after_the_delay_is_written_at_once_with_all_that_is_held(
    options: Options, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 100.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    with opened(options, max_delay=1.0) as kitchen:
        for at, written in ((100.0, 1), (100.5, 1), (100.9, 1), (101.0, 4), (101.9, 4), (102.0, 6)):
            now = at
            kitchen.metrics_store.record("run", "nll", at)
            assert len(in_database(options)) == written


def test_rows_that_replace_each_other_in_one_batch_are_one_row(
    store: MetricsStore, options: Options
) -> None:
    store.record("run", "a", 0.0, step=0)
    for value in range(10):
        store.record("run", "b", value, step=1)
        store.record("run", "a", value, step=2)
    store.flush("run")
    assert in_database(options) == [0.0, 9.0, 9.0]


@pytest.mark.parametrize("count", [10, 200])
def test_a_batch_that_replaces_some_rows_and_adds_others_keeps_each_in_its_place(
    store: MetricsStore, count: int
) -> None:
    for step in range(count):
        store.record("run", "nll", 0.0, step)
    store.flush("run")
    for step in range(count // 2, 2 * count):
        store.record("run", "nll", 1.0, step, {"again": True})
    store.flush("run")
    found = [(entry.step, entry.value, dict(entry.metadata)) for entry in store.read("run")]
    assert found == [
        (step, 1.0, {"again": True}) if step >= count // 2 else (step, 0.0, {})
        for step in range(2 * count)
    ]


def test_many_rows_at_once_come_back_with_everything_they_were_given(store: MetricsStore) -> None:
    metadata = {"tab\t\n\\N": "\0\ud800", "%s": [1.5, None]}
    for number in range(10):
        for place, value in enumerate(SPECIAL):
            step = None if place == 0 else 100 * number + place
            store.record("run\t\\N", "a\n%(x)s", value, step, metadata)
    entries = store.read("run\t\\N")
    assert bits([entry.value for entry in entries]) == bits(SPECIAL * 10)
    assert all(entry.metadata == metadata and entry.metric == "a\n%(x)s" for entry in entries)


def test_close_writes_what_is_held_and_a_later_use_opens_again(options: Options) -> None:
    opts = sql.Options(**options)
    for value in (1.0, 2.0):
        sql.record(opts, "run", "nll", value, None, None)
    sql.close(opts)
    sql.close(opts)
    assert in_database(options) == [1.0, 2.0]
    assert sql._database.peek(opts) is None
    sql.record(opts, "run", "nll", 3.0, None, None)
    assert [entry.value for entry in sql.read(opts, "run")] == [1.0, 2.0, 3.0]
    sql.close(opts)


UNCLOSED = """
import gc, json, os, sys
import crucible_adapter_sql.metrics_store as sql

def record(run_id):
    opts = sql.Options(**json.loads(sys.argv[1]))
    for value in (0.0, 1.0, 2.0):
        sql.record(opts, run_id, "nll", value, None, None)
    return opts

record("forgotten")
gc.collect()
opts = record("run")
if sys.argv[2:] == ["fork"]:
    if child := os.fork():
        os.waitpid(child, 0)
"""


@pytest.mark.parametrize("fork", [False, True])
def test_a_program_that_ends_without_closing_writes_what_is_held_once(
    options: Options, fork: bool
) -> None:
    command = [sys.executable, "-c", UNCLOSED, json.dumps(options), *["fork"][:fork]]
    subprocess.run(command, check=True)
    assert sorted(in_database(options)) == [0.0, 0.0, 1.0, 1.0, 2.0, 2.0]


def test_rows_that_cannot_be_written_at_the_end_are_reported(options: Options) -> None:
    opts = sql.Options(**{**options, "timeout": 0})
    for value in (0.0, 1.0):
        sql.record(opts, "run", "nll", value, None, None)
    with another_writer_at_work(options), pytest.warns(CrucibleWarning, match="metrics are lost"):
        sql._held_rows(opts).write_at_exit()
    sql.close(opts)


def test_what_cannot_be_written_stays_held_and_a_row_that_was_refused_is_not_taken(
    options: Options,
) -> None:
    opts = sql.Options(**{**options, "timeout": 0, "batch_size": 4})
    for value in (1.0, 2.0, 3.0):
        sql.record(opts, "run", "nll", value, None, None)
    with another_writer_at_work(options):
        for call in (
            lambda: sql.record_many(opts, "run", {"a": 7.0, "b": 8.0}, None, None),
            lambda: sql.flush(opts, "run"),
            lambda: sql.read(opts, "run"),
            lambda: sql.close(opts),
        ):
            with pytest.raises(Unavailable) as caught:
                call()
            assert caught.value.retryable
    sql.record(opts, "run", "nll", 4.0, None, None)
    sql.close(opts)
    assert in_database(options) == [1.0, 2.0, 3.0, 4.0]


def test_a_write_waits_for_another_writer(store: MetricsStore, options: Options) -> None:
    store.record("run", "nll", 1.0)
    store.record("run", "nll", 2.0)
    with ThreadPoolExecutor(1) as pool:
        with another_writer_at_work(options):
            flushed = pool.submit(store.flush, "run")
            with pytest.raises(TimeoutError):  # sqlite3 alone fails at once with timeout=0
                flushed.result(timeout=0.3)
        flushed.result(timeout=30)
    assert in_database(options) == [1.0, 2.0]


def test_sqlite3_without_a_timeout_loses_what_is_written_meanwhile(tmp_path: Path) -> None:
    options = {"url": f"sqlite:///{tmp_path}/metrics.db", "table": "t"}
    with opened(options) as kitchen:
        kitchen.metrics_store.record("run", "nll", 1.0)
    with (
        another_writer_at_work(options),
        connection_to(options) as connection,
        pytest.raises(sqlite3.OperationalError, match="locked"),
    ):
        connection.execute("DELETE FROM t")


def test_the_first_use_waits_for_a_writer_of_a_file_that_is_not_in_wal_mode_yet(
    tmp_path: Path,
) -> None:
    options = {"url": f"sqlite:///{tmp_path}/metrics.db", "table": "t"}
    with connection_to(options) as connection:
        connection.execute("CREATE TABLE other (x)")
    with opened(options) as kitchen, ThreadPoolExecutor(1) as pool:
        with another_writer_at_work(options):
            recorded = pool.submit(kitchen.metrics_store.record, "run", "nll", 1.0)
            with pytest.raises(TimeoutError):  # sqlite3 alone fails at once with any timeout
                recorded.result(timeout=0.5)
        recorded.result(timeout=30)
    assert in_database(options) == [1.0]


# --- threads ---


def test_64_threads_lose_nothing_and_readers_see_whole_rows(store: MetricsStore) -> None:
    start = threading.Barrier(64)

    def work(thread: int) -> None:
        start.wait()
        for step in range(30):
            store.record("run", f"metric-{thread}", float(step), step=step)
            store.record("run", "no step", float(thread))
        if thread % 8 == 0:
            assert all(e.value == e.step for e in store.read("run") if e.step is not None)

    with ThreadPoolExecutor(64) as pool:
        list(pool.map(work, range(64)))
    entries = store.read("run")
    assert len(entries) == 2 * 64 * 30
    for thread in range(64):
        mine = [entry.value for entry in entries if entry.metric == f"metric-{thread}"]
        assert mine == [float(step) for step in range(30)]


def test_writers_that_replace_the_same_rows_in_opposite_orders_do_not_block_each_other(
    options: Options,
) -> None:
    names = [f"metric-{number}" for number in range(50)]
    start = threading.Barrier(2)

    def work(order: list[str]) -> None:
        with opened(options, batch_size=1) as kitchen:
            start.wait()
            for value in range(20):
                kitchen.metrics_store.record_many("run", dict.fromkeys(order, value), step=0)

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(work, [names, names[::-1]]))
    assert in_database(options) == [19.0] * 50


# --- any sequence of calls, against a list ---

name = st.sampled_from(["a", "b", "c"])
step = st.none() | st.integers(-2, 3) | st.sampled_from([2**63 - 1, -(2**63)])
metadata = st.none() | st.dictionaries(st.text(max_size=3), st.integers() | st.text(max_size=3))
Recorded = tuple[str, str, int | None]


class StoreMachine(RuleBasedStateMachine):
    """The store does what a dictionary by (run, metric, step) does."""

    options: Options

    @initialize(batch_size=st.sampled_from([1, 3, 1000]))
    def open(self, batch_size: int) -> None:
        self.options = {**self.options, "table": uuid.uuid4().hex, "batch_size": batch_size}
        self.kitchens = [opened(self.options) for _ in range(2)]
        self.model: dict[Any, tuple[Recorded, str, Any]] = {}

    def note(self, run_id: str, metric: str, value: float, step: int | None, kept: Any) -> None:
        key = (run_id, metric, step if step is not None else uuid.uuid4())
        self.model[key] = ((run_id, metric, step), value.hex(), kept or {})

    @rule(run_id=name, metric=name, value=st.floats(), step=step, metadata=metadata)
    def record(
        self, run_id: str, metric: str, value: float, step: int | None, metadata: Any
    ) -> None:
        self.kitchens[0].metrics_store.record(run_id, metric, value, step, metadata)
        self.note(run_id, metric, value, step, metadata)

    @rule(run_id=name, metrics=st.dictionaries(name, st.floats()), step=step, metadata=metadata)
    def record_many(
        self, run_id: str, metrics: dict[str, float], step: int | None, metadata: Any
    ) -> None:
        self.kitchens[0].metrics_store.record_many(run_id, metrics, step, metadata)
        for metric, value in metrics.items():
            self.note(run_id, metric, value, step, metadata)

    @rule(run_id=name)
    def record_nothing(self, run_id: str) -> None:
        with pytest.raises(InvalidInput):
            self.kitchens[0].metrics_store.record(run_id, "a", 0.0, 0, {"x": math.inf})

    @rule(run_id=name)
    def flush(self, run_id: str) -> None:
        self.kitchens[0].metrics_store.flush(run_id)
        self.holds(self.kitchens[1].metrics_store, run_id)

    @rule(run_id=name)
    def read(self, run_id: str) -> None:
        self.holds(self.kitchens[0].metrics_store, run_id)

    @rule()
    def go_on_in_the_other_kitchen(self) -> None:
        self.kitchens[0].close()
        self.kitchens.reverse()

    @rule()
    def runs(self) -> None:
        found = self.kitchens[0].metrics_store.runs()
        assert list(found) == sorted({run_id for (run_id, _, _), _, _ in self.model.values()})

    def holds(self, store: MetricsStore, run_id: str) -> None:
        assert [
            ((e.run_id, e.metric, e.step), e.value.hex(), e.metadata) for e in store.read(run_id)
        ] == [row for row in self.model.values() if row[0][0] == run_id]

    def teardown(self) -> None:
        for kitchen in getattr(self, "kitchens", ()):
            kitchen.close()


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_any_sequence_of_calls_does_what_a_dictionary_does(
    kind: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    options = options_of(kind, request, tmp_path)
    machine: Any = type(kind, (StoreMachine,), {"options": options})
    machine.TestCase.settings = settings(
        max_examples=20,
        stateful_step_count=25,
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow],
    )
    machine.TestCase().runTest()
