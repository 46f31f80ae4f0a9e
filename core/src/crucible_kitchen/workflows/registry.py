"""Which function a workflow's name means, which class its settings have, and how it is started.

A workflow is a plain function of a kitchen and a configuration, which uses ports only:

    def evaluate(kitchen: Kitchen, config: EvaluateConfig) -> Any: ...

The annotation of the second argument names the class of the configuration. Packages register
workflows under the entry-point group `crucible.workflows`; those in this folder do so, too.
"""

from __future__ import annotations

import contextlib
import inspect
import sys
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, TypeAlias

from ..adapters import finding
from ..adapters.discovery import WORKFLOWS
from ..adapters.policy import Policy, enforced
from ..errors import AdapterLoadError, ConfigurationError
from ..events import Observer
from ..kitchen import Kitchen
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
        if settings is None:
            return _find(name)
        with enforced(Policy.of(settings.values.get("plugins", {}), settings.source_of)):
            return _find(name)
    except ConfigurationError as error:
        key = ("workflow", "use")
        if settings is None or key not in settings.sources:
            raise
        text = f"workflow.use: {error} (from {settings.source_of(key)})"
        raise type(error)(text) from error.__cause__


def _find(name: str) -> Workflow:
    found = finding.find(WORKFLOWS, name)
    if not callable(found.value):
        raise AdapterLoadError(
            f"the workflow {found.name} is not a function, it is {found.value!r}"
        )
    return typing.cast(Workflow, found.value)


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
    text of its first rows for `crucible run --show-rows`; `check(kitchen, config)`, which tries
    what must be in order before the first step and yields each thing that is, for
    `crucible doctor`; and `plan(kitchen, config)`, which returns a `Plan` of what a run would do,
    for `crucible run --dry-run`.
    """
    found = getattr(sys.modules.get(workflow.__module__), name, None)
    return found if callable(found) else None


def run(
    workflow: str | Workflow,
    config: Mapping[str, Any] | WorkflowConfig | None = None,
    *,
    adapters: Mapping[str, Any] | None = None,
    observers: Iterable[Observer] = (),
    progress: bool = False,
) -> Any:
    """Run a workflow on the given adapters; return what it returns.

        run("supervised", {"model": "tiny", ...}, adapters={"training_client": "torch", ...})

    It reads no file, like `Kitchen(...)`; `crucible run` is the same for a `crucible.toml`.

    Args:
        workflow: its name, or the function itself.
        config: its configuration.
        adapters: as in `Kitchen(...)`.
        observers: called with every event.
        progress: whether a bar and what happens are shown: in the output of a notebook's cell, else
            on standard error, without a bar where that is not a terminal.
    """
    table = config if isinstance(config, Mapping) else {}
    settings = in_code({"adapters": adapters or {}, "workflow": table})
    with Kitchen(settings=settings) as kitchen:
        for observer in observers:
            kitchen.observe(observer)
        with _shown(kitchen) if progress else contextlib.nullcontext():
            return run_in(kitchen, workflow, config)


@contextlib.contextmanager
def _shown(kitchen: Kitchen) -> Iterator[None]:
    from ..observers.progress import RunProgress
    from ..observers.screens import screen_of, standard_error

    shown = RunProgress(screen_of(standard_error()), kitchen.describe)
    stop = kitchen.observe(shown)
    try:
        yield
    finally:
        stop()
        shown.close()


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
