"""How long the command takes to answer, against importing the libraries that it is made with.

Each is a Python of its own, with bytecode compiled beforehand. Packages of adapters are folders of
metadata, as installers leave them; what the command remembers of them is kept beside them.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from crucible_kitchen import __version__
from crucible_kitchen.adapters import kit
from crucible_kitchen.adapters.card_files import CARDS
from crucible_kitchen.adapters.contents import hash_of_bytes
from crucible_kitchen.testing.report import ReportCard, Verdict

from .comparison import Contest, Growth, Row, at_most
from .settings import Settings

LIBRARIES = "import typer, rich, pydantic_settings, importlib_metadata, pluggy"
COMMAND = "from crucible_kitchen.cli import main; main()"
SETTLED = 2.5
"""Seconds after which the command remembers packages that were installed."""


def rows(settings: Settings) -> Iterator[Row]:
    """Yield the command's help and its lists, of few and of many adapters."""
    counts = (10, 20, 100) if settings.small else (10, 200, 5_000)
    with tempfile.TemporaryDirectory() as folder:
        environ = _environ(Path(folder))
        sites = {count: _site(Path(folder) / str(count), count) for count in counts}
        time.sleep(SETTLED)
        with_sites = {
            count: {**environ, "PYTHONPATH": _path(site)} for count, site in sites.items()
        }
        found = settings.contest(warm_up=2).run(
            libraries=lambda: _lines(environ, LIBRARIES),
            help=lambda: _lines(environ, COMMAND, "--help"),
            adapters=lambda: _lines(environ, COMMAND, "adapters"),
            api=lambda: _lines(environ, "from crucible_kitchen import Kitchen"),
            **{
                f"adapters_{count}": lambda count=count: _lines(
                    with_sites[count], COMMAND, "adapters"
                )
                for count in counts
            },
        )
    plain = found.results["adapters"]
    for count in counts:
        listed = found.results[f"adapters_{count}"] - plain
        assert listed == count, f"{listed} of {count} adapters are listed"
    against = f'python -c "{LIBRARIES}"'
    few, more, many = counts
    for name, what in (
        ("help", "crucible --help"),
        ("adapters", "crucible adapters"),
        (f"adapters_{few}", f"crucible adapters, {few} packages"),
    ):
        yield _row(found, name, "libraries", what, against, 1.3)
    flat = f"crucible adapters, {more} packages"
    yield _row(found, f"adapters_{more}", f"adapters_{few}", flat, f"of {few} packages", 1.1)
    yield _within(found, f"adapters_{many}", f"crucible adapters, {many:,} packages, warm", 3.0)
    api = _row(found, "api", "libraries", "from crucible_kitchen import Kitchen", against, 1.3)
    yield replace(api, goal=None)


def growth(settings: Settings) -> Iterator[Growth]:
    """Yield the seconds of `crucible adapters` over packages, as first seen and as remembered."""
    values = (10, 20, 40, 80) if settings.small else (10, 40, 160, 640, 2_560, 5_120)
    first, again = [], []
    with tempfile.TemporaryDirectory() as folder:
        environ = _environ(Path(folder))
        _lines(environ, COMMAND, "adapters")  # which compiles it
        sites = [_site(Path(folder) / str(count), count) for count in values]
        time.sleep(SETTLED)
        for site in sites:
            contest = Contest[int](1 if settings.small else settings.rounds, 0)
            contest.clock = settings.contest().clock
            environ["PYTHONPATH"] = _path(site)
            environ["CRUCIBLE_CACHE"] = str(site / "cache")
            started = contest.clock()
            _lines(environ, COMMAND, "adapters")
            first.append(contest.clock() - started)
            contest.run(again=lambda: _lines(environ, COMMAND, "adapters"))
            again.append(statistics.median(contest.seconds["again"]))
    yield Growth(
        "crucible adapters",
        "packages",
        "s",
        values,
        {"first time": first, "again": again},
        "each value is four times the one before, but the last, which is twice",
    )


# --- what is run ---


def _lines(environ: Mapping[str, str], program: str, *arguments: str) -> int:
    """Run a program in a Python of its own; return how many lines it prints."""
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments],
        env=environ,
        capture_output=True,
        text=True,
        check=True,
    )
    return len(done.stdout.splitlines())


def _environ(folder: Path) -> dict[str, str]:
    kept = {n: v for n, v in os.environ.items() if not n.startswith(("CRUCIBLE_", "PYTHON"))}
    return {
        **kept,
        "CRUCIBLE_CACHE": str(folder / "cache"),
        "PYTHONPYCACHEPREFIX": str(folder / "bytecode"),
    }


def _path(site: Path) -> str:
    return os.pathsep.join(filter(None, [str(site), os.environ.get("PYTHONPATH", "")]))


def _site(folder: Path, count: int) -> Path:
    """Install that many packages of one adapter each, with its report card, by hand."""
    readme = "It keeps blobs where nobody looks for them.\n" * 100
    for number in range(count):
        info = folder / f"crucible_adapter_acme{number}-1.0.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(
            f"Metadata-Version: 2.4\nName: crucible-adapter-acme{number}\nVersion: 1.0\n"
            f"Requires-Dist: crucible-kitchen>=0.1\n\n{readme}"
        )
        (info / "entry_points.txt").write_text(
            f"[crucible.adapters]\nblob_store.acme{number} = acme{number}\n"
        )
        (info / "RECORD").write_text(f"acme{number}.py,,\n")
        (folder / f"acme{number}.py").write_text(SOURCE)
        (info / CARDS).mkdir(parents=True)
        (info / CARDS / f"blob_store.acme{number}.json").write_text(_card(number).as_json())
    return folder


SOURCE = "# Keeps blobs where nobody looks for them.\n" * 200


def _card(number: int) -> ReportCard:
    return ReportCard(
        port="blob_store",
        adapter=f"acme{number}",
        variant="",
        package=f"crucible-adapter-acme{number}",
        version="1.0",
        core=__version__,
        kit=kit.LEVEL,
        level=kit.LEVEL,
        verdicts=tuple(
            Verdict(f"test_{n}", "What is promised. " * 20, "passed") for n in range(60)
        ),
        kit_digest=kit.digest(),
        files={f"acme{number}.py": hash_of_bytes(SOURCE.encode())},
    )


# --- what is shown ---


def _row(found: Contest[int], ours: str, theirs: str, what: str, against: str, bound: float) -> Row:
    return found.row(
        ours, theirs, what=what, against=against, goal=at_most(bound), work=1e-3, unit="ms"
    )


def _within(found: Contest[int], name: str, what: str, seconds: float) -> Row:
    """Return a row whose bound is of seconds, not of what something else takes."""
    took = statistics.median(found.seconds[name])
    row = _row(found, name, "libraries", what, f"{seconds:g} s", 1.0)
    return replace(row, ratio=took / seconds, theirs=seconds * 1e3)
