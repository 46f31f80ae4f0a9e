"""What is released: every wheel and every source distribution, as they are built."""

from __future__ import annotations

import email
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from configparser import ConfigParser
from email.message import Message
from pathlib import Path, PurePosixPath
from typing import Any

import pytest
from commands import COMMAND, clean_environ

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
PACKAGES = [
    folder
    for folder in (ROOT / "core", ROOT / "kitchen_noop", *sorted((ROOT / "plugins").iterdir()))
    if (folder / "pyproject.toml").exists()
]
by_name = pytest.mark.parametrize("built", PACKAGES, ids=lambda path: path.name, indirect=True)

# The wheel comes from the source distribution, as it does where `python -m build` makes both.
BUILD = """
import os, sys, tarfile
from hatchling import build
source = build.build_sdist(sys.argv[1])
with tarfile.open(f"{sys.argv[1]}/{source}") as archive:
    archive.extractall(sys.argv[2], filter="data")
os.chdir(f"{sys.argv[2]}/{source.removesuffix('.tar.gz')}")
build.build_wheel(sys.argv[1])
"""
# Files that lie about in a folder in use.
STRAY = (
    ".env",
    "notes.txt",
    "build/lib/old.py",
    "dist/old.whl",
    "src/{package}/__pycache__/old.cpython-311.pyc",
    "src/{package}/old.pyc",
    "tests/test_stray.py",
    "tests/__pycache__/old.cpython-311.pyc",
    "runs/weights.safetensors",
    ".hypothesis/examples/x",
    ".mypy_cache/x.json",
    ".pytest_cache/x",
)


class Built:
    """A package that was built: its project table, and the files of both archives by name."""

    def __init__(self, source: Path, work: Path) -> None:
        self.source = source
        self.project: dict[str, Any] = tomllib.loads(
            (source / "pyproject.toml").read_text(encoding="utf-8")
        )["project"]
        [package] = (path.name for path in (source / "src").iterdir() if path.name[0] != ".")
        self.package = package
        copy = work / "copy"
        # Alone, without the repository around it, and without a .gitignore.
        shutil.copytree(source, copy, ignore=shutil.ignore_patterns("__pycache__", ".*_cache"))
        for name in STRAY:
            stray = copy / name.format(package=package)
            stray.parent.mkdir(parents=True, exist_ok=True)
            stray.touch()
        into = work / "dist"
        _python(copy, "-c", BUILD, str(into), str(work / "unpacked"))
        [wheel], [sdist] = into.glob("*.whl"), into.glob("*.tar.gz")
        with zipfile.ZipFile(wheel) as archive:
            self.wheel = {name: archive.read(name) for name in archive.namelist()}
        with tarfile.open(sdist) as tar:
            self.sdist = {
                PurePosixPath(*PurePosixPath(member.name).parts[1:]).as_posix(): file.read()
                for member in tar
                if (file := tar.extractfile(member))
            }

    @property
    def modules(self) -> set[str]:
        """The files of the package itself, as they lie in `src`."""
        files = (path for path in (self.source / "src").rglob("*") if path.is_file())
        return {
            path.relative_to(self.source / "src").as_posix()
            for path in files
            if path.suffix != ".pyc" and not path.parent.name.endswith("_cache")
        }

    def in_wheel(self, name: str) -> bytes:
        """A file of the wheel's `dist-info`."""
        [found] = (name_ for name_ in self.wheel if name_.endswith(f".dist-info/{name}"))
        return self.wheel[found]

    def metadata(self) -> tuple[Message, Message]:
        """The metadata of the wheel, and of the source distribution."""
        return (
            email.message_from_string(self.in_wheel("METADATA").decode()),
            email.message_from_string(self.sdist["PKG-INFO"].decode()),
        )


