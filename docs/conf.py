"""How Sphinx builds these pages: `tox -e docs`."""

import re

from crucible_kitchen import __version__

project = "Crucible Kitchen"
author = "The Crucible Kitchen developers"
copyright = author
release = version = __version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["_build", "examples", "requirements.txt"]
html_theme = "furo"
html_title = project

myst_enable_extensions = ["fieldlist"]
myst_heading_anchors = 3

default_role = "code"  # docstrings put code in single backquotes
autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
autodoc_default_options = {"members": True, "show-inheritance": True}


def as_restructuredtext(
    app: object, what: str, name: str, obj: object, options: object, lines: list[str]
) -> None:
    """Turn the Markdown of a docstring that reStructuredText reads otherwise into its own."""
    text = "\n".join(lines)
    text = re.sub(r"^(\S.*)\n\n(?= {4}\S)", r"\1\n\n::\n\n", text, flags=re.MULTILINE)
    text = re.sub(r"(`[^`\n]+`)(?=\w)", r"\1\\ ", text)  # `AdapterError`s
    text = re.sub(r"(?:^\|.*\|$\n?)+", _list_table, text, flags=re.MULTILINE)
    lines[:] = text.split("\n")


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


def setup(app: object) -> None:
    # Before napoleon (500), which reads the sections of Google's style.
    app.connect("autodoc-process-docstring", as_restructuredtext, priority=400)  # type: ignore[attr-defined]
