"""Workflows: plain functions of a kitchen and a configuration, which use ports only.

    def evaluate(kitchen: Kitchen, config: EvaluateConfig) -> Any: ...

The annotation of the second argument names the class of the configuration. Packages register
workflows under the entry-point group `crucible.workflows`; those in this folder do so, too.
"""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict

from ..discovery import WORKFLOWS, catalog
from ..errors import AdapterLoadError
from ..kitchen import Kitchen
from ..telemetry import Observer


class WorkflowConfig(BaseModel):
    """The base of a workflow's configuration: frozen, no unknown keys, like adapter options."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        validate_default=True,
        use_attribute_docstrings=True,
        hide_input_in_errors=True,
        protected_namespaces=(),
    )

    def required_ports(self) -> tuple[str, ...]:
        """Return the ports that a run with this configuration uses; they are bound before it."""
        return ()


Workflow = Callable[[Kitchen, Any], Any]


def find(name: str) -> Workflow:
    """Return the installed workflow of this name.

    Raises:
        AdapterNotFound: there is none, or there are two.
        AdapterLoadError: it cannot be imported, or is no function of a kitchen and a config.
    """
    entry = catalog(WORKFLOWS).find("", name)
    workflow = entry.load()
    if not callable(workflow):
        raise AdapterLoadError(f"{entry} is no function: {entry.entry_point.value}")
    return typing.cast(Workflow, workflow)


def config_class(workflow: Workflow) -> type[WorkflowConfig]:
    """Return the class that the second argument of a workflow is annotated with.

    Raises:
        AdapterLoadError: it has no second argument, or that is not annotated with a
            `WorkflowConfig`.
    """
    try:
        parameters = list(inspect.signature(workflow).parameters)
        hints = typing.get_type_hints(workflow)
    except (TypeError, ValueError, NameError) as error:  # a class of C, an import for types only
        raise AdapterLoadError(
            f"the arguments of the workflow {workflow!r} cannot be found out: {error}"
        ) from error
    config = hints.get(parameters[1]) if len(parameters) == 2 else None
    if not (isinstance(config, type) and issubclass(config, WorkflowConfig)):
        raise AdapterLoadError(
            f"the workflow {workflow!r} must be a function of (kitchen, config), config annotated "
            "with a class derived from crucible_kitchen.WorkflowConfig"
        )
    return config


def run(
    workflow: str | Workflow,
    config: Mapping[str, Any] | WorkflowConfig | None = None,
    *,
    adapters: Mapping[str, Any] | None = None,
    observers: Iterable[Observer] = (),
) -> Any:
    """Run a workflow on the given adapters; return what it returns.

        run("supervised", {"model": "tiny", ...}, adapters={"training_client": "torch", ...})

    It reads no file, like `Kitchen(...)`; `crucible run` is the same for a `crucible.toml`.

    Args:
        workflow: its name, or the function itself.
        config: its configuration.
        adapters: as in `Kitchen(...)`.
        observers: told of every event.
    """
    with Kitchen(adapters) as kitchen:
        for observer in observers:
            kitchen.observe(observer)
        return run_in(kitchen, workflow, config)


def run_in(
    kitchen: Kitchen,
    workflow: str | Workflow,
    config: Mapping[str, Any] | WorkflowConfig | None = None,
) -> Any:
    """Run a workflow in a kitchen that exists: bind every adapter that it needs, then start."""
    function = find(workflow) if isinstance(workflow, str) else workflow
    if not isinstance(config, WorkflowConfig):
        config = kitchen.configure(config_class(function), config or {}, ("workflow",))
    kitchen.bind(config.required_ports())
    return function(kitchen, config)
