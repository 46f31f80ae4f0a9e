"""What the SQL metrics store promises to several processes, and to one that dies."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
import uuid
from pathlib import Path
from typing import Any

import crucible_adapter_jsonl.metrics_store as jsonl
import crucible_adapter_sql.metrics_store as sql
import pytest
from crucible_kitchen import Kitchen, MetricsStore, Unavailable

pytestmark = pytest.mark.slow

Options = dict[str, Any]


def options_of(kind: str, request: pytest.FixtureRequest, folder: Path) -> Options:
    if kind == "jsonl":
        return {"use": "crucible_adapter_jsonl.metrics_store", "path": str(folder / "metrics")}
    url = f"sqlite:///{folder}/new/metrics.db"
    if kind == "postgresql":
        url = request.getfixturevalue("server").url
    module = "crucible_adapter_sql.metrics_store"
    return {"use": module, "url": url, "table": uuid.uuid4().hex}


@pytest.fixture(params=["sqlite", "postgresql"])
def options(request: pytest.FixtureRequest, tmp_path: Path) -> Options:
    return options_of(request.param, request, tmp_path)


def opened(options: Options, **other: Any) -> Kitchen:
    module = jsonl if "jsonl" in options["use"] else sql
    return Kitchen(adapters={"metrics_store": {**options, **other, "use": module}})


OPEN = """
import importlib, json, math, sys
from crucible_kitchen import Kitchen
options = json.loads(sys.argv[1])
def opened(**other):
    use = importlib.import_module(options["use"])
    return Kitchen(adapters={"metrics_store": {**options, **other, "use": use}})
def wait():
    print("ready", flush=True)
    sys.stdin.readline()
"""


def process(program: str, options: Options, *arguments: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", OPEN + program, json.dumps(options), *map(str, arguments)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def hear(child: subprocess.Popen[str], word: str) -> None:
    assert child.stdout is not None
    assert child.stdout.readline() == f"{word}\n"


def go(children: list[subprocess.Popen[str]]) -> None:
    """Have them all begin at once, and end well."""
    for child in children:
        hear(child, "ready")
    for child in children:
        assert child.stdin is not None
        child.stdin.write("go\n")
        child.stdin.flush()
    for child in children:
        child.communicate()
        assert child.returncode == 0


def value_at(step: int) -> float:
    return {0: math.nan, 1: math.inf, 2: -math.inf, 3: -0.0}.get(step % 1000, step / 7)


WRITER = """
def value_at(step):
    return {0: math.nan, 1: math.inf, 2: -math.inf, 3: -0.0}.get(step % 1000, step / 7)
start, end = int(sys.argv[3]), int(sys.argv[4])
with opened() as kitchen:
    store = kitchen.metrics_store
    wait()
    for step in range(start, end):
        store.record("run", f"metric-{sys.argv[2]}", value_at(step), step)
    store.flush("run")
"""


@pytest.mark.parametrize("kind", ["sqlite", "postgresql", "jsonl"])
def test_four_processes_write_20000_numbers_at_once_and_resume_without_losing_or_doubling_one(
    kind: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    options = options_of(kind, request, tmp_path)
    for start, end in ((0, 3000), (2000, 5000)):  # resumed from a checkpoint that is older
        go([process(WRITER, options, number, start, end) for number in range(4)])
    with opened(options) as kitchen:
        entries = kitchen.metrics_store.read("run")
    assert len(entries) == 20_000
    for number in range(4):
        mine = [(e.step, e.value.hex()) for e in entries if e.metric == f"metric-{number}"]
        assert mine == [(step, value_at(step).hex()) for step in range(5000)]


FIRST_USE = """
for number in range(5):
    with opened(table=f"table-{number}") as kitchen:
        if number == 0:
            wait()
        kitchen.metrics_store.record("run", f"metric-{sys.argv[2]}", number)
"""


def test_processes_that_make_the_database_and_its_tables_at_once_all_succeed(
    options: Options,
) -> None:
    options["table"] = "unused"
    go([process(FIRST_USE, options, number) for number in range(4)])
    for number in range(5):
        with opened(options, table=f"table-{number}") as kitchen:
            found = kitchen.metrics_store.read("run")
        assert sorted(e.metric for e in found) == [f"metric-{n}" for n in range(4)]


KILLED = """
store = opened(max_delay=3600, batch_size=10_000).metrics_store
for step in range(1000):
    store.record("run", "nll", step, step)
