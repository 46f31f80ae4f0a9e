"""`crucible doctor`: whether what is installed is in order, and what is configured within reach.

It tries what a run needs before its first step: the adapters, and, if the workflow has a function
`check`, the model, the data and the places that the run writes to.
"""

from __future__ import annotations

import platform
import time
import warnings
from collections.abc import Collection, Iterator
from typing import Annotated

import typer

from ..adapters import policy
from ..adapters.discovery import GROUPS, KINDS, catalog
from ..adapters.known_packages import packages_of
from ..calls.port import Port, ports_in
from ..errors import ConfigurationError, CrucibleError, CrucibleWarning, NotRecorded
from ..kitchen import Kitchen
from ..messages.counts import counted
from ..observers.config import reach
from ..ports import PORTS
from ..settings import Key, Settings, gather
from ..version import __version__
from ..workflows import registry
from .arguments import ARGUMENTS, PROFILE, opened, read
from .console import JSON, records, say, say_json, table, without_secrets
from .inspection import BoundAdapter, ChosenWorkflow, Observation, Wrong, inspect
from .package_checks import CheckRow, packages

HEADINGS = ("what", "state", "detail")
_STATES = {
    "": "ok",
    **{state: state for state in ("warning", "forbidden", "not recorded")},
}
"""The states that are not problems, as they are shown."""


def doctor(
    arguments: Annotated[list[str] | None, ARGUMENTS] = None,
    profile: Annotated[str | None, PROFILE] = None,
    as_json: Annotated[bool, JSON] = False,
) -> None:
    """Check what is installed, and try what is configured.

    Tries the adapters, the model, the data and the places that a run writes to.
    """
    versions = {"crucible-kitchen": __version__, "Python": platform.python_version()}
    if not as_json:
        say(", ".join(f"{name} {version}" for name, version in versions.items()))
    found = [*_everything(arguments or [], profile)]
    rows = [(what, _STATES.get(state, "FAIL"), detail) for what, state, detail in found]
    failed = sum(state not in _STATES for _, state, _ in found)
    warned = sum(state == "warning" for _, state, _ in found)
    if as_json:
        checks = [[without_secrets(cell) for cell in row] for row in rows]
        totals = {"problems": failed, "warnings": warned}
        say_json({"versions": versions, **totals, "checks": records(HEADINGS, checks)})
    else:
        table(HEADINGS, rows)
        found_wrong = {"problem": failed, "warning": warned}
        counts = ", ".join(counted(n, what) for what, n in found_wrong.items() if n)
        untried = any(state == "not recorded" for _, state, _ in found)
        fine = "nothing is wrong with what was tried" if untried else "everything is in order"
        say(counts or fine)
    raise typer.Exit(1 if failed else 0)


def _everything(arguments: list[str], profile: str | None) -> Iterator[CheckRow]:
    """Try the packages, then what is configured, whose policy holds for the packages as well."""
    try:
        settings = read(arguments, profile, gather)
    except CrucibleError as error:  # then nobody knows what may be loaded
        yield from _problems("configuration", error)
        return
    found = policy.Policy.of(settings.values.get("plugins", {}), settings.source_of)
    if found.broken:
        yield "plugins", "forbidden", "nothing is loaded until the table [plugins] is corrected"
    else:
        yield from (("plugins", "warning", each) for each in found.unmatched(_plugins()))
        yield from packages()
    yield from _configuration(settings)


def _plugins() -> Iterator[tuple[str, str, str]]:
    """Yield the package, the port and the name of what is installed, and of known adapters."""
    for group in GROUPS:
        yield from ((each.package, each.port, each.name) for each in catalog(group).entries)
    for kind in (*PORTS, *KINDS.values()):
        port = kind if kind in PORTS else ""
        yield from ((package, port, name) for name, package in packages_of(kind).items())


def _configuration(settings: Settings) -> Iterator[CheckRow]:
    if not (settings.values or settings.mistakes):
        yield "configuration", "", "nothing is configured here"
        return
    with opened(settings) as kitchen:
        parts = list(inspect(kitchen))
        wrong = {part.at for part in parts if isinstance(part, Wrong)}
        for part in parts:
            match part:
                case Wrong(at=at, error=error):
                    yield from _problems(".".join(at) or "configuration", error)
                case BoundAdapter(at=at, port=port):
                    yield from _reach(settings, port, at)
                case ChosenWorkflow():
                    yield from _try(kitchen, part, wrong)
                case Observation():
                    yield from _observers(settings, part)


def _problems(what: str, error: CrucibleError) -> Iterator[CheckRow]:
    """Yield a row for each mistake, or one for another error, with its notes."""
    if isinstance(error, ConfigurationError):
        yield from ((what, "problem", mistake) for mistake in error.mistakes)
    else:
        yield what, "problem", "\n".join([str(error), *getattr(error, "__notes__", ())])


def _observers(settings: Settings, observe: Observation) -> Iterator[CheckRow]:
    try:
        on = ", ".join(reach(observe.config, settings.source_of)) or "nothing"
    except ConfigurationError as error:
        yield from _problems("observe", error)
    else:
        yield "observe", "", f"{on} (from {settings.source_of(observe.at)})"


def _try(kitchen: Kitchen, workflow: ChosenWorkflow, wrong: Collection[Key]) -> Iterator[CheckRow]:
    """Try what the workflow needs before its first step, if the adapters for it are in order."""
    source = kitchen.settings.source_of((*workflow.at, "use"))
    yield "workflow", "", f"{workflow.name} (from {source})"
    ports = workflow.config.required_ports()
    tried = registry.companion(workflow.function, "check")
    if tried is None or any(("adapters", port) in wrong for port in ports):
        return
    try:
        kitchen.bind(ports)
        for what, detail in tried(kitchen, workflow.config):
            yield f"workflow {what}", "", detail
    except NotRecorded:
        untried = "not tried, since it asks what is not on the recording; a run may be in order"
        yield "workflow", "not recorded", untried
    except CrucibleError as error:
        yield from _problems("workflow", error)


def _reach(settings: Settings, port: Port, at: Key) -> Iterator[CheckRow]:
    """Reach an adapter, if it has something to reach, and those inside it."""
    what, source = ".".join(at), f"(from {settings.source_of((*at, 'use'))})"
    inside = list(ports_in(port.options, at))
    if inside and not port.implements("ping"):
        yield what, "", f"{port.adapter}: bound, around {len(inside)} {source}"
    elif not port.supports("ping"):
        yield what, "", f"{port.adapter}: bound, has nothing to reach {source}"
    else:
        started = time.perf_counter()
        with warnings.catch_warnings(record=True, action="always") as found:
            try:
                port.ping()
            except CrucibleError as error:
                yield from _problems(what, error)
            else:
                seconds = time.perf_counter() - started
                yield what, "", f"{port.adapter}: reached in {seconds:.2f} s {source}"
        for warning in found:
            if issubclass(warning.category, CrucibleWarning):
                yield what, "warning", str(warning.message)
    for inner, key in inside:
        yield from _reach(settings, inner, key)
