"""The workflow of a generated package: what it tests, and what it refuses to publish."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
from commands import COMMAND, clean_environ

yaml = pytest.importorskip("yaml", reason="PyYAML is not part of this environment")

PINNED = re.compile(r"uses: [\w/.-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+$")
KINDS = {
    "adapter": ["--port", "blob_store", "--port", "hub_client"],
    "environment": [],
    "workflow": [],
}


@pytest.fixture(scope="module", params=KINDS)
def package(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("new")
    subprocess.run(
        [*COMMAND, "new", request.param, "acme", *KINDS[request.param]],
        cwd=folder,
        env=clean_environ(),
        check=True,
        capture_output=True,
    )
    return folder / f"crucible-{request.param}-acme"


@pytest.fixture(scope="module")
def text(package: Path) -> str:
    return (package / ".github/workflows/ci.yml").read_text("utf-8")


@pytest.fixture(scope="module")
def jobs(text: str) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(text)["jobs"]
    return found


def script(job: dict[str, Any], name: str) -> str:
    [step] = [each for each in job["steps"] if each.get("name", "").startswith(name)]
    found: str = step["run"]
    return found


def outcome(script: str, folder: Path, **environ: str) -> subprocess.CompletedProcess[str]:
    """Run a step as GitHub does: `bash -e`."""
    return subprocess.run(
        ["bash", "-e", "-c", script],
        cwd=folder,
        env=clean_environ(**environ),
        capture_output=True,
        text=True,
        check=False,
    )


def test_every_action_is_pinned_by_commit_with_its_version_behind(package: Path, text: str) -> None:
    used = [line for line in text.splitlines() if "uses:" in line]
    assert len(used) >= 7
    for line in used:
        assert PINNED.search(line), line
    assert "github-actions" in (package / ".github/dependabot.yml").read_text("utf-8")


def test_the_wheel_is_tested_and_not_the_source(jobs: dict[str, Any]) -> None:
    steps = [str(step.get("run") or step.get("uses")) for step in jobs["test"]["steps"]]
    assert jobs["test"]["needs"] == "build"
    assert any(each.startswith("actions/download-artifact@") for each in steps)
    [install] = [each for each in steps if "pip install" in each]
    assert "dist/*.whl" in install
    assert "-e" not in install.split()


def test_the_lowest_core_is_tested_and_the_newest(package: Path, jobs: dict[str, Any]) -> None:
    matrix = jobs["test"]["strategy"]["matrix"]
    assert {*matrix["core"], *(each["core"] for each in matrix["include"])} == {"newest", "lowest"}
    step = script(jobs["test"], "The oldest core")
    ran = outcome(step, package)
    assert ran.returncode == 0, ran
    bound = re.search(
        r"crucible-kitchen>=([\d.]+)", (package / "pyproject.toml").read_text("utf-8")
    )
    assert bound is not None
    assert (package / "constraints.txt").read_text("utf-8") == f"crucible-kitchen=={bound[1]}\n"


@pytest.mark.parametrize(
    "written",
    ['"crucible-kitchen >= 1.2.3"', '"crucible-kitchen>=1.2.3,!=1.9.*"', '"crucible-kitchen"'],
)
def test_the_lowest_core_is_read_as_people_write_it(
    jobs: dict[str, Any], tmp_path: Path, written: str
) -> None:
    (tmp_path / "pyproject.toml").write_text(f'dependencies = [{written}, "pydantic>=2"]\n')
    ran = outcome(script(jobs["test"], "The oldest core"), tmp_path)
    if ">" not in written:
        assert ran.returncode != 0  # nothing to test with is not the lowest
    else:
        assert (tmp_path / "constraints.txt").read_text() == "crucible-kitchen==1.2.3\n"


@pytest.mark.parametrize(("tag", "code"), [("v0.1.0", 0), ("v0.1.1", 1), ("0.1.0", 1), ("", 1)])
def test_a_tag_that_is_not_the_version_is_not_published(
    package: Path, jobs: dict[str, Any], tag: str, code: int
) -> None:
    ran = outcome(script(jobs["build"], "The tag"), package, GITHUB_REF_NAME=tag)
    assert ran.returncode == code, ran
    assert ("::error::the tag is" in ran.stdout) == bool(code)
    assert "build" in jobs["publish"]["needs"]
    assert "test" in jobs["publish"]["needs"]
