"""Runs: an id, a record, and the state from which an interrupted run goes on.

The record is one JSON blob, `<run_id>/run.json`, which holds the resolved configuration without
secrets, packages and versions, seed, git commit, checkpoints, figures and the state. Since a blob
is written all or nothing, record and state cannot disagree.

The order at a checkpoint makes interrupted equal to uninterrupted: metrics are flushed, then the
checkpoint is saved, then the state is committed, then older checkpoints go. A crash between any two
leaves a state that is complete, and at worst a checkpoint that the next start removes. It is known
by its label: the record holds a prefix that no other run has, whatever their ids.
"""

from __future__ import annotations

import json
import math
import secrets
import subprocess
from collections.abc import Mapping
from datetime import UTC, date, datetime
from typing import Any

from ..errors import ConfigurationError, NotFound
from ..kitchen import Kitchen
from ..options import visible
from ..version import __version__
from . import WorkflowConfig


class Run:
    """The record of one run.

    Args:
        kitchen: its adapters; blob store, metrics store and training client are used.
        workflow: the name of the workflow.
        config: its resolved configuration.
        run_id: None makes a new id. An id that exists continues that run.

    Raises:
        ConfigurationError: the run exists and was started with another configuration.
    """

    def __init__(
        self, kitchen: Kitchen, workflow: str, config: WorkflowConfig, run_id: str | None
    ) -> None:
        self._kitchen = kitchen
        self.id = run_id or f"{workflow}-{datetime.now(UTC):%Y%m%d-%H%M%S}-{secrets.token_hex(3)}"
        self.path = f"{self.id}/run.json"
        previous = self._read() if run_id is not None else None
        self.resumed = previous is not None
        self.record: dict[str, Any] = previous or {
            "run_id": self.id,
            "workflow": workflow,
            "created": _now(),
            "state": {"step": 0, "checkpoint": None},
            "checkpoints": [],
            "metrics": {},
        }
        # An id may begin with that of another run, or be in use with another blob store: what is
        # random is in no other label. A record of a version without it owns what it lists alone.
        self.record.setdefault("checkpoint_prefix", f"{self.id}/{secrets.token_hex(4)}/")
        shown = _finite(visible(config))
        plain = {name: value for name, value in shown.items() if name != "run_id"}
        if previous is not None:
            _check_same(self.id, previous["config"], plain)
        self.record |= {
            "status": previous["status"] if previous else "running",
            "config": plain,
            "adapters": _finite(kitchen.describe()),
            "packages": {"crucible-kitchen": __version__, **kitchen.packages()},
            "git_commit": _git_commit(),
        }

    @property
    def done(self) -> bool:
        """Whether the run ended as planned."""
        return bool(self.record["status"] == "done")

    @property
    def step(self) -> int:
        """How many steps the last checkpoint holds."""
        return int(self.record["state"]["step"])

    @property
    def checkpoint(self) -> str | None:
        """The reference of the last checkpoint."""
        reference = self.record["state"]["checkpoint"]
        return None if reference is None else str(reference)

    def start(self) -> None:
        """Commit the record, and remove checkpoints of this run that no state knows."""
        for ending in ("error", "ended"):  # of an attempt before this one
            self.record.pop(ending, None)
        self._commit(status="running")
        client = self._kitchen.training_client
        if client.supports("list_checkpoints") and client.supports("delete_checkpoint"):
            for reference in client.list_checkpoints(self.record["checkpoint_prefix"]):
                if reference not in self.record["checkpoints"]:
                    client.delete_checkpoint(reference)

    @property
    def day(self) -> date:
        """The day that a chat template which writes the date is given: that of the run's start."""
        recorded = self.record.get("template_date")
        return date.today() if recorded is None else date.fromisoformat(recorded)

    def note(self, **facts: Any) -> None:
        """Commit facts about the run, such as what became of its rows."""
        self._commit(**facts)

    def save(self, session: Any, step: int, keep: int, figures: Mapping[str, float]) -> None:
        """Save a checkpoint after `step` steps, and keep the last `keep` of them."""
        observers, client = self._kitchen.observers, self._kitchen.training_client
        with observers.start("training.checkpoint", run_id=self.id, step=step):
            self._kitchen.metrics_store.flush(self.id)
            label = f"{self.record['checkpoint_prefix']}{step:08d}"
            reference = client.save_checkpoint(session, label)
            known = [*self.record["checkpoints"], reference]
            old, kept = known[:-keep], known[-keep:]
            self.record["checkpoints"] = kept
            self._commit(state={"step": step, "checkpoint": reference}, metrics=_finite(figures))
            if client.supports("delete_checkpoint"):
                for reference in old:
                    client.delete_checkpoint(reference)

    def finish(self, weights: str | None, figures: Mapping[str, float]) -> None:
        """Commit the end of the run."""
        self._kitchen.metrics_store.flush(self.id)
        self._commit(status="done", weights=weights, ended=_now(), metrics=_finite(figures))

    def fail(self, error: BaseException) -> None:
        """Commit that the run stopped early, and why; it can be continued."""
        status = "failed" if isinstance(error, Exception) else "interrupted"
        self._commit(status=status, error=type(error).__name__, ended=_now())

    def _commit(self, **fields: Any) -> None:
        self.record |= fields
        text = json.dumps(self.record, indent=2, ensure_ascii=False, allow_nan=False)
        self._kitchen.blob_store.write(self.path, text.encode(errors="replace"))

    def _read(self) -> dict[str, Any] | None:
        try:
            return dict(json.loads(self._kitchen.blob_store.read(self.path)))
        except NotFound:
            return None


def _check_same(run_id: str, before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    changed = [key for key in {**before, **now} if before.get(key) != now.get(key)]
    if changed:
        listed = "; ".join(
            f"workflow.{key} was {before.get(key)!r} and is {now.get(key)!r}" for key in changed
        )
        raise ConfigurationError(
            f"the run {run_id!r} was started with another configuration: {listed}. "
            "Continue it as it was, or choose another workflow.run_id"
        )


def _finite(value: Any) -> Any:
    """Return plain data with NaN and infinities as text: JSON has no such numbers."""
    if isinstance(value, Mapping):
        return {name: _finite(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_finite(item) for item in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


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
