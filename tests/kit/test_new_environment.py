"""From an empty folder to an installed environment: `crucible new environment`."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from commands import COMMAND, Crucible, clean_environ

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]


def python(folder: Path, *arguments: str, **environ: str) -> str:
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env=clean_environ(**environ),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("new")
    python(folder, *COMMAND[1:], "new", "environment", "maze-2d", "--author", 'Ann "A" Author')
    return folder / "crucible-environment-maze-2d"


@pytest.fixture(scope="module")
def site(package: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the package, installed from its wheel."""
    wheels, site = tmp_path_factory.mktemp("wheels"), tmp_path_factory.mktemp("site")
    build = "import sys, hatchling.build; hatchling.build.build_wheel(sys.argv[1])"
    python(package, "-c", build, str(wheels))
    [wheel] = wheels.glob("*.whl")
    pip = ["-m", "pip", "--disable-pip-version-check", "install", "-q", "--no-deps", "--no-index"]
    python(site, *pip, "--target", str(site), str(wheel))
    return site


def test_it_passes_its_tests_as_generated(package: Path, site: Path) -> None:
    """Installed from its wheel, as its users have it."""
    said = python(package, "-m", "pytest", "-q", "-p", "no:cacheprovider", PYTHONPATH=str(site))
    assert " passed" in said
    assert "\nfailed " not in said


def test_it_type_checks_and_lints_as_generated(package: Path) -> None:
    pytest.importorskip("mypy", reason="mypy and ruff are not part of this environment")
    python(package, "-m", "ruff", "check", "--no-cache", ".")
    python(package, "-m", "ruff", "format", "--no-cache", "--check", ".")
    python(package, "-m", "mypy", "--cache-dir", os.devnull, MYPYPATH=str(ROOT / "core/src"))


@pytest.mark.parametrize("options", [[], ["highest=30"]])
def test_once_installed_it_is_checked_by_the_suite_that_it_brings(
    site: Path, tmp_path: Path, options: list[str]
) -> None:
    check = [*COMMAND[1:], "check", "environment.maze-2d", *options]
    said = python(tmp_path, *check, "--card", "cards", PYTHONPATH=str(site))
    assert said.startswith("environment.maze-2d (crucible-environment-maze-2d 0.1.0)")
    assert re.search(r"^\d+ passed$", said, re.MULTILINE)  # and nothing else
    [card] = (tmp_path / "cards").iterdir()
    assert card.name == "environment.maze-2d.json"


def test_a_suite_that_is_broken_shows(site: Path, tmp_path: Path) -> None:
    """So that it is the package's own that is run, not the bare suite."""
    package = "crucible_environment_maze_2d"
    broken = tmp_path / "site"
    shutil.copytree(site, broken)
    suite = broken / package / "conformance.py"
    suite.write_text(suite.read_text("utf-8").replace("EnvironmentConformance", "Missing"), "utf-8")
    done = subprocess.run(
        [*COMMAND, "check", "environment.maze-2d"],
        cwd=tmp_path,
        env=clean_environ(PYTHONPATH=str(broken)),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert f"the conformance suites in '{package}.conformance' cannot be imported" in done.stderr


def test_the_template_has_nothing_left_of_another(package: Path) -> None:
    # Its tests ran there, and may have left bytecode.
    made_by_others = {".git", "__pycache__"}
    files = [path for path in package.rglob("*") if path.is_file()]
    files = [path for path in files if made_by_others.isdisjoint(path.parts)]
    assert files
    assert not [path for path in files if "adapter" in path.read_text("utf-8").lower()]


def test_a_name_that_cannot_be_is_refused(plain_crucible: Crucible, tmp_path: Path) -> None:
    outcome = plain_crucible("new", "environment", "Maze")
    assert outcome.code == 2
    assert "'Maze' cannot be the name of a package" in outcome.err
    assert list(tmp_path.iterdir()) == []
