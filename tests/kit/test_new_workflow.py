"""From an empty folder to an installed workflow: `crucible new workflow`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from commands import COMMAND, Crucible, clean_environ

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
CONFIG = """
[adapters]
training_client = { use = "noop", latency_scale = 0 }
dataset_store = { use = "noop", latency_scale = 0 }
blob_store = "noop"
metrics_store = "noop"
[workflow]
use = "best-of-it"
model = "any"
dataset = "any"
max_steps = 2
"""


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
    python(folder, *COMMAND[1:], "new", "workflow", "best-of-it", "--author", 'Ann "A" Author')
    return folder / "crucible-workflow-best-of-it"


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
    assert "3 passed" in said


def test_it_type_checks_and_lints_as_generated(package: Path) -> None:
    pytest.importorskip("mypy", reason="mypy and ruff are not part of this environment")
    python(package, "-m", "ruff", "check", "--no-cache", ".")
    python(package, "-m", "ruff", "format", "--no-cache", "--check", ".")
    sources = os.pathsep.join(str(ROOT / each) for each in ("core/src", "kitchen_noop/src"))
    python(package, "-m", "mypy", "--cache-dir", os.devnull, MYPYPATH=sources)


def test_once_installed_it_is_listed_shown_and_run_by_its_name(site: Path, tmp_path: Path) -> None:
    (tmp_path / "crucible.toml").write_text(CONFIG)

    def crucible(*arguments: str) -> str:
        return python(tmp_path, *COMMAND[1:], *arguments, PYTHONPATH=str(site))

    [mine] = [each for each in json.loads(crucible("workflows", "--json")) if "it" in each["name"]]
    assert mine == {
        "name": "best-of-it",
        "package": "crucible-workflow-best-of-it",
        "version": "0.1.0",
        "description": "Fine-tune a model on rows, where tokens that it is sure of count less.",
        "problem": None,
    }
    assert "gamma" in crucible("workflows", "show", "best-of-it")
    assert "steps       2" in crucible("run")


@pytest.mark.parametrize("name", ["Acme", "class", "train"])
def test_a_name_that_cannot_be_is_refused(
    plain_crucible: Crucible, tmp_path: Path, name: str
) -> None:
    outcome = plain_crucible("new", "workflow", name)
    assert outcome.code == 2
    assert f"{name!r} cannot be the name" in outcome.err
    assert list(tmp_path.iterdir()) == []
