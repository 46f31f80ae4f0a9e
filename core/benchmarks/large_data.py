"""How long a run of many rows takes to its first step, and how much memory it needs.

    python core/benchmarks/large_data.py [--rows 1000000] [--checked 100000]

Each figure is of a process of its own: `crucible run` with the noop training client, on rows of
prompt and completion of the noop dataset store and of a JSONL file that hf-datasets reads. A run of
one row, `importing`, shows what of it is importing and starting up. Seconds are those from the
start of the process to its first step; `cpu` is what all its threads used of the processors to its
end, a few steps later: look at it where other work shares the machine. Memory is the most that was
resident, pages of mapped files included.

Needs crucible-adapter-noop and crucible-adapter-hf-datasets.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

STEPS = 3
STORES = ("noop", "hf-datasets")
_COMMAND = "import sys; from crucible_kitchen.cli import main; sys.exit(main())"


@dataclass(frozen=True, slots=True)
class Measured:
    """What a run took.

    Args:
        first_step: seconds from the start of the process to its first step.
        cpu: seconds of the processors to its end.
        memory: most bytes that were resident.
    """

    first_step: float
    cpu: float
    memory: int


def measured(arguments: list[str], environ: dict[str, str], folder: Path) -> Measured:
    """Run `crucible run` with arguments, and return what it took."""
    command = [sys.executable, "-c", _COMMAND, "run", *arguments]
    started = time.perf_counter()
    with subprocess.Popen(
        command,
        env=environ,
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        assert process.stdout is not None
        lines, first = [], None
        for line in process.stdout:
            lines.append(line)
            if first is None and line.startswith("step 1/"):
                first = time.perf_counter() - started
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode or first is None:
        raise SystemExit(f"{' '.join(command)} ended with {process.returncode}\n{''.join(lines)}")
    unit = 1 if sys.platform == "darwin" else 1024
    return Measured(first, used.ru_utime + used.ru_stime, used.ru_maxrss * unit)


def arguments(store: str, rows: int, folder: Path, *more: str) -> list[str]:
    """Return the arguments of a run on so many rows of a dataset store."""
    given = [f"adapters.{port}=noop" for port in ("training_client", "blob_store", "metrics_store")]
    dataset = "rows"
    if store == "noop":
        given.append(f'adapters.dataset_store={{"use": "noop", "rows": {{"train": {rows}}}}}')
    else:
        given.append(f"adapters.dataset_store={store}")
        dataset = str(written(folder / f"{rows}.jsonl", rows))
    settings = {"use": "supervised", "model": "any", "dataset": dataset, "max_steps": str(STEPS)}
    return [*given, *(f"workflow.{name}={value}" for name, value in settings.items()), *more]


def written(path: Path, rows: int) -> Path:
    """Write rows to a file, unless it is there."""
    if not path.exists():
        with path.open("w", encoding="utf-8") as file:
            for n in range(rows):
                row = {"prompt": f"What is {n} + {n + 7}?", "completion": f" It is {2 * n + 7}."}
                file.write(json.dumps(row) + "\n")
    return path


def main() -> None:
    parser = argparse.ArgumentParser(description="Many rows: time to the first step, and memory.")
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--checked", type=int, default=100_000)
    parser.add_argument("--store", choices=STORES, action="append")
    given = parser.parse_args()
    first = "workflow.check_rows=first"
    print(f"{'store':12} {'rows':>9}  {'run':24} {'first step':>10} {'cpu':>8} {'memory':>9}")
    for store in given.store or STORES:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            environ = {**os.environ, "CRUCIBLE_CACHE": str(folder / "cache"), "TMPDIR": name}
            for rows, run, more in (
                (1, "importing", [first]),
                (given.rows, "check_rows=first", [first]),
                (given.checked, "check_rows=all, cold", []),
                (given.checked, "check_rows=all, again", []),
                (given.rows, "streaming", ["workflow.streaming=true"]),
            ):
                found = measured(arguments(store, rows, folder, *more), environ, folder)
                print(
                    f"{store:12} {rows:9,}  {run:24} {found.first_step:8.1f} s {found.cpu:6.1f} s "
                    f"{found.memory / 2**30:5.2f} GiB",
                    flush=True,
                )


if __name__ == "__main__":
    main()
