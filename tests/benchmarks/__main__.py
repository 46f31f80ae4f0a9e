"""Run benchmarks, print their table and write it as JSON.

    cd tests
    python -m benchmarks --list
    python -m benchmarks port_calls metrics --json /tmp/found.json

A benchmark is a module of this folder with a function `rows(settings)`, which yields a `Row` at a
time, and perhaps `growth(settings)`, which yields a `Growth` at a time; each asserts that both ways
did the same work. One that lacks what it needs (a library, a browser, data) raises `Skipped`.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib
import json
import os
import platform
import sys
import time
from collections.abc import Iterator, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from rich.console import Console
from rich.table import Table

from .comparison import Growth, Row
from .settings import Settings, Skipped

NAMES = tuple(
    path.stem
    for path in sorted(Path(__file__).parent.glob("*.py"))
    if path.stem not in ("__init__", "__main__", "comparison", "settings", "page")
)
SHOWN = ("torch", "transformers", "trl", "datasets", "pyarrow", "numpy", "pluggy", "s3fs", "openai")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("names", nargs="*", metavar="NAME", help="benchmarks; all if none is named")
    parser.add_argument("--list", action="store_true", help="print the names and stop")
    parser.add_argument("--rounds", type=int, default=5, help="times that each way is measured")
    parser.add_argument("--clock", choices=["wall", "cpu"], default="wall", help="cpu: CPU seconds")
    parser.add_argument("--small", action="store_true", help="little work, to see that it runs")
    parser.add_argument("--growth", action="store_true", help="also how each cost grows")
    parser.add_argument("--json", type=Path, metavar="FILE", help="add what is found to this file")
    parser.add_argument("--device", default="cpu", help="where torch computes: cpu, cuda")
    args = parser.parse_args()
    if args.list:
        print(*NAMES, sep="\n")
        return 0
    if unknown := [name for name in args.names if name not in NAMES]:
        print(f"no benchmark {unknown[0]!r}; there is {', '.join(NAMES)}", file=sys.stderr)
        return 2
    if args.json and not args.json.parent.is_dir():  # before hours of measuring
        print(f"--json {args.json}: there is no folder {args.json.parent}", file=sys.stderr)
        return 2
    settings = Settings(args.rounds, args.clock, args.small, args.device)
    console = Console(soft_wrap=False)
    failed = False
    for name in args.names or NAMES:
        try:
            found = measure(name, settings, args.growth, console)
        except Skipped as reason:
            console.print(f"{name}: skipped, {reason}", highlight=False)
            continue
        except ModuleNotFoundError as error:
            console.print(f"{name}: skipped, {error.name} is not installed", highlight=False)
            continue
        except AssertionError as error:  # the two ways did not do the same
            console.print(f"{name}: {error}", highlight=False)
            failed = True
            continue
        if args.json:
            _add(args.json, name, found, settings)
    return int(failed)


def measure(
    name: str, settings: Settings, growth: bool, console: Console
) -> dict[str, list[dict[str, object]]]:
    """Run one benchmark and print its rows as they are found."""
    module = importlib.import_module(f"benchmarks.{name}")
    rows: list[Row] = []
    for row in module.rows(settings):
        rows.append(row)
    console.print(table(name, rows))
    curves: Iterator[Growth] = (
        module.growth(settings) if growth and hasattr(module, "growth") else iter(())
    )
    grown = []
    for curve in curves:
        grown.append(dataclasses.asdict(curve))
        console.print(growth_table(curve))
    return {
        "rows": [
            {**dataclasses.asdict(row), "goal": row.goal and str(row.goal), "met": row.met}
            for row in rows
        ],
        "growth": grown,
    }


def table(title: str, rows: list[Row]) -> Table:
    shown = Table("what", "against", "ours", "theirs", "unit", "ratio", "goal", title=title)
    for row in rows:
        met = {True: "", False: " missed", None: ""}[row.met]
        shown.add_row(
            row.what,
            row.against,
            f"{row.ours:,.4g}",
            f"{row.theirs:,.4g}",
            row.unit,
            f"{row.ratio:.2f}x",
            f"{row.goal or ''}{met}",
        )
    notes = [f"{row.what}: {row.note}" for row in rows if row.note]
    if notes:
        shown.caption, shown.caption_justify = "\n".join(notes), "left"
    return shown


def growth_table(curve: Growth) -> Table:
    shown = Table(curve.variable, *curve.curves, title=f"{curve.what}, {curve.unit}")
    for index, value in enumerate(curve.values):
        shown.add_row(f"{value:g}", *(f"{c[index]:.4g}" for c in curve.curves.values()))
    return shown


def machine() -> dict[str, object]:
    """Describe what the numbers depend on."""
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                model = line.partition(":")[2].strip()
                break
    versions = {}
    for package in SHOWN:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    return {
        "processor": model,
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "versions": versions,
    }


def _add(file: Path, name: str, found: Mapping[str, object], settings: Settings) -> None:
    whole = json.loads(file.read_text()) if file.exists() else {}
    whole[name] = {
        "at": time.strftime("%Y-%m-%d"),
        "settings": dataclasses.asdict(settings),
        "machine": machine(),
        **found,
    }
    file.write_text(json.dumps(whole, indent=1) + "\n")


if __name__ == "__main__":
    sys.exit(main())