store.flush("run")
for step in range(1000, 1100):
    store.record("run", "nll", step, step)
print("flushed", flush=True)
while True:
    step += 1
    store.record("run", "nll", step, step)
    if step % 50 == 0:
        store.flush("run")
"""


def test_a_writer_killed_after_flush_keeps_every_row(options: Options) -> None:
    for _ in range(3):
        with process(KILLED, options) as child:
            hear(child, "flushed")
            child.send_signal(signal.SIGKILL)
        with opened(options) as kitchen:
            found = [entry.step for entry in kitchen.metrics_store.read("run")]
        assert len(found) >= 1000
        assert found == list(range(len(found)))  # whole transactions, in order


def in_a_child(work: Any) -> int:
    """Run in a forked process; return 0 if it returned true."""
    child = os.fork()
    if child == 0:  # no assertion may leave this branch
        status = 1
        try:
            status = 0 if work() else 2
        finally:
            os._exit(status)
    return os.waitpid(child, 0)[1]


@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")
def test_a_fork_with_held_rows_writes_them_once_and_both_processes_go_on(options: Options) -> None:
    def child() -> bool:
        store.record("run", "child", 1.0)
        store.flush("run")
        return [e.metric for e in store.read("run")] == ["first", "child"]

    with opened(options, max_delay=3600) as kitchen:
        store = kitchen.metrics_store
        store.record("run", "first", 0.0)
        store.record("run", "held", 1.0)
        assert in_a_child(child) == 0
        store.record("run", "after", 2.0)
        assert [e.metric for e in store.read("run")] == ["first", "child", "held", "after"]


@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")
def test_a_forked_child_inherits_no_open_sqlite_file(tmp_path: Path) -> None:
    # It would believe that it holds the locks of its parent.
    def files() -> list[str]:
        fds = Path("/proc/self/fd")
        return [os.readlink(fd) for fd in fds.iterdir() if fd.exists()]

    file = tmp_path / "metrics.db"
    with Kitchen(adapters={"metrics_store": {"use": sql, "url": f"sqlite:///{file}"}}) as kitchen:
        kitchen.metrics_store.record("run", "nll", 1.0)
        assert str(file) in files()
        assert in_a_child(lambda: str(file) not in files()) == 0
        kitchen.metrics_store.record("run", "nll", 2.0)
        assert len(kitchen.metrics_store.read("run")) == 2


@pytest.mark.parametrize("batch", [10, 60])  # of which only the larger is copied
def test_a_server_that_stops_half_way_costs_nothing_that_was_recorded(
    server: Any, batch: int
) -> None:
    options = {"use": "sql", "url": server.url, "table": uuid.uuid4().hex}
    recorded: list[int] = []

    def record(store: MetricsStore, step: int) -> None:
        store.record("run", "nll", step, step)
        recorded.append(step)

    before, until = batch * 5 // 2, batch * 4
    with opened(options, batch_size=batch, max_delay=3600, timeout=2) as kitchen:
        store = kitchen.metrics_store
        for step in range(before):
            record(store, step)
        server.stop()
        try:
            refused = 0
            for step in range(before, until):
                try:
                    record(store, step)
                except Unavailable:
                    refused += 1
            assert refused
            with pytest.raises(Unavailable):
                store.flush("run")
        finally:
            server.start()
        for step in range(until, until + batch):
            record(store, step)
        store.flush("run")
    with opened(options) as kitchen:
        assert [entry.step for entry in kitchen.metrics_store.read("run")] == recorded


def test_a_server_that_was_restarted_meanwhile_is_not_noticed(server: Any) -> None:
    with opened({"use": "sql", "url": server.url, "table": uuid.uuid4().hex}) as kitchen:
        store = kitchen.metrics_store
        for value in range(3):
            server.stop()
            server.start()
            store.record("run", "nll", value)
            store.flush("run")
        assert [entry.value for entry in store.read("run")] == [0.0, 1.0, 2.0]
