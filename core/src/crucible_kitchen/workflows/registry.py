"""Which function a workflow's name means, which class its settings have, and how it is started.

A workflow is a plain function of a kitchen and a configuration, which uses ports only:

    def evaluate(kitchen: Kitchen, config: EvaluateConfig) -> Any: ...

The annotation of the second argument names the class of the configuration. Packages register
workflows under the entry-point group `crucible.workflows`; those in this folder do so, too.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import inspect
import os
import sys
import typing
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, TypeAlias

from ..adapters.discovery import WORKFLOWS, catalog
from ..errors import AdapterLoadError, AdapterNotFound, ConfigurationError, described
from ..events import Observer
from ..kitchen import Kitchen
from ..messages.spelling import nearest
from ..settings import Key, Settings, in_code
from .config import WorkflowConfig

Workflow: TypeAlias = Callable[[Kitchen, Any], Any]


def find(name: str, settings: Settings | None = None) -> Workflow:
    """Return the workflow of this name: an installed one, or `module:function`, `file.py:function`.

    Args:
        name: the name.
        settings: where it may have been chosen, as `workflow.use`, for errors to say so.

    Raises:
        AdapterNotFound: there is none, or there are two.
        AdapterLoadError: it cannot be imported, or is not a function.
    """
    try:
        return _find(name)
    except ConfigurationError as error:
        key = ("workflow", "use")
        if settings is None or key not in settings.sources:
            raise
        text = f"workflow.use: {error} (from {settings.source_of(key)})"
        raise type(error)(text) from error.__cause__


def _find(name: str) -> Workflow:
    place, colon, function = name.rpartition(":")
    if colon:
        workflow, called = _import(place, function), name
    else:
        entry = catalog(WORKFLOWS).find("", name)
        workflow, called = entry.load(), f"{entry}, {entry.entry_point.value},"
    if not callable(workflow):
        raise AdapterLoadError(f"the workflow {called} is not a function, it is {workflow!r}")
    return typing.cast(Workflow, workflow)


def _import(place: str, function: str) -> Any:
    """Return a function of a file, or of a module that may lie in the current folder."""
    try:
        names = vars(_module(place))
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        raise AdapterLoadError(
            f"the workflow {place}:{function} cannot be imported: {described(error)}"
        ) from error
    if function not in names:
        near = nearest(function, names)
        hint = f"; did you mean {place}:{near}?" if near else ""
        raise AdapterNotFound(f"there is no {function!r} in {place}{hint}")
    return names[function]


def _module(place: str) -> ModuleType:
    if not place.endswith(".py"):
        sys.path.insert(0, os.getcwd())
        try:
            return importlib.import_module(place)
        finally:
            sys.path.remove(os.getcwd())
    spec = importlib.util.spec_from_file_location(Path(place).stem, place)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where pydantic looks for the names in annotations
    spec.loader.exec_module(module)
    return module


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


def companion(workflow: Workflow, name: str) -> Callable[..., Any] | None:
    """Return the function of this name in the workflow's module, or None if there is none.

    The module of a workflow may also define `preview(kitchen, config, count)`, which yields the
    text of its first rows for `crucible run --show-rows`, and `check(kitchen, config)`, which tries
    what must be in order before the first step and yields each thing that is, for
    `crucible doctor`.
    """
    found = getattr(sys.modules.get(workflow.__module__), name, None)
    return found if callable(found) else None


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
        observers: called with every event.
    """
    table = config if isinstance(config, Mapping) else {}
    settings = in_code({"adapters": adapters or {}, "workflow": table})
    with Kitchen(settings=settings) as kitchen:
        for observer in observers:
            kitchen.observe(observer)
        return run_in(kitchen, workflow, config)


def run_in(
    kitchen: Kitchen,
    workflow: str | Workflow,
    config: Mapping[str, Any] | WorkflowConfig | None = None,
) -> Any:
    """Run a workflow in a kitchen that exists: bind every adapter that it needs, then start."""
    return prepare(kitchen, workflow, config)()


def prepare(
    kitchen: Kitchen,
    workflow: str | Workflow,
    config: Mapping[str, Any] | WorkflowConfig | None = None,
) -> Callable[[], Any]:
    """Do everything for a run that can fail by its configuration; return what starts the run.

    Raises:
        ConfigurationError: names every mistake: of the settings, the workflow and the adapters.
    """
    found: dict[Key, ConfigurationError] = {}
    ports: tuple[str, ...] = ()
    try:
        function = find(workflow, kitchen.settings) if isinstance(workflow, str) else workflow
        if not isinstance(config, WorkflowConfig):
            table, model = config or {}, config_class(function)
            ports = _ports_of(model, table)
            config = kitchen.configure(model, table, ("workflow",))
        kitchen.conceal(config)
        ports = config.required_ports()
    except ConfigurationError as error:
        found["workflow",] = error
    kitchen.bind(ports, found)
    named = workflow if isinstance(workflow, str) else getattr(function, "__name__", "workflow")

    def start() -> Any:
        with kitchen.observers.run(named):
            try:
                return function(kitchen, config)
            except KeyboardInterrupt:
                raise
            except BaseException as error:
                if (without := kitchen.without_secrets(error)) is error:
                    raise
                raise without from without.__cause__

    return start


def _ports_of(model: type[WorkflowConfig], table: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the ports that a run needs, as far as a configuration with mistakes tells."""
    with contextlib.suppress(Exception):
        return model.model_construct(**table).required_ports()
    return ()
