"""Runs in processes of their own, which may be killed, and what they leave in the end.

Each process is a fork of the one of the tests, which has imported what a process would take seconds
to import: see `import_beforehand`. A folder of runs has `crucible.toml` with checkpoints of torch
in `checkpoints`, blobs in `runs` and the metrics of jsonl in `metrics`.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import select
import signal
import sys
import traceback
from pathlib import Path
from typing import Any

TIMES = ("time/step", "tokens_per_second")
UNIQUE = re.compile(r"[0-9a-f]{8}(?![0-9a-f])|\d{20}")
STREAMS = ("out", "err")


def import_beforehand() -> None:
    """Import what each process needs."""
    import transformers.models.llama.modeling_llama  # noqa: F401


def start(folder: Path, run_id: str, *arguments: str) -> int:
    """Start `crucible run` in a process of its own, and return its id."""
    if pid := os.fork():
        return pid
    code = 70
    try:
        os.chdir(folder)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        for number, name in enumerate(STREAMS, 1):
            os.dup2(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_APPEND), number)
        sys.stdout, sys.stderr = os.fdopen(1, "w"), os.fdopen(2, "w")
        for number in (signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        sys.argv = ["crucible", "run", f"workflow.run_id={run_id}", *arguments]
        from crucible_kitchen.cli import main

        main()
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else 1
    except BaseException:
        traceback.print_exc()
    finally:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        os._exit(code)


def ended(pid: int, within: float) -> int | None:
    """Wait for the end of a process; return its exit code, or None if it has not ended in time."""
    end = os.pidfd_open(pid)
    try:
        if not select.select([end], [], [], within)[0]:
            return None
    finally:
        os.close(end)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def run(folder: Path, run_id: str, *arguments: str) -> None:
    """Run to the end."""
    code = ended(start(folder, run_id, *arguments), 300)
    assert code == 0, said(folder)


def said(folder: Path) -> str:
    return "".join((folder / name).read_text() for name in STREAMS)


def outcome(folder: Path, run_id: str) -> dict[str, Any]:
    """Return what a run has left that must be the same each time."""
    record = json.loads((folder / "runs" / run_id / "run.json").read_text())
    saved = folder / "checkpoints" / record["state"]["checkpoint"]
    tensors = [*saved.glob("*.safetensors"), *Path(record["weights"]).glob("*.safetensors")]
    samples = (folder / "runs" / run_id / "samples").glob("*.jsonl")
    kept = ("status", "config", "rows", "examples", "problems", "pairs", "depends_on")
    return {
        **{name: record.get(name) for name in kept},
        "step": record["state"]["step"],
        "checkpoints": len(record["checkpoints"]),
        "metrics": {k: v for k, v in record["metrics"].items() if k not in TIMES},
        "series": series(folder, run_id),
        "samples": {file.name: file.read_text() for file in samples},
        "weights": {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in tensors},
    }


def series(folder: Path, run_id: str) -> dict[str, float]:
    """Return every row of metrics of a run."""
    from crucible_kitchen import Kitchen

    adapter = {"use": "jsonl", "path": str(folder / "metrics")}
    with Kitchen({"metrics_store": adapter}) as kitchen:
        found = [row for row in kitchen.metrics_store.read(run_id) if row.metric not in TIMES]
    rows = {f"{row.metric} {row.step}": row.value for row in found}
    assert len(rows) == len(found), "a row was recorded twice"
    return rows


def files(folder: Path) -> list[str]:
    """Return the names of all files and folders, without what is another one each time."""
    found = (str(path.relative_to(folder)) for path in folder.rglob("*"))
    return sorted(UNIQUE.sub("*", name) for name in found if name not in STREAMS)
