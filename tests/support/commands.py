"""The `crucible` command as tests run it, and packages for it to find."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

COMMAND = (sys.executable, "-c", "from crucible_kitchen.cli import main; main()")


@dataclass(frozen=True)
class Outcome:
    code: int
    out: str
    err: str


Crucible: TypeAlias = Callable[..., Outcome]


def clean_environ(**environ: str) -> dict[str, str]:
    """Return this process's environment without settings, at 80 columns."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("CRUCIBLE_") or name == "CRUCIBLE_CACHE"
    }
    return {**kept, "COLUMNS": "80", **environ}


def started(folder: Path, *arguments: str, **environ: str) -> Outcome:
    """Run the command in a Python that is started for it, as a shell does."""
    done = subprocess.run(
        [*COMMAND, *arguments],
        cwd=folder,
        env=clean_environ(**environ),
        capture_output=True,
        text=True,
        timeout=120,
    )
    return Outcome(done.returncode, done.stdout, done.stderr)


def path_with(site: Path) -> str:
    """Return a PYTHONPATH of these packages, and of what is on it already."""
    return os.pathsep.join([str(site), *filter(None, [os.environ.get("PYTHONPATH")])])


def add_package(folder: Path, name: str, source: str, *entry_points: str) -> None:
    """Put a module into a folder, and metadata as pip leaves it, for a folder on PYTHONPATH."""
    (folder / f"{name}.py").write_text(source)
    about = folder / f"{name}-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    lines = "\n".join(f"{point} = {name}" for point in entry_points)
    (about / "entry_points.txt").write_text(f"[crucible.adapters]\n{lines}\n")