def _python(folder: Path, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env=clean_environ(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def built(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Built:
    source: Path = request.param
    return Built(source, tmp_path_factory.mktemp(source.name))


def test_every_package_of_the_repository_is_looked_at() -> None:
    found = {path.parent for path in ROOT.glob("*/pyproject.toml")}
    found |= {path.parent for path in ROOT.glob("plugins/*/pyproject.toml")}
    assert set(PACKAGES) == found
    assert len(found) >= 11


@by_name
def test_the_text_of_the_licence_is_in_the_wheel_and_in_the_source(built: Built) -> None:
    text = (ROOT / "LICENSE").read_bytes()
    assert b"Apache License" in text
    assert built.in_wheel("licenses/LICENSE") == text
    assert built.sdist["LICENSE"] == text
    for metadata in built.metadata():
        assert metadata["License-Expression"] == "Apache-2.0"
        assert metadata.get_all("License-File") == ["LICENSE"]


@by_name
def test_a_wheel_holds_the_package_and_nothing_else(built: Built) -> None:
    [info] = {name.split("/")[0] for name in built.wheel if ".dist-info/" in name}
    files = {name for name in built.wheel if not name.startswith(f"{info}/")}
    assert files == built.modules
    assert f"{built.package}/py.typed" in files
    about = {name.removeprefix(f"{info}/") for name in built.wheel if name not in files}
    assert about == {"METADATA", "WHEEL", "RECORD", "licenses/LICENSE", "entry_points.txt"}


@by_name
def test_a_source_distribution_holds_what_the_wheel_is_built_from_and_nothing_else(
    built: Built,
) -> None:
    sources = {f"src/{name}" for name in built.modules}
    assert set(built.sdist) == sources | {"LICENSE", "PKG-INFO", "README.md", "pyproject.toml"}
    assert built.sdist["pyproject.toml"].decode() == (built.source / "pyproject.toml").read_text(
        encoding="utf-8"
    )


@by_name
def test_the_metadata_is_what_the_project_says(built: Built) -> None:
    project = built.project
    for metadata in built.metadata():
        assert metadata["Name"] == project["name"]
        assert metadata["Version"] == project["version"]
        assert metadata["Summary"] == project["description"]
        assert metadata["Requires-Python"] == project["requires-python"]
        readme = (built.source / "README.md").read_text(encoding="utf-8")
        assert str(metadata.get_payload()).strip() == readme.strip()
        needed = [need for need in metadata.get_all("Requires-Dist", []) if "extra ==" not in need]
        assert len(needed) == len(project.get("dependencies", []))


@by_name
def test_the_entry_points_are_in_the_wheel_and_lead_to_modules_of_it(built: Built) -> None:
    points = ConfigParser(delimiters="=")
    points.optionxform = str  # type: ignore[assignment,method-assign]
    points.read_string(built.in_wheel("entry_points.txt").decode())
    said = {
        ("console_scripts", name): value for name, value in built.project.get("scripts", {}).items()
    }
    for group, entries in built.project.get("entry-points", {}).items():
        said |= {(group, name): value for name, value in entries.items()}
    assert {
        (group, name): value for group in points.sections() for name, value in points[group].items()
    } == said
    for value in said.values():
        path = value.partition(":")[0].replace(".", "/")
        assert {f"{path}.py", f"{path}/__init__.py"} & set(built.wheel), value


def test_a_licence_that_the_author_of_a_new_adapter_chooses_is_released_with_it(
    tmp_path: Path,
) -> None:
    _python(tmp_path, *COMMAND[1:], "new", "adapter", "acme", "--port", "blob_store")
    package = tmp_path / "crucible-adapter-acme"
    (package / "LICENSE").write_text("Do what you like.")
    built = Built(package, tmp_path / "work")
    assert built.in_wheel("licenses/LICENSE") == b"Do what you like."
    assert built.sdist["LICENSE"] == b"Do what you like."


# --- what a package imports is what it asks for ---


def _deptry(package: Path) -> str:
    pytest.importorskip("deptry", reason="deptry is not part of this environment")
    done = subprocess.run(
        [sys.executable, "-m", "deptry", "src", "--no-ansi"],
        cwd=package,
        env=clean_environ(),
        capture_output=True,
        text=True,
        check=False,
    )
    return "\n".join(line for line in done.stderr.splitlines() if ": DEP" in line)


@pytest.mark.parametrize("package", PACKAGES, ids=lambda path: path.name)
def test_what_is_imported_is_declared_and_what_is_declared_is_imported(package: Path) -> None:
    assert _deptry(package) == ""


def test_an_import_without_a_dependency_and_one_without_an_import_are_found(tmp_path: Path) -> None:
    (tmp_path / "src" / "acme").mkdir(parents=True)
    (tmp_path / "src" / "acme" / "__init__.py").write_text("def f():\n    import numpy\n")
    (tmp_path / "pyproject.toml").write_text(
        '[project]\nname = "acme"\nversion = "1"\ndependencies = ["pydantic"]\n'
    )
    found = _deptry(tmp_path)
    assert "'numpy' imported but" in found
    assert "'pydantic' defined as a dependency but not used" in found
