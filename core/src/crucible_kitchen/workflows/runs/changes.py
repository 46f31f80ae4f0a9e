"""Whether a run may go on with other settings, or with something else that it depends on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NoReturn

from ...calls.port import Port
from ...configuration.renaming import Renaming
from ...errors import AdapterNotFound, ConfigurationError
from ...masking.models import visible
from ...messages.numbers import as_json
from ...settings import Settings
from ..config import WorkflowConfig
from .record import RunRecord


def plain(config: WorkflowConfig) -> dict[str, Any]:
    """Return the settings as a record holds them: without secrets, and without the run's id."""
    found: dict[str, Any] = as_json(visible(config))
    found.pop("run_id", None)
    return found


def _changed(previous: RunRecord, config: WorkflowConfig) -> dict[str, tuple[Any, Any]]:
    """Return the settings that change a result and have changed: before, and now."""
    now = plain(config)
    # A version may have had fewer keys, and other names of them, also inside tables.
    renaming = Renaming(Settings(), _unknown, quiet=True)
    recorded = renaming.table(type(config), previous.config, ("workflow",))
    before = {**plain(type(config).model_construct()), **recorded}
    pairs = {name: (before.get(name), now.get(name)) for name in {**before, **now}}
    return {k: v for k, v in pairs.items() if v[0] != v[1] and k not in config.may_change}


def _unknown(port: type[Port], use: Any) -> NoReturn:
    """Say that the options of an adapter are not looked into."""
    raise AdapterNotFound(f"{use!r} is not looked for")


def extends(previous: RunRecord, config: WorkflowConfig) -> bool:
    """Say whether settings let a run that is done go on."""
    return previous.status == "done" and bool(
        config.may_extend.intersection(_changed(previous, config))
    )


def check_same(run_id: str, previous: RunRecord, config: WorkflowConfig, extended: bool) -> None:
    """Refuse other settings than the run was started with, but for those that may differ.

    Raises:
        ConfigurationError: names each with both values.
    """
    allowed = config.may_extend if extended else frozenset()
    if previous.state.standing.best is None:  # nothing was chosen by it so far
        allowed |= {"best_metric", "best_mode"}
    changed = [
        f"workflow.{key} was {before!r} and is {now!r}"
        for key, (before, now) in _changed(previous, config).items()
        if key not in allowed
    ]
    if changed:
        raise ConfigurationError(
            f"the run {run_id!r} was started with another configuration: {'; '.join(changed)}. "
            "Continue it as it was, or choose another workflow.run_id"
        )


def check_unchanged(
    run_id: str, before: Mapping[str, Mapping[str, Any]], now: Mapping[str, Mapping[str, Any]]
) -> None:
    """Refuse to go on where something has changed that the results depend on.

    Raises:
        ConfigurationError: names each with both values.
    """
    changed = [
        f"{name}: {key} was {before[name][key]!r} and is {value!r}"
        for name, about in now.items()
        for key, value in about.items()
        if key in before.get(name, {}) and before[name][key] != value
    ]
    if changed:
        raise ConfigurationError(
            f"the run {run_id!r} was started with something else that changes its results: "
            f"{'; '.join(changed)}. Continue it with what it was started with, or choose another "
            "workflow.run_id"
        )
