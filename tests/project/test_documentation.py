"""What the documentation refers to exists."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
from crucible_kitchen.cli.app import COMMANDS

ROOT = Path(__file__).resolve().parents[2]
ADAPTERS = ROOT / "docs" / "reference" / "adapters"
MADE = {  # by docs/adapter_pages.py, when the documentation is built
    ADAPTERS / f"{name}.md"
    for name in ("index", "noop", *(folder.name for folder in ROOT.glob("plugins/*")))
}
PAGES = sorted(
    page
    for pattern in ("*.md", "docs/**/*.md", "kitchen_noop/*.md", "plugins/*/*.md")
    for page in ROOT.glob(pattern)
    if page not in MADE
)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_relative_link_of_a_page_leads_to_a_file(page: Path) -> None:
    prose = re.sub(r"^```.*?^```", "", page.read_text("utf-8"), flags=re.DOTALL | re.MULTILINE)
    targets = re.findall(r"\]\(([^)\s#]+)[^)]*\)", prose)
    relative = [target for target in targets if "://" not in target]
    leads = [(page.parent / target).resolve() for target in relative]
    assert [file for file in leads if not file.exists() and file not in MADE] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_that_install_from_a_clone_name_all_packages_that_are_needed(page: Path) -> None:
    here = {name_of(folder) for folder in FOLDERS}
    named: set[str] = set()
    for command in re.findall(r"^\$ .*pip install.*", page.read_text("utf-8"), re.MULTILINE):
        paths = [ROOT / re.sub(r"\[.*", "", path) for path in re.findall(r"-e (\S+)", command)]
        folders = [path for path in paths if path in FOLDERS]
        named |= {name_of(folder) for folder in folders}
        needed = {name for folder in folders for name in needs_of(folder)}
        # Not on PyPI yet, so pip finds those that are named at the same time, or were before.
        assert needed & here <= named, command


FOLDERS = [ROOT / "core", ROOT / "kitchen_noop", *sorted(ROOT.glob("plugins/*"))]


def project_of(folder: Path) -> dict[str, Any]:
    project: dict[str, Any] = tomllib.loads((folder / "pyproject.toml").read_text("utf-8"))
    return dict(project["project"])


def name_of(folder: Path) -> str:
    return str(project_of(folder)["name"])


def needs_of(folder: Path) -> list[str]:
    return [re.split(r"[^\w-]", need)[0] for need in project_of(folder)["dependencies"]]


def test_the_page_of_the_command_has_the_help_of_every_command() -> None:
    page = (ROOT / "docs" / "use" / "command.md").read_text("utf-8")
    assert [name for name in COMMANDS if f"\n```{{command}} {name}" not in page] == []
