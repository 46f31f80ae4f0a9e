"""The steps of a workflow, taken on several backends."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from typing import Any, TypeAlias

from ..errors import ConfigurationError, CrucibleError, described
from ..kitchen import Kitchen
from ..messages.spelling import did_you_mean, listed
from ..ports import TrainingClient
from ..settings import in_code
from ..types import SessionConfig
from ..workflows import Workflow, registry
from ..workflows.config import WorkflowConfig
from .comparison import Backend, Compared, Report, differences
from .recorder import Recorder
from .scratch import ScratchBlobs, ScratchMetrics
from .steps import Step, replay
from .tolerances import of_dtypes

STEPS = 5
"""Steps that are compared if nothing else is asked for."""

Told: TypeAlias = Callable[[str, int], None]
"""Called with a backend's name and the number of steps it has taken."""

QUIET: Mapping[str, Any] = {
    "run_id": None,
    "max_restarts": 0,
    "save_every": 0,
    "eval_every": 0,
    "eval_on_start": False,
    "early_stopping_patience": None,
}
"""Settings that the reference's run has: only its steps count. How many there are in all stays,
since learning rates depend on it."""

LORA_INIT = "lora_init"
"""The fact of `get_info` that says how the matrices of a low-rank update are drawn, where that is
not as the reference does it."""


def compare(
    workflow: str | Workflow,
    config: Mapping[str, Any] | WorkflowConfig,
    clients: Mapping[str, Any],
    *,
    adapters: Mapping[str, Any] | None = None,
    steps: int = STEPS,
    tolerances: Mapping[str, float] | None = None,
    first_step_only: Collection[str] = (),
) -> Report:
    """Take the first steps of a workflow on several training clients, and compare what they answer.

        report = compare(
            "supervised",
            {"model": "tiny", "dataset": "train.jsonl"},
            {"torch": {"use": "torch", ...}, "ray": {"use": "ray", "workers": 2, ...}},
            adapters={"dataset_store": "hf-datasets"},
        )
        assert report.within, report.problems

    The workflow runs on the first client, the reference; every other one gets the same calls: the
    same datums, learning rates and numbers of Adam. Nothing is written, to no store, and no
    checkpoint is saved.

    Args:
        workflow: its name, or the function itself.
        config: its configuration.
        clients: at least two, by names of your choice; each as in `Kitchen(...)`.
        adapters: of the other ports that the workflow reads from.
        steps: optimizer steps, from the first.
        tolerances: replace those that follow from the precision of the backends; see `Tolerances`.
        first_step_only: names of clients that start from other random numbers than the reference,
            so that only the first step can agree, before anything is trained.

    Raises:
        ConfigurationError: the configuration has mistakes, or the workflow trains nothing.
        CrucibleError: the reference failed.
    """
    table = dict(config) if isinstance(config, Mapping) else {}
    kitchens = {
        name: Kitchen(
            settings=in_code(
                {"adapters": {**(adapters or {}), "training_client": client}, "workflow": table}
            )
        )
        for name, client in clients.items()
    }
    try:
        return compare_in(
            kitchens,
            workflow,
            config,
            steps=steps,
            tolerances=tolerances,
            first_step_only=first_step_only,
        )
    finally:
        for kitchen in kitchens.values():
            kitchen.close()


def compare_in(
    kitchens: Mapping[str, Kitchen],
    workflow: str | Workflow,
    config: Mapping[str, Any] | WorkflowConfig,
    *,
    steps: int = STEPS,
    tolerances: Mapping[str, float] | None = None,
    first_step_only: Collection[str] = (),
    told: Told = lambda name, step: None,
) -> Report:
    """Do as `compare`, with the training clients of kitchens that exist.

    Args:
        kitchens: by the names of the backends; the first one also has the other adapters. Each is
            closed once its steps are taken, so that backends do not share a machine's memory.
        workflow: its name, or the function itself.
        config: its configuration.
        steps: optimizer steps, from the first.
        tolerances: replace those that follow from the precision of the backends.
        first_step_only: names of backends of which only the first step can agree.
        told: called after each step.
    """
    (first, kitchen), *others = _checked(kitchens, workflow, config, first_step_only)
    adapter, recorder = kitchen.training_client.adapter, Recorder(steps, partial(told, first))
    told(first, 0)
    _record(kitchen, recorder, workflow, config)
    named = workflow if isinstance(workflow, str) else getattr(workflow, "__name__", "workflow")
    if recorder.config is None or not recorder.measured:
        raise ConfigurationError(
            f"workflow.use: {named!r} takes no training step, so there is nothing to compare"
        )
    reference = Backend(first, adapter, recorder.facts, recorder.measured)
    taken = recorder.steps[: len(recorder.measured)]
    compared = []
    for name, other in others:
        backend = _replayed(name, other, recorder.config, taken, told)
        within = of_dtypes(reference.dtype, backend.dtype).changed(tolerances or {})
        low_rank = recorder.config.lora is not None
        only = name in first_step_only or (
            low_rank and backend.facts.get(LORA_INIT) != reference.facts.get(LORA_INIT)
        )
        found = differences(taken, backend, reference)
        compared.append(Compared(backend, found, within, only, low_rank))
    return Report(named, taken, reference, compared, steps)


