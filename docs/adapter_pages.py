"""Pages of the documentation made from code: the settings of a table, a page for each package.

Sphinx writes the pages of the adapters before it reads the others (`conf.py`). Nothing but the core
needs to be installed: modules of adapters import their libraries when they are used.
"""

from __future__ import annotations

import os
import re
import sys
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import is_dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, get_args

from crucible_kitchen.adapters.binding import marked, options_class
from crucible_kitchen.adapters.discovery import ADAPTERS, KINDS
from crucible_kitchen.cli.fields import default_of, type_name
from crucible_kitchen.configuration import chosen
from crucible_kitchen.observers import installed
from crucible_kitchen.ports import PORTS
from pydantic import BaseModel
from pydantic.fields import FieldInfo

DOCS = Path(__file__).parent
ROOT = DOCS.parent
FOLDER = DOCS / "reference" / "adapters"
INDEX = """\
# Adapters

The packages of this repository: what each does, and the options of its adapters, environments and
observers, as their code documents them. `crucible adapters show NAME` prints the options of every
adapter that is installed, third-party ones included.

| package | serves | description |
| --- | --- | --- |"""


def write() -> None:
    """Write the page of each adapter package into `FOLDER`, and remove those of others."""
    FOLDER.mkdir(exist_ok=True)
    found = pages()
    for old in FOLDER.glob("*.md"):
        if old.stem not in found:
            old.unlink()
    for name, text in found.items():
        page = FOLDER / f"{name}.md"
        if not page.exists() or page.read_text("utf-8") != text:  # else Sphinx reads it again
            page.write_text(text, "utf-8")


def pages() -> dict[str, str]:
    """Return the page of each adapter package of this repository by its short name, and `index`."""
    sys.path += [str(folder / "src") for folder in packages()]  # one may need another
    projects = {
        folder: tomllib.loads((folder / "pyproject.toml").read_text("utf-8"))["project"]
        for folder in packages()
    }
    names = {folder: _short(project["name"]) for folder, project in projects.items()}
    found = {names[folder]: "\n".join(_page(folder, projects[folder])) for folder in projects}
    rows = [
        f"| [{names[folder]}]({names[folder]}.md) | {_listed(_kinds(project))} "
        f"| {project['description']} |"
        for folder, project in projects.items()
    ]
    toctree = ["```{toctree}", ":hidden:", "", *names.values(), "```", ""]
    return found | {"index": "\n".join([INDEX, *rows, "", *toctree])}


def packages() -> list[Path]:
    """Return the folders of the packages, the noop first."""
    return [ROOT / "kitchen_noop", *sorted(ROOT.glob("plugins/*/"))]


def settings(model: type[BaseModel]) -> str:
    """Return a definition list of what a user may set: name, type, default, docstring."""
    return "\n".join(
        line for name, field in model.model_fields.items() for line in _field(name, field)
    )


def _field(name: str, field: FieldInfo) -> Iterator[str]:
    default = default_of(field)
    about = [f"`{name}`: `{type_name(field.annotation)}`"]
    if default:
        about.append(default if default == "required" else f"default `{default}`")
    about += [f"see {{py:class}}`~{kind.__module__}.{kind.__name__}`" for kind in _tables(field)]
    yield ", ".join(about)
    first, *rest = _prose(field.description or "").splitlines() or [""]
    yield f": {first}"
    for line in rest:
        yield f"  {line}".rstrip()
    yield ""


def _tables(field: FieldInfo) -> list[type[Any]]:
    """Return the tables of the core that a setting may be, which the API reference describes."""
    kinds = get_args(field.annotation) or (field.annotation,)
    return [
        kind
        for kind in kinds
        if is_dataclass(kind) and isinstance(kind, type) and kind.__module__.endswith(".types")
    ]


def _prose(docstring: str) -> str:
    """Return a docstring as Markdown, in which `<` outside of code begins no HTML."""
    parts = re.split(r"(`[^`]*`)", docstring)
    return "".join(p if p.startswith("`") else p.replace("<", "\\<") for p in parts)


