"""How Sphinx builds these pages: `tox -e docs`."""

import re
import sys
from importlib import import_module
from pathlib import Path

from crucible_kitchen import __version__
from crucible_kitchen.cli.app import app as cli
from docutils import nodes
from docutils.statemachine import StringList
from sphinx.application import Sphinx
from sphinx.ext.autodoc.mock import mock
from sphinx.ext.napoleon import GoogleDocstring
from sphinx.util.docutils import SphinxDirective
from typer.testing import CliRunner

sys.path.insert(0, str(Path(__file__).parent))

import adapter_pages

project = "Crucible Kitchen"
author = "The Crucible Kitchen developers"
copyright = author
release = version = __version__

extensions = ["myst_parser", "sphinx.ext.autodoc"]
exclude_patterns = ["_build", "examples", "requirements.txt"]
html_theme = "furo"
html_title = project

myst_enable_extensions = ["deflist", "fieldlist"]
myst_heading_anchors = 3

default_role = "code"  # docstrings put code in single backquotes
autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
autodoc_default_options = {"members": True, "show-inheritance": True}


class Settings(SphinxDirective):  # type: ignore[misc]
    """The settings of a pydantic class, `{settings} module:Class`, from its fields."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        module, _, name = self.arguments[0].partition(":")
        text = adapter_pages.settings(getattr(import_module(module), name))
        parent = nodes.container()
        self.state.nested_parse(StringList(text.splitlines(), self.arguments[0]), 0, parent)
        return list(parent.children)


class CommandHelp(SphinxDirective):  # type: ignore[misc]
    """What `crucible run --help` prints at 80 columns: `{command} run`; of all, `{command}`."""

    optional_arguments = 1
    final_argument_whitespace = True

    def run(self) -> list[nodes.Node]:
        arguments = [*(self.arguments[0].split() if self.arguments else ()), "--help"]
        outcome = CliRunner().invoke(cli, arguments, prog_name="crucible", env={"COLUMNS": "80"})
        if outcome.exit_code:
            raise self.error(outcome.output)
        return [nodes.literal_block("", outcome.output, language="text")]


def as_restructuredtext(
    app: Sphinx, what: str, name: str, obj: object, options: object, lines: list[str]
) -> None:
    """Turn a docstring's Markdown and Google's sections into reStructuredText.

    Attributes have no sections. The extension napoleon would read what comes before a colon in
    their first line as a type, so it is not used as such.
    """
    text = "\n".join(lines)
    text = re.sub(r"^(\S.*)\n\n(?= {4}\S)", r"\1\n\n::\n\n", text, flags=re.MULTILINE)
    text = re.sub(r"(`[^`\n]+`)(?=\w)", r"\1\\ ", text)  # `AdapterError`s
    text = re.sub(r"(?:^\|.*\|$\n?)+", _list_table, text, flags=re.MULTILINE)
    lines[:] = text.split("\n")
    if what not in ("attribute", "property", "data"):
        lines[:] = GoogleDocstring(lines).lines()


def _list_table(table: re.Match[str]) -> str:
    header, _, *rows = (
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in table[0].strip().split("\n")
    )
    body = [
        f"   {'* -' if first else '  -'} {cell}"
        for row in (header, *rows)
        for first, cell in zip((True, *[False] * len(row)), row, strict=False)
    ]
    return "\n".join([".. list-table::", "   :header-rows: 1", "", *body, ""])


def setup(app: Sphinx) -> None:
    with mock(["filelock"]):  # which hf-hub imports at once; adapters' libraries are not installed
        adapter_pages.write()
    app.add_directive("settings", Settings)
    app.add_directive("command", CommandHelp)
    app.connect("autodoc-process-docstring", as_restructuredtext)
