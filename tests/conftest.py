"""A folder of really installed packages, and the `crucible` command that finds them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest
from broken_packages import PACKAGES, Package
from preloaded import Commands


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder into which every package of `broken_packages` was installed by pip."""
    sources, wheels, site = (tmp_path_factory.mktemp(n) for n in ("sources", "wheels", "site"))
    for package in PACKAGES:
        _build(package, sources / package.name, wheels)
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "--quiet"]
    offline = ["--no-deps", "--no-index", "--no-compile", "--target", str(site)]
    subprocess.run([*pip, *offline, *map(str, wheels.iterdir())], check=True)
    for package in PACKAGES:
        if package.broken_metadata is not None:  # what a full disk or an editor leaves behind
            name = f"{package.name.replace('-', '_')}-{package.version}.dist-info"
            (site / name / "entry_points.txt").write_text(package.broken_metadata)
    return site


def _build(package: Package, source: Path, wheels: Path) -> None:
    source.mkdir()
    for name, text in package.modules.items():
        (source / f"{name}.py").write_text(text + "\n")
    points = "\n".join(f'"{name}" = "{value}"' for name, value in package.entry_points.items())
    (source / "pyproject.toml").write_text(
        f"""
        [build-system]
        requires = ["hatchling"]
        build-backend = "hatchling.build"
        [project]
        name = "{package.name}"
        version = "{package.version}"
        dependencies = {list(package.requires)}
        [project.entry-points."{package.group}"]
        {points}
        [tool.hatch.build.targets.wheel]
        include = ["*.py"]
        """
    )
    build = "import sys, hatchling.build; hatchling.build.build_wheel(sys.argv[1])"
    subprocess.run([sys.executable, "-c", build, str(wheels)], cwd=source, check=True)


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


@dataclass(frozen=True)
class Outcome:
    code: int
    out: str
    err: str


Crucible = Callable[..., Outcome]


@pytest.fixture(scope="session")
def commands() -> Iterator[Commands]:
    commands = Commands()
    yield commands
    commands.close()


@pytest.fixture
def crucible(commands: Commands, site: Path, tmp_path: Path) -> Crucible:
    """The command, in an empty folder, with the packages of `site` and the installed ones."""
    return partial(_run, commands, tmp_path, PYTHONPATH=path_with(site))


@pytest.fixture
def ctrl_c() -> Iterator[None]:
    """Handle SIGINT, so that commands which a test starts do: a shell starts background jobs with
    it ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture
def plain_crucible(commands: Commands, tmp_path: Path) -> Crucible:
    """The command, in an empty folder, with the packages that are installed."""
    return partial(_run, commands, tmp_path)


COMMAND = (sys.executable, "-c", "from crucible_kitchen.cli import main; main()")


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


def _run(
    commands: Commands, folder: Path, *arguments: str, timeout: float = 120, **environ: str
) -> Outcome:
    return Outcome(*commands.run(arguments, folder, clean_environ(**environ), timeout))


@pytest.fixture
def mistake(crucible: Crucible) -> Callable[..., str]:
    """Run the command, check that it calls the mistake the user's, and return what it said."""

    def run(*arguments: str, **environ: str) -> str:
        outcome = crucible(*arguments, **environ)
        assert outcome.code == 2, outcome
        assert "Traceback" not in outcome.err + outcome.out
        assert outcome.err.startswith("error: ")
        return outcome.err

    return run
