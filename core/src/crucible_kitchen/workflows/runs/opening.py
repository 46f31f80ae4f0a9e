"""What a run is when it is opened: a new one, or one that goes on."""

from __future__ import annotations

import contextlib
import secrets
import subprocess
from datetime import date
from typing import Any, TypeVar

from ...errors import ConfigurationError
from ...kitchen import Kitchen
from ...locking import take
from ...messages.numbers import as_json
from ...version import __version__
from ..config import ModelConfig, RunConfig, TemplateConfig, WorkflowConfig, check_run_id
from .changes import check_same, extends, plain
from .record import RunRecord, RunState, now, read

ConfigT = TypeVar("ConfigT", bound=WorkflowConfig)


def opened(
    kitchen: Kitchen,
    run_id: str,
    workflow: str,
    config: WorkflowConfig,
    previous: RunRecord | None,
) -> RunRecord:
    """Return the record of a run as it is worked on from now on; nothing is written yet."""
    about: dict[str, Any] = {
        "config": plain(config),
        "adapters": as_json(kitchen.describe()),
        "packages": {"crucible-kitchen": __version__, **kitchen.packages()},
        "lock": _lock(kitchen),
        "git_commit": _git_commit(),
    }
    # An id may begin with that of another run, or be in use with another blob store: what is
    # random is in no other label. A record of a version without it owns what it lists alone.
    prefix = f"{run_id}/{secrets.token_hex(4)}/"
    if previous is None:
        return RunRecord(
            run_id=run_id,
            workflow=workflow,
            status="running",
            created=now(),
            state=RunState(step=0, checkpoint=None),
            checkpoints=[],
            metrics={},
            checkpoint_prefix=prefix,
            from_checkpoint=starting_weights(kitchen, config),
            **about,
        )
    if previous.workflow != workflow:
        raise ConfigurationError(
            f"the run {run_id!r} is one of the workflow {previous.workflow!r}, and not "
            f"of {workflow!r}. Continue it as it was, or choose another workflow.run_id"
        )
    extended = extends(previous, config)
    if extended and isinstance(config, RunConfig):
        _check_patience(run_id, previous, config)
    check_same(run_id, previous, config, extended)
    if extended:
        about["status"] = "running"
    if not previous.checkpoint_prefix:
        about["checkpoint_prefix"] = prefix
    return previous.with_(**about)


def _check_patience(run_id: str, previous: RunRecord, config: RunConfig) -> None:
    patience, waited = config.early_stopping_patience, previous.state.standing.waited
    if patience is not None and waited >= patience:
        raise ConfigurationError(
            f"the run {run_id!r} stopped early: {waited} evaluations in a row were not better. To "
            f"continue it, raise workflow.early_stopping_patience, which is {patience}"
        )


def resolved(config: ConfigT, record: RunRecord) -> ConfigT:
    """Return the settings with what the run fixed at its first start in place of what was open."""
    fixed: dict[str, Any] = {}
    if "run_id" in type(config).model_fields:
        fixed["run_id"] = record.run_id
    if isinstance(config, ModelConfig) and record.from_checkpoint is not None:
        fixed["from_checkpoint"] = record.from_checkpoint
    if isinstance(config, TemplateConfig) and config.template_date is None:
        fixed["template_date"] = record.template_date or date.today()
    return config.model_copy(update=fixed)


def starting_weights(kitchen: Kitchen, config: WorkflowConfig) -> str | None:
    """Return the reference of the checkpoint that a new run starts from, if it starts from one.

    Raises:
        ConfigurationError: the run that is named has no checkpoint.
    """
    if not isinstance(config, ModelConfig) or config.from_checkpoint is None:
        return None
    named = config.from_checkpoint
    try:
        check_run_id(named)
        other = read(kitchen, named)
    except ValueError:  # it cannot be the id of a run, so it is a reference
        return named
    if other is None:
        return named
    if other.chosen is None:
        raise ConfigurationError(
            f"workflow.from_checkpoint: the run {named!r}, which is {other.status}, has no "
            "checkpoint yet"
        )
    return other.chosen


def _lock(kitchen: Kitchen) -> dict[str, Any] | None:
    """Return what the run is made of; None where that cannot be said, as of a broken install."""
    with contextlib.suppress(ConfigurationError, OSError, ValueError):
        return take(kitchen.settings, profiles=False).lock.record()
    return None


def _git_commit() -> str | None:
    """Return the commit of the working folder, with a mark where files have changed."""
    try:
        described = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"],
            capture_output=True,
            text=True,
            timeout=10,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return described.stdout.strip() or None
