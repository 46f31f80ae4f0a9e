"""A folder of really installed packages, and the `crucible` command that finds them."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from broken_packages import PACKAGES, Package
from commands import Crucible, Outcome, clean_environ, path_with
from preloaded import Commands

if TYPE_CHECKING:
    from addition_model import AdditionModel


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


@pytest.fixture(scope="session")
def addition_model(tmp_path_factory: pytest.TempPathFactory) -> AdditionModel:
    """The trained addition model, and one that half unlearned it; they take minutes, once."""
    from addition_model import train_addition

    return train_addition(tmp_path_factory.mktemp("addition"))


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
