"""What the documentation refers to exists."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from crucible_kitchen.cli.app import app

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


def test_the_page_of_the_command_has_the_help_of_every_command() -> None:
    page = (ROOT / "docs" / "use" / "command.md").read_text("utf-8")
    commands = [command.name for command in app.registered_commands]
    groups = [group.name for group in app.registered_groups]
    assert {"run", "adapters"} <= {*commands, *groups}
    assert [n for n in (*commands, *groups) if f"\n```{{command}} {n}" not in page] == []