def _checked(
    kitchens: Mapping[str, Kitchen],
    workflow: str | Workflow,
    config: Mapping[str, Any] | WorkflowConfig,
    first_step_only: Collection[str],
) -> list[tuple[str, Kitchen]]:
    """Return the kitchens with their names, once nothing is left to be found wrong with them.

    Raises:
        ConfigurationError: names every mistake.
    """
    mistakes: dict[str, list[str]] = {}
    for name, kitchen in kitchens.items():
        try:
            kitchen.bind([TrainingClient.name])
        except ConfigurationError as error:
            for mistake in error.mistakes:
                mistakes.setdefault(mistake, []).append(name)
    found = [
        mistake if len(names) == len(kitchens) else f"{', '.join(names)}: {mistake}"
        for mistake, names in mistakes.items()
    ]
    first, *others = kitchens or ("",)
    if not others:
        found.append("there is nothing to compare with: name two backends or more")
    for name in first_step_only:
        if name not in others:
            hint = did_you_mean(name, others) or f"; there are {listed(name, others)}"
            found.append(f"only the first step of {name!r} is to agree with that of {first}{hint}")
    if found:
        raise ConfigurationError(*found)
    return list(kitchens.items())


def _record(
    kitchen: Kitchen,
    recorder: Recorder,
    workflow: str | Workflow,
    config: Mapping[str, Any] | WorkflowConfig,
) -> None:
    """Run the workflow until it has taken the steps, then close the kitchen."""
    scratch: dict[str, Any] = {"use": ScratchBlobs()}
    if "blob_store" in kitchen.configured:
        scratch["below"] = kitchen.blob_store
    settings = dataclasses.replace(kitchen.settings)
    settings.values = {
        **settings.values,
        "adapters": {
            **settings.values.get("adapters", {}),
            "training_client": {"use": recorder, "inner": kitchen.training_client},
            "blob_store": scratch,
            "metrics_store": ScratchMetrics(),
        },
    }
    with kitchen, Kitchen(settings=settings) as quiet:
        start = registry.prepare(quiet, workflow, _quietened(workflow, config))
        try:
            start()
        except Exception:
            if not recorder.enough:
                raise


def _quietened(
    workflow: str | Workflow, config: Mapping[str, Any] | WorkflowConfig
) -> Mapping[str, Any] | WorkflowConfig:
    """Return a configuration with `QUIET` in it, as far as the workflow has such settings."""
    if isinstance(config, WorkflowConfig):
        model = type(config)
    else:
        try:
            function = registry.find(workflow) if isinstance(workflow, str) else workflow
            model = registry.config_class(function)
        except ConfigurationError:  # which says more where the workflow is prepared
            return config
    known = {name: value for name, value in QUIET.items() if name in model.model_fields}
    if isinstance(config, WorkflowConfig):
        return config.model_copy(update=known)
    return {**config, **known}


def _replayed(
    name: str, kitchen: Kitchen, config: SessionConfig, steps: Sequence[Step], told: Told
) -> Backend:
    """Take the steps on a backend, and close its kitchen. What fails is its error."""
    client = kitchen.training_client
    backend = Backend(name, client.adapter)
    told(name, 0)
    try:
        with kitchen:
            for measured in replay(client, config, steps, backend.facts):
                backend.measured.append(measured)
                told(name, len(backend.measured))
    except CrucibleError as error:
        backend.error = described(error)
    return backend
