"""`crucible new adapter --add PORT`: another port for a package that its author has changed."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from commands import COMMAND, Crucible, clean_environ

MINE = "\n\n# mine\n"


@pytest.fixture(scope="module")
def generated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("new")
    command = [*COMMAND, "new", "adapter", "my-store", "--port", "blob_store"]
    subprocess.run(command, cwd=folder, env=clean_environ(), check=True, capture_output=True)
    return folder / "crucible-adapter-my-store"


@pytest.fixture
def package(generated: Path, tmp_path: Path) -> Path:
    """A package of one port, whose author has been at work."""
    folder = tmp_path / generated.name
    shutil.copytree(generated, folder)
    for name in ("README.md", "pyproject.toml", "src/crucible_adapter_my_store/failures.py"):
        with (folder / name).open("a") as file:
            file.write(MINE)
    return folder


def add(crucible: Crucible, package: Path, *arguments: str) -> None:
    outcome = crucible("new", "adapter", *arguments, "--folder", str(package))
    assert outcome.code == 0, outcome


def contents(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def test_it_adds_module_suite_test_and_entry_points_and_changes_nothing_else(
    plain_crucible: Crucible, package: Path
) -> None:
    before = contents(package)
    add(plain_crucible, package, "--add", "metrics_store")
    after = contents(package)
    assert sorted(after.keys() - before.keys()) == [
        "src/crucible_adapter_my_store/conformance/metrics_store.py",
        "src/crucible_adapter_my_store/metrics_store.py",
        "tests/test_metrics_store.py",
    ]
    assert [name for name in before if after[name] != before[name]] == ["pyproject.toml"]
    lines = before["pyproject.toml"].decode().splitlines()
    added = [
        '"metrics_store.my-store" = "crucible_adapter_my_store.metrics_store"',
        '"metrics_store.my-store" = "crucible_adapter_my_store.conformance.metrics_store"',
    ]
    here = [each for each, line in enumerate(lines) if line.startswith('"blob_store.my-store"')]
    for place, line in zip(reversed(here), reversed(added), strict=True):
        lines.insert(place + 1, line)
    assert after["pyproject.toml"].decode().splitlines() == lines


def test_what_was_added_lints(plain_crucible: Crucible, package: Path) -> None:
    pytest.importorskip("ruff", reason="ruff is not part of this environment")
    add(plain_crucible, package, "--add", "metrics_store", "--add", "completer")
    for command in (["ruff", "check", "--no-cache", "."], ["ruff", "format", "--check", "."]):
        done = subprocess.run(
            [sys.executable, "-m", *command],
            cwd=package,
            env=clean_environ(),
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done


def test_the_current_folder_is_the_package(package: Path) -> None:
    done = subprocess.run(
        [*COMMAND, "new", "adapter", "--add", "hub_client"],
        cwd=package,
        env=clean_environ(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done
    assert "crucible check hub_client.my-store" in done.stderr
    assert (package / "src/crucible_adapter_my_store/hub_client.py").is_file()


DOTTED = """[project]
name = "acme"
version = "1"
entry-points."crucible.adapters" = {"blob_store.acme" = "acme.blob_store"}
"""


def test_entry_points_in_a_form_that_cannot_be_extended_are_refused_and_left_alone(
    plain_crucible: Crucible, tmp_path: Path
) -> None:
    package = tmp_path / "package"
    (package / "src/acme").mkdir(parents=True)
    (package / "pyproject.toml").write_text(DOTTED)
    before = contents(package)
    outcome = plain_crucible("new", "adapter", "--add", "metrics_store", "--folder", str(package))
    assert outcome.code == 2, outcome
    assert "pyproject.toml has its entry points in a form that --add cannot extend" in outcome.err
    assert contents(package) == before
    asked = outcome.err.partition("command:")[2]
    points = {"crucible.adapters": {"blob_store.acme": "acme.blob_store"}}
    assert tomllib.loads(asked)["project"]["entry-points"] == points
    (package / "pyproject.toml").write_text(f'[project]\nname = "acme"\n{asked}')
    add(plain_crucible, package, "--add", "metrics_store")


def test_a_package_without_suites_of_its_own_gets_them(
    plain_crucible: Crucible, package: Path
) -> None:
    """As packages were generated before they shipped any; other layouts, and line breaks, too."""
    file = package / "pyproject.toml"
    lines = [line for line in file.read_text().splitlines() if "conformance" not in line]
    file.write_bytes("\r\n".join(lines).encode())
    (package / "src/crucible_adapter_my_store").rename(package / "crucible_adapter_my_store")
    for path in (package / "crucible_adapter_my_store/conformance").iterdir():
        path.unlink()
    add(plain_crucible, package, "--add", "completer")
    points = tomllib.loads(file.read_text())["project"]["entry-points"]
    assert points == {
        "crucible.adapters": {
            "blob_store.my-store": "crucible_adapter_my_store.blob_store",
            "completer.my-store": "crucible_adapter_my_store.completer",
        },
        "crucible.conformance": {
            "completer.my-store": "crucible_adapter_my_store.conformance.completer"
        },
    }
    assert b"# The core checks this range" in file.read_bytes()
    assert b"\r\n" in file.read_bytes()
    suites = package / "crucible_adapter_my_store/conformance"
    assert sorted(path.name for path in suites.iterdir()) == ["__init__.py", "completer.py"]


def test_a_file_of_the_ports_name_is_left_alone_without_a_terminal(
    plain_crucible: Crucible, package: Path
) -> None:
    module = package / "src/crucible_adapter_my_store/completer.py"
    module.write_text(MINE)
    before = contents(package)
    outcome = plain_crucible("new", "adapter", "--add", "completer", "--folder", str(package))
    assert outcome.code == 2
    assert "has its own src/crucible_adapter_my_store/completer.py" in outcome.err
    assert contents(package) == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--add", "blob_store"], "has an entry point blob_store.my-store already"),
        (["--add", "blobs"], "there is no port 'blobs'"),
        (["--add", "metric_store"], "did you mean 'metrics_store'?"),
        (["other", "--add", "completer"], "has no adapter 'other'; there is my-store"),
        (["--add", "completer", "--port", "hub_client"], "so --port has no place"),
    ],
)
def test_a_mistake_changes_nothing(
    plain_crucible: Crucible, package: Path, arguments: list[str], message: str
) -> None:
    before = contents(package)
    outcome = plain_crucible("new", "adapter", *arguments, "--folder", str(package))
    assert outcome.code == 2
    assert message in outcome.err
    assert contents(package) == before


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"[project", "is not valid TOML"),
        (b"\xff", "is not UTF-8"),
        (b'[project]\nname = "x"\n', "has no adapters under [project.entry-points"),
        (b"project = 3\n", "has no adapters under [project.entry-points"),
        (
            b'[project.entry-points."crucible.adapters"]\n"completer.a" = "x.completer"\n',
            "is not there, where the modules of the package should be",
        ),
        (
            b'[project.entry-points."crucible.adapters"]\n'
            b'"completer.a" = "x.completer"\n"completer.b" = "x.other"\n',
            "has adapters of several names; write `crucible new adapter NAME --add ...`",
        ),
    ],
)
def test_a_file_that_describes_no_package_is_explained(
    plain_crucible: Crucible, tmp_path: Path, text: bytes, message: str
) -> None:
    (tmp_path / "pyproject.toml").write_bytes(text)
    outcome = plain_crucible("new", "adapter", "--add", "blob_store", "--folder", str(tmp_path))
    assert outcome.code == 2, outcome
    assert message in outcome.err
    assert [path.name for path in tmp_path.iterdir()] == ["pyproject.toml"]
