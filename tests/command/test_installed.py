"""`crucible workflows`, `environments` and `observers`: what is installed, and its settings."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from commands import Crucible

WORKFLOW = '''
from pydantic import Field
from crucible_kitchen import Kitchen, WorkflowConfig

class Config(WorkflowConfig):
    times: int = Field(default=3, ge=1)
    """How often."""
    word: str
    """What to repeat."""

def repeat(kitchen: Kitchen, config: Config) -> None:
    """Say a word again
    and again.

    Not more.

    Raises:
        InvalidInput: never.
    """
'''


@pytest.mark.parametrize(
    ("group", "name"), [("workflows", "supervised"), ("environments", "arithmetic")]
)
def test_what_is_installed_is_listed_with_its_package_and_purpose(
    plain_crucible: Crucible, group: str, name: str
) -> None:
    outcome = plain_crucible(group)
    assert outcome.code == 0, outcome.err
    assert outcome.out == plain_crucible(group, "list").out
    [line] = [line for line in outcome.out.splitlines() if line.startswith(f"{name} ")]
    assert "crucible-kitchen" in line
    listed = {each["name"]: each for each in json.loads(plain_crucible(group, "--json").out)}
    assert listed[name]["package"] == "crucible-kitchen"
    assert listed[name]["description"] in line
    assert listed[name]["problem"] is None


def test_a_package_that_cannot_be_imported_is_listed_with_the_reason(
    tmp_path: Path, plain_crucible: Crucible
) -> None:
    (tmp_path / "broken.py").write_text("import a_module_that_nobody_has")
    about = tmp_path / "broken-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: broken\nVersion: 1.0\n")
    groups = ("workflows", "environments", "observers")
    points = "\n".join(f"[crucible.{group}]\nbroken = broken:it\n" for group in groups)
    (about / "entry_points.txt").write_text(points)
    for group in groups:
        outcome = plain_crucible(group, "--json", PYTHONPATH=str(tmp_path))
        assert outcome.code == 0, outcome.err
        found = {each["name"]: each for each in json.loads(outcome.out)}
        assert "No module named 'a_module_that_nobody_has'" in found["broken"]["problem"]
        shown = plain_crucible(group, "show", "broken", PYTHONPATH=str(tmp_path))
        assert shown.code == 2
        assert "broken (broken 1.0) cannot be imported" in shown.err


def test_packages_with_malformed_metadata_hide_no_other(crucible: Crucible) -> None:
    outcome = crucible("workflows")
    assert outcome.code == 0
    assert "\nsupervised " in outcome.out
    assert " is malformed; `crucible doctor` says which" in outcome.err


def test_a_workflow_is_shown_with_its_settings(plain_crucible: Crucible, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(WORKFLOW)
    outcome = plain_crucible("workflows", "show", "mine.py:repeat")
    assert outcome.code == 0, outcome.err
    assert outcome.out == (
        "mine.py:repeat\n"
        "\n"
        "Say a word again and again.\n"
        "\n"
        "Not more.\n"
        "\n"
        "setting  type  default   meaning\n"
        "times    int   3         How often.\n"
        "word     str   required  What to repeat.\n"
    )
    said = json.loads(plain_crucible("workflows", "show", "mine.py:repeat", "--json").out)
    assert said["settings"][0] == {
        "name": "times",
        "type": "int",
        "default": "3",
        "meaning": "How often.",
    }


def test_every_setting_of_an_installed_workflow_has_a_meaning(plain_crucible: Crucible) -> None:
    for each in json.loads(plain_crucible("workflows", "--json").out):
        if each["package"] == "crucible-kitchen":
            said = json.loads(plain_crucible("workflows", "show", each["name"], "--json").out)
            assert said["settings"]
            assert [s["name"] for s in said["settings"] if not s["meaning"]] == []


def test_an_environment_is_shown_with_its_options(plain_crucible: Crucible) -> None:
    outcome = plain_crucible("environments", "show", "arithmetic")
    assert outcome.code == 0, outcome.err
    assert "\noption " in outcome.out
    assert "\nlargest " in outcome.out
    assert "Args:" not in outcome.out


@pytest.mark.parametrize(
    ("group", "name", "message"),
    [
        ("workflows", "supervisd", "no workflow is named 'supervisd'; did you mean 'supervised'?"),
        ("environments", "arithmetik", "no environment is named 'arithmetik'; did you mean"),
        ("observers", "nothing-like-it", "no observer is named 'nothing-like-it'"),
        ("workflows", "json:dumps", "must be a function of (kitchen, config)"),
        ("workflows", "nowhere:it", "there is no module 'nowhere'"),
        ("environments", "json:dumps", "must take one argument"),
    ],
)
def test_a_name_that_means_nothing_is_a_mistake(
    mistake: Callable[..., str], group: str, name: str, message: str
) -> None:
    assert message in " ".join(mistake(group, "show", name).split())
