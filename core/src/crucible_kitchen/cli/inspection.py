"""The parts of a configuration, each bound or validated, or with what is wrong with it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeAlias

from ..calls.port import Port
from ..errors import ConfigurationError
from ..kitchen import Kitchen
from ..observers.config import Observe
from ..ports import PORTS
from ..settings import Key
from ..workflows import Workflow, WorkflowConfig, registry
from .arguments import workflow_of


@dataclass(frozen=True, slots=True)
class Wrong:
    """A part with a mistake; at `()` the mistakes that concern no part."""

    at: Key
    error: ConfigurationError


@dataclass(frozen=True, slots=True)
class BoundAdapter:
    """The adapter of a port."""

    at: Key
    port: Port


@dataclass(frozen=True, slots=True)
class ChosenWorkflow:
    """The table `[workflow]`."""

    at: Key
    name: str
    function: Workflow
    config: WorkflowConfig


@dataclass(frozen=True, slots=True)
class Observation:
    """The table `[observe]`."""

    at: Key
    config: Observe


@dataclass(frozen=True, slots=True)
class Untried:
    """A part that cannot be tried while the table `[plugins]` has a mistake."""

    at: Key


Part: TypeAlias = Wrong | BoundAdapter | ChosenWorkflow | Observation | Untried


def inspect(kitchen: Kitchen) -> Iterator[Part]:
    """Bind every configured adapter and validate the tables; yield every part of the settings."""
    wrong = kitchen.mistakes()
    if () in wrong:
        yield Wrong((), wrong[()])
    if kitchen.policy.broken:
        yield from (Untried(("adapters", name)) for name in kitchen.configured)
        tables = ("workflow", "observe")
        yield from (Untried((name,)) for name in tables if name in kitchen.settings.values)
        return
    for name in kitchen.configured:
        at = ("adapters", name)
        if at in wrong:
            yield Wrong(at, wrong[at])
        else:
            yield BoundAdapter(at, kitchen.port(PORTS[name]))
    if "workflow" in kitchen.settings.values:
        yield _workflow(kitchen, ("workflow",))
    if ("observe",) in wrong:
        yield Wrong(("observe",), wrong["observe",])
    elif "observe" in kitchen.settings.values:
        yield Observation(("observe",), kitchen.observe_config())


def _workflow(kitchen: Kitchen, at: Key) -> Part:
    try:
        name, table = workflow_of(kitchen.settings)
        function = registry.find(name, kitchen.settings)
        config = kitchen.configure(registry.config_class(function), table, at)
    except ConfigurationError as error:
        return Wrong(at, error)
    return ChosenWorkflow(at, name, function, config)
