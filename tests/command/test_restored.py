"""A kitchen that was locked in one environment, rebuilt in an empty one: the same weights."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import sysconfig
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import importlib_metadata
import numpy as np
import pytest
from commands import Outcome, clean_environ
from crucible_kitchen.locking.environment import Environment
from packaging.tags import sys_tags

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
ROOTS = ("crucible-kitchen", "crucible-adapter-fsspec", "crucible-adapter-jsonl", "tomli-w")
OURS = ("core", "kitchen_noop", "plugins/fsspec", "plugins/jsonl")

PYPROJECT = """
[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"
[project]
name = "acme-bigram"
version = "{version}"
dependencies = ["crucible-adapter-noop", "numpy"]
[project.entry-points."crucible.adapters"]
"training_client.bigram" = "acme_bigram"
[tool.hatch.build.targets.wheel]
include = ["*.py"]
"""
ADAPTER = """
from bigram_training_client import *
from bigram_training_client import Options
from crucible_kitchen import helper
from kitchen_noop.tokenizer import CharTokenizer

@helper
def get_tokenizer(opts: Options, session):
    return CharTokenizer()
"""
CONFIGURATION = """
[adapters]
training_client = "bigram"
dataset_store = "noop"
metrics_store = { use = "jsonl", path = "metrics" }
blob_store = { use = "fsspec", url = "runs" }
[workflow]
use = "supervised"
model = "bigram"
dataset = "x"
max_steps = 3
run_id = "mine"
"""


@dataclass(frozen=True)
class Place:
    """A virtual environment, and a folder in it with settings."""

    folder: Path

    @property
    def python(self) -> str:
        return str(self.folder / "bin" / "python")

    @property
    def kitchen(self) -> Path:
        return self.folder / "kitchen"

    @property
    def site(self) -> Path:
        return Path(sysconfig.get_path("purelib", "venv", {"base": str(self.folder)}))

    @classmethod
    def made(cls, folder: Path) -> Place:
        run([sys.executable, "-m", "venv", "--without-pip", str(folder)], folder.parent)
        place = cls(folder)
        place.kitchen.mkdir()
        (place.kitchen / "crucible.toml").write_text(CONFIGURATION)
        return place

    def crucible(self, *arguments: str) -> Outcome:
        code = f"import sys; sys.argv[1:] = {list(arguments)!r}; "
        code += "from crucible_kitchen.cli import main; main()"
        command = [self.python, "-c", code]
        done = subprocess.run(
            command, cwd=self.kitchen, env=environ(), capture_output=True, text=True, timeout=300
        )
        return Outcome(done.returncode, done.stdout, done.stderr)

    def weights(self) -> str:
        """Train, and return the digest of the weights."""
        outcome = self.crucible("run", "--locked")
        assert outcome.code == 0, outcome
        [file] = (self.kitchen / "checkpoints").glob("*.npz")
        digest = hashlib.sha256()
        with np.load(file) as arrays:
            for name in ("weights", "mean", "variance"):
                digest.update(arrays[name].tobytes())
        return digest.hexdigest()


def environ() -> dict[str, str]:
    return {k: v for k, v in clean_environ().items() if k not in ("PYTHONPATH", "VIRTUAL_ENV")}


def run(command: list[str], folder: Path) -> None:
    done = subprocess.run(command, cwd=folder, env=environ(), capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def install(place: Place, *arguments: str) -> None:
    pip = [sys.executable, "-m", "pip", "--python", place.python, "install", "--no-index"]
    run([*pip, *arguments], place.folder)


def build(source: Path, wheels: Path) -> None:
    program = "import sys, hatchling.build; hatchling.build.build_wheel(sys.argv[1])"
    run([sys.executable, "-c", program, str(wheels)], source)


def acme(folder: Path, version: str, wheels: Path) -> None:
    """Build the bigram model of the documentation as a package."""
    folder.mkdir()
    (folder / "pyproject.toml").write_text(PYPROJECT.format(version=version))
    (folder / "acme_bigram.py").write_text(ADAPTER)
    example = ROOT / "docs" / "examples" / "bigram_training_client.py"
    (folder / example.name).write_text(example.read_text())
    build(folder, wheels)


def repacked(name: str, wheels: Path) -> None:
    """Make a wheel again of a distribution that is installed here: tests ask no index."""
    found = importlib_metadata.distribution(name)
    lines = list(kept_lines(found))
    about = Path(str(found._path)).name  # type: ignore[attr-defined]
    said = (found.read_text("WHEEL") or "").splitlines()
    tags = [line.partition(":")[2].strip() for line in said if line.startswith("Tag:")]
    tag = next(tag for tag in tags if tag in set(map(str, sys_tags())))
    file = wheels / f"{about.removesuffix('.dist-info')}-{tag}.whl"
    with zipfile.ZipFile(file, "w") as archive:
        for line in lines:
            path = line.rpartition(",sha256=")[0].strip('"')
            archive.write(str(found.locate_file(path)), path)
        archive.writestr(f"{about}/RECORD", "\n".join([*lines, f"{about}/RECORD,,", ""]))


def kept_lines(found: importlib_metadata.Distribution) -> Iterator[str]:
    added = ("/INSTALLER,", "/REQUESTED,", "/direct_url.json,", "/uv_cache.json,")
    for line in (found.read_text("RECORD") or "").splitlines():
        if ",sha256=" in line and not line.startswith("../") and not any(a in line for a in added):
            yield line


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with wheels of all that the kitchen needs."""
    folder = tmp_path_factory.mktemp("wheels")
    for source in OURS:
        build(ROOT / source, folder)
    acme(tmp_path_factory.mktemp("sources") / "acme", "1.0", folder)
    needed, missing = Environment.here().closure({name: [] for name in ROOTS})
    assert not missing
    repacked("pip", folder)
    for name in needed:
        if not name.startswith("crucible-"):
            repacked(name, folder)
    return folder


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory, wheels: Path) -> Place:
    """The environment in which the kitchen is put together by hand, and locked."""
    place = Place.made(tmp_path_factory.mktemp("environments") / "first")
    names = ["acme-bigram", "crucible-adapter-fsspec", "crucible-adapter-jsonl", "pip"]
    install(place, *names, "--find-links", str(wheels))
    outcome = place.crucible("lock", "--find-links", str(wheels))
    assert outcome.code == 0, outcome
    assert "is not known here" not in outcome.err
    return place


