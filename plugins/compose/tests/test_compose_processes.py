"""Several processes write through one `tee` to two kinds of metrics store."""

from __future__ import annotations

import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest
from crucible_adapter_compose import tee
from crucible_kitchen import CrucibleWarning, Kitchen

jsonl = pytest.importorskip("crucible_adapter_jsonl.metrics_store")
sql = pytest.importorskip("crucible_adapter_sql.metrics_store")

WRITERS, STEPS = 4, 500

WRITE = """
import sys
import crucible_adapter_jsonl.metrics_store as jsonl, crucible_adapter_sql.metrics_store as sql
from crucible_adapter_compose import tee
from crucible_kitchen import CrucibleWarning, Kitchen
folder, number, steps = sys.argv[1], sys.argv[2], int(sys.argv[3])
inner = [
    {"use": sql, "url": f"sqlite:///{folder}/metrics.db"},
    {"use": jsonl, "path": f"{folder}/metrics"},
]
with Kitchen({"metrics_store": {"use": tee.metrics_store, "inner": inner}}) as kitchen:
    store = kitchen.metrics_store
    print("ready", flush=True)
    sys.stdin.readline()
    for step in range(steps):
        store.record_many("run", {f"x{number}": step / 7, f"y{number}": -step}, step)
    store.flush("run")
"""


def stores(folder: Path) -> list[dict[str, Any]]:
    return [
        {"use": sql, "url": f"sqlite:///{folder}/metrics.db"},
        {"use": jsonl, "path": str(folder / "metrics")},
    ]


def rows(store: Any) -> list[tuple[str, int | None, float]]:
    return sorted((e.metric, e.step, e.value) for e in store.read("run"))


@pytest.mark.slow
def test_four_processes_write_every_row_to_both(tmp_path: Path) -> None:
    command = [sys.executable, "-W", "error", "-c", WRITE, str(tmp_path)]
    writers = [
        subprocess.Popen(
            [*command, str(number), str(STEPS)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for number in range(WRITERS)
    ]
    for writer in writers:
        assert writer.stdout is not None
        assert writer.stdout.readline() == "ready\n"
    for writer in writers:
        assert writer.stdin is not None
        writer.stdin.write("go\n")
        writer.stdin.flush()
    for writer in writers:
        _, errors = writer.communicate(timeout=300)
        assert (writer.returncode, errors) == (0, "")
    expected = sorted(
        (f"{metric}{number}", step, value)
        for number in range(WRITERS)
        for step in range(STEPS)
        for metric, value in (("x", step / 7), ("y", float(-step)))
    )
    table = {"use": tee.metrics_store, "inner": stores(tmp_path)}
    with Kitchen({"metrics_store": table}) as kitchen:
        for store in kitchen.metrics_store.options.inner:  # type: ignore[attr-defined]
            assert rows(store) == expected


@pytest.mark.parametrize("broken", [0, 1])
def test_where_one_fails_half_way_the_other_has_every_row_and_the_failure_is_reported_once(
    tmp_path: Path, broken: int, scripted: Any
) -> None:
    """The real stores, of which one breaks as a disk does, under the store's feet."""
    inner = stores(tmp_path)
    if broken == 0:
        inner[0] |= {"batch_size": 1, "timeout": 0}
    table = {"use": tee.metrics_store, "inner": inner}
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        with Kitchen({"metrics_store": table}) as kitchen:
            store = kitchen.metrics_store
            for step in range(100):
                if step == 50:
                    lock = _break(tmp_path, broken, store)
                store.record("run", "x", float(step), step)
            store.flush("run")
            lock()
            complete = store.options.inner[1 - broken]  # type: ignore[attr-defined]
            assert rows(complete) == [("x", step, float(step)) for step in range(100)]
    [warning] = [str(w.message) for w in told if w.category is CrucibleWarning]
    assert f"inner.{broken} (crucible_adapter_" in warning


def _break(folder: Path, which: int, store: Any) -> Any:
    """Make one of the stores fail from now on; return what ends that."""
    if which == 0:
        import sqlite3

        other = sqlite3.connect(folder / "metrics.db", isolation_level=None)
        other.execute("BEGIN EXCLUSIVE")  # a writer that never ends
        return other.close
    store.options.inner[1].close()
    (folder / "metrics").rename(folder / "gone")
    (folder / "metrics").write_text("not a folder any more")
    return (folder / "metrics").unlink
