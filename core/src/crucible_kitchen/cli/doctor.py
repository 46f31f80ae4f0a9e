"""`crucible doctor`: is everything that is installed in order?"""

from __future__ import annotations

import platform
from collections.abc import Iterator

import typer

from ..binding import options_class, problems
from ..discovery import WORKFLOWS, Installed, catalog
from ..errors import CrucibleError
from ..kitchen import Kitchen
from ..ports import PORTS
from ..settings import load
from ..version import __version__
from ..workflows import config_class, find
from .console import table
from .run import workflow_of

Row = tuple[str, str, str]


def doctor() -> None:
    """Check what is installed and configured."""
    print(f"crucible-kitchen {__version__}, Python {platform.python_version()}")
    rows = [*_packages(), *_configuration()]
    table(
        ("what", "state", "detail"),
        [(what, (problem and "FAIL") or "ok", detail) for what, problem, detail in rows],
    )
    failed = sum(bool(problem) for _, problem, _ in rows)
    print("everything is in order" if not failed else f"{failed} problem(s)")
    raise typer.Exit(1 if failed else 0)


def _packages() -> Iterator[Row]:
    adapters, workflows = catalog(), catalog(WORKFLOWS)
    for problem in dict.fromkeys((*adapters.problems, *workflows.problems)):
        yield problem.package, "problem", problem.message
    for entry in (*adapters.entries, *workflows.entries):
        found = _check(entry)
        what = f"{entry.port}.{entry.name}" if entry.port else f"workflow {entry.name}"
        yield what, found, found or f"{entry.package} {entry.version}"
    claimed: dict[tuple[str, str], list[Installed]] = {}
    for entry in (*adapters.entries, *workflows.entries):
        claimed.setdefault((entry.port, entry.name), []).append(entry)
    for (port, name), entries in claimed.items():
        if len(entries) > 1:
            both = " and ".join(e.package for e in entries)
            yield f"{port}.{name}", "problem", f"{both} both provide it; choose with package/name"


def _check(entry: Installed) -> str:
    """Return what is wrong with an adapter or a workflow, or nothing."""
    try:
        loaded = entry.load()
        if not entry.port:
            config_class(loaded)
            return ""
        options = options_class(loaded, entry.name)
        composes = "inner" in options.model_fields
        return "; ".join(problems(PORTS[entry.port], loaded, composes=composes))
    except CrucibleError as error:
        return str(error)
    except Exception as error:  # such as a property of an object that raises
        return f"it cannot be checked: {type(error).__name__}: {error}"


def _configuration() -> Iterator[Row]:
    try:
        settings = load()
    except CrucibleError as error:
        yield "configuration", "problem", str(error)
        return
    if not settings.values:
        yield "configuration", "", "nothing is configured here"
        return
    with Kitchen.from_settings(settings) as kitchen:
        for name in kitchen.configured:
            try:
                port = kitchen.port(PORTS[name])
            except CrucibleError as error:
                yield f"adapters.{name}", "problem", str(error)
            else:
                yield (
                    f"adapters.{name}",
                    "",
                    f"{port.adapter} (from {settings.source_of(('adapters', name, 'use'))})",
                )
        if "workflow" not in settings.values:
            return
        try:
            name, given = workflow_of(settings)
            kitchen.configure(config_class(find(name)), given, ("workflow",))
        except CrucibleError as error:
            yield "workflow", "problem", str(error)
        else:
            yield "workflow", "", f"{name} (from {settings.source_of(('workflow', 'use'))})"
