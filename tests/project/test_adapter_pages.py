"""The pages of the adapters in the documentation, which are made from their code."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import pytest
from crucible_kitchen.adapters import binding
from crucible_kitchen.adapters.discovery import ADAPTERS, ENVIRONMENTS, OBSERVERS
from crucible_kitchen.configuration import chosen
from crucible_kitchen.observers import installed
from pydantic import BaseModel

ROOT = Path(__file__).resolve().parents[2]
HEAVY = {"torch", "transformers", "datasets", "pyarrow", "pandas", "sqlalchemy", "openai", "fsspec"}


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write every page, in a process of its own; return their folder."""
    folder = tmp_path_factory.mktemp("pages")
    code = f"""
import sys
from pathlib import Path
from typing import Any
import adapter_pages

for name, text in adapter_pages.pages().items():
    Path({str(folder)!r}, name + ".md").write_text(text, "utf-8")
print(*sorted({HEAVY!r} & set(sys.modules)))
"""
    command = [sys.executable, "-c", code]
    outcome = subprocess.run(command, cwd=ROOT / "docs", capture_output=True, text=True)
    assert (outcome.returncode, outcome.stderr) == (0, "")
    (folder / "imported").write_text(outcome.stdout)
    return folder


def short(package: str) -> str:
    """Return the name of a package without what tells its kind."""
    return package.removeprefix("crucible-").partition("-")[2]


def options_class(group: str, found: Any, name: str) -> type[BaseModel] | None:
    if group == ENVIRONMENTS:
        return chosen.options_class(found)
    of = installed.options_class if group == OBSERVERS else binding.options_class
    return of(found, name)


def test_each_package_has_a_page(pages: Path) -> None:
    manifests = [ROOT / "kitchen_noop/pyproject.toml", *ROOT.glob("plugins/*/pyproject.toml")]
    names = [tomllib.loads(path.read_text("utf-8"))["project"]["name"] for path in manifests]
    expected = {short(name) for name in names}
    assert {page.stem for page in pages.glob("*.md")} == expected | {"index"}


def test_a_page_documents_every_option_of_every_adapter(pages: Path) -> None:
    checked = set()
    for group in (ADAPTERS, ENVIRONMENTS, OBSERVERS):
        for entry in entry_points(group=group):
            page = pages / f"{short(entry.dist.name if entry.dist else '')}.md"
            if not page.exists():
                continue
            text = page.read_text("utf-8")
            options = options_class(group, entry.load(), entry.name)
            for name, field in (options.model_fields if options else {}).items():
                assert f"\n`{name}`: `" in text, (entry.name, name)
                assert field.description, (entry.name, name)
            checked.add(page.stem)
    assert {"noop", "jsonl", "compose"} <= checked


def test_a_page_is_made_without_the_libraries_of_the_adapters(pages: Path) -> None:
    assert (pages / "imported").read_text() == "\n"