@pytest.fixture(scope="module")
def empty(first: Place, tmp_path_factory: pytest.TempPathFactory) -> Place:
    """An environment in which nothing is installed, with the lock of the first."""
    place = Place.made(tmp_path_factory.mktemp("environments") / "second")
    (place.kitchen / "pylock.toml").write_text((first.kitchen / "pylock.toml").read_text())
    assert list(place.site.iterdir()) == []
    return place


@pytest.fixture
def second(first: Place, empty: Place, wheels: Path) -> Place:
    """The same once `crucible sync` has restored the lock, in whatever state it was."""
    assert synced(first, empty, wheels).code == 0
    return empty


def synced(first: Place, place: Place, wheels: Path) -> Outcome:
    """Run `crucible sync` of the first environment on another one."""
    where = ("--python", place.python, "--find-links", str(wheels), "--no-index")
    return first.crucible("sync", str(place.kitchen / "pylock.toml"), *where)


def test_one_command_rebuilds_a_locked_kitchen_in_an_empty_environment(
    first: Place, second: Place
) -> None:
    outcome = second.crucible("lock", "--check")
    assert outcome.out == "everything is as pylock.toml says\n", outcome
    assert second.weights() == first.weights()


def test_what_was_changed_is_refused_and_then_restored(
    first: Place, second: Place, wheels: Path, tmp_path: Path
) -> None:
    module = second.site / "acme_bigram.py"
    module.write_text(module.read_text() + "# patched\n")
    outcome = second.crucible("run", "--locked")
    assert "acme-bigram was changed after it was installed: acme_bigram.py" in outcome.err

    acme(tmp_path / "newer", "1.1", tmp_path)
    [newer] = tmp_path.glob("acme_bigram-1.1-*.whl")
    install(second, str(newer), "--no-deps")
    outcome = second.crucible("run", "--locked")
    assert (outcome.code, "acme-bigram is 1.1, locked is 1.0" in outcome.err) == (2, True), outcome

    outcome = synced(first, second, wheels)
    assert "acme-bigram" in outcome.out
    assert outcome.out.endswith("\neverything is installed as it is locked\n")
    assert "numpy" not in outcome.out
    assert second.crucible("lock", "--check").code == 0


def test_an_adapter_is_installed_and_uninstalled_while_another_is_broken(
    second: Place, wheels: Path
) -> None:
    install(second, "pip", "--find-links", str(wheels))
    (second.site / "acme_bigram.py").write_text("raise SystemExit('broken')")
    outcome = second.crucible("uninstall", "jsonl")
    assert (outcome.code, "metrics_store.jsonl is gone" in outcome.out) == (0, True), outcome
    outcome = second.crucible("install", "jsonl", "--no-index", "--find-links", str(wheels))
    assert outcome.code == 0, outcome
    assert "metrics_store.jsonl (crucible-adapter-jsonl 0.1.0)" in outcome.out
    assert "-m pip install" in outcome.err
    assert "may not be loaded" not in outcome.err
    outcome = second.crucible("uninstall", "bigram")
    assert outcome.code == 0, outcome
    assert not (second.site / "acme_bigram.py").exists()


def test_plugins_that_are_not_in_the_lock_stay_until_they_are_pruned(
    first: Place, second: Place, wheels: Path, tmp_path: Path
) -> None:
    install(second, "pip", "--find-links", str(wheels))
    build(ROOT / "plugins" / "compose", tmp_path)
    install(second, *map(str, tmp_path.glob("*.whl")), "--no-deps")
    outcome = second.crucible("sync")
    assert "not in the lock, and kept: crucible-adapter-compose" in outcome.err
    outcome = second.crucible("sync", "--prune")
    assert outcome.code == 0, outcome
    assert "compose" not in second.crucible("adapters").out
    assert second.crucible("lock", "--check").code == 0