def _page(folder: Path, project: dict[str, Any]) -> Iterator[str]:
    package: str = project["name"]
    yield f"# {_short(package)}"
    yield f"\n```console\n$ pip install {package}\n```\n"
    extras = project.get("optional-dependencies", {})
    if extras:
        yield f"Extras: {_listed(f'{package}[{extra}]' for extra in extras)}.\n"
    groups = list(_groups(project))
    readme, placed = _readme(folder, {name: listed for name, _, listed in groups})
    yield readme
    adapters = project["entry-points"].get(ADAPTERS, {})
    for name, kinds, listed in groups:
        if name in placed:
            continue
        yield f"\n## {_heading(name, kinds)}\n"
        yield listed or "It has no options.\n"
        if kinds[0] in PORTS and len(kinds) == 1:
            yield _besides(kinds[0], _load(adapters[f"{kinds[0]}.{name}"]))


def _short(package: str) -> str:
    return re.sub("^crucible-(adapter|environment|observer)-", "", package)


def _kinds(project: dict[str, Any]) -> list[str]:
    return list(dict.fromkeys(kind for kind, _, _ in _served(project)))


def _served(project: dict[str, Any]) -> Iterator[tuple[str, str, str]]:
    """Yield what a package has: a port, or "environment" or "observer"; the name; the path."""
    for group, points in project["entry-points"].items():
        for key, path in points.items():
            port, _, name = key.partition(".") if group == ADAPTERS else (KINDS[group], "", key)
            yield port, name, path


def _listed(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


def _readme(folder: Path, listed: Mapping[str, str]) -> tuple[str, set[str]]:
    """Return the README without its title, and which options are in the place of its tables.

    A table of options below the heading of an adapter becomes the list of them; other tables go,
    since the lists of the other adapters follow the README.
    """
    text = (folder / "README.md").read_text("utf-8").split("\n", 1)[1]
    placed = {name for name in listed if re.search(rf"^## {name}\n\n\| option", text, re.MULTILINE)}
    for name in placed:
        text = text.replace(f"## {name}\n", f"## {name}\n\n{listed[name]}", 1)
    text = re.sub(r"^\| option \|.*\n(?:\|.*\n)+\n?", "", text, flags=re.MULTILINE)
    text = re.sub(r"^## Options\n+(?=#|\Z)", "", text, flags=re.MULTILINE)
    text = re.sub(r"\[([^\]]+)\]\((?!https?:)([^)#]+)\)", lambda m: _link(folder, m), text)
    return text, placed


def _link(folder: Path, found: re.Match[str]) -> str:
    """Point a relative link of a README at a page of the documentation; else name the file."""
    target = (folder / found[2]).resolve()
    if target.is_relative_to(DOCS) and target.suffix == ".md":
        return f"[{found[1]}]({os.path.relpath(target, FOLDER)})"
    return f"{found[1]} (`{target.relative_to(ROOT)}`)"


def _groups(project: dict[str, Any]) -> Iterator[tuple[str, list[str], str]]:
    """Yield the name, kind and list of options of each thing; a wrapper once, with all ports."""
    wrappers: dict[str, tuple[list[str], str]] = {}
    for kind, name, path in _served(project):
        options = _options(kind, name, _load(path))
        if options is not None and "inner" in options.model_fields:
            wrappers.setdefault(name, ([], settings(options)))[0].append(kind)
        else:
            yield name, [kind], settings(options) if options else ""
    kinds = re.compile(rf"\b({'|'.join(port.__name__ for port in PORTS.values())})\b")
    for name, (ports, listed) in wrappers.items():
        yield name, ports, kinds.sub("adapter", listed)


def _options(kind: str, name: str, found: Any) -> type[BaseModel] | None:
    if kind == "environment":
        return chosen.options_class(found)
    if kind == "observer":
        return installed.options_class(found, name)
    return options_class(found, name)


def _heading(name: str, kinds: list[str]) -> str:
    return f"`{name}` as `{kinds[0]}`" if len(kinds) == 1 else f"Options of `{name}`"


def _besides(port: str, adapter: Any) -> str:
    """Return a sentence about what an adapter offers besides the mandatory callbacks."""
    offered = [name for name in PORTS[port].callbacks() if name in marked(adapter)]
    optional = [name for name in offered if name not in (*PORTS[port].mandatory(), "close")]
    helpers = [
        name
        for name in sorted(dir(adapter))
        if getattr(getattr(adapter, name), "crucible_helper", False) is True
    ]
    return "".join(
        f"{what}: {_listed(names)}.\n\n"
        for what, names in (("Optional callbacks", optional), ("Helpers", helpers))
        if names
    )


def _load(path: str) -> Any:
    module, _, attribute = path.partition(":")
    loaded = import_module(module)
    return getattr(loaded, attribute) if attribute else loaded
