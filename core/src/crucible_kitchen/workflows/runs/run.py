"""One run, opened by the one process that works on it.

The order at a checkpoint makes interrupted equal to uninterrupted: metrics are flushed, then the
checkpoint is saved, then the state is committed, then older checkpoints are deleted. A crash
between any two leaves a complete state, and at worst a checkpoint that the next start removes. It
is recognised by its label: the record holds a prefix that no other run has, whatever their ids.
"""

from __future__ import annotations

import contextlib
import secrets
import subprocess
from collections.abc import Mapping
from datetime import UTC, date, datetime
from typing import Any, Generic, Self, TypeVar

from ...errors import AdapterError, ConfigurationError
from ...kitchen import Kitchen
from ...masking import visible
from ...messages.numbers import as_json
from ...version import __version__
from ..config import ModelConfig, RowsConfig, WorkflowConfig, check_run_id
from .cleaning import acquire, lease_of, sweep
from .lease import Lease
from .record import RunRecord, RunState, now, read, write

ConfigT = TypeVar("ConfigT", bound=WorkflowConfig)


class Run(Generic[ConfigT]):
    """The record of one run, and the right to work on it until the `with` block ends.

        with Run.open(kitchen, "mine", config) as run:
            if not run.done:
                ...
                run.start(session, {"train": {"sha256": digest}})
                ...
                run.finish(weights, metrics)

    Attributes:
        id: the run's id.
        config: its settings, resolved: what was left open is as it was when it first started.
        record: its `RunRecord`, as it was last written.
        resumed: whether it had been started before.
    """

    def __init__(
        self,
        kitchen: Kitchen,
        config: ConfigT,
        record: RunRecord,
        lease: Lease,
        resumed: bool,
    ) -> None:
        self._kitchen = kitchen
        self._lease = lease
        self._started = False
        self.id = record.run_id
        self.config = config
        self.record = record
        self.resumed = resumed

    @classmethod
    def open(cls, kitchen: Kitchen, workflow: str, config: ConfigT, run_id: str | None) -> Self:
        """Open a run: a new one, or one that exists, to continue it.

        Args:
            kitchen: its blob store, metrics store and training client are used.
            workflow: the name of the workflow.
            config: its settings.
            run_id: None makes a new id; the id of a run continues it.

        Raises:
            ConfigurationError: the id cannot be one; the run belongs to another workflow, or was
                started with other settings; its record cannot be read; another process works on
                it; or `from_checkpoint` names a run without a checkpoint.
        """
        named = run_id or f"{workflow}-{datetime.now(UTC):%Y%m%d-%H%M%S}-{secrets.token_hex(3)}"
        try:
            check_run_id(named)
        except ValueError as error:
            raise ConfigurationError(f"the run id {named!r}: {error}") from None
        lease = lease_of(kitchen, named)
        previous = None if run_id is None else read(kitchen, named)
        try:
            if previous is None or previous.status != "done":
                acquire(lease, kitchen, named)
                # Once more: from now on no other process writes it.
                previous = None if run_id is None else read(kitchen, named)
            record = _opened(kitchen, named, workflow, config, previous)
            return cls(kitchen, _resolved(config, record), record, lease, previous is not None)
        except BaseException:
            _release(lease)
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Let others work on the run."""
        _release(self._lease)

    @property
    def done(self) -> bool:
        """Whether the run ended as planned."""
        return self.record.status == "done"

    @property
    def step(self) -> int:
        """How many optimizer steps the last checkpoint holds."""
        return self.record.state.step

    @property
    def checkpoint(self) -> str | None:
        """The reference of the last checkpoint."""
        return self.record.state.checkpoint

    @property
    def metrics(self) -> dict[str, float]:
        """The last value of every metric at the last checkpoint."""
        return self.record.values

    @property
    def weights_name(self) -> str:
        """The name under which the final weights are saved; no other run has it."""
        return f"{self.record.checkpoint_prefix}weights"

    def start(
        self, session: Any, depends_on: Mapping[str, Mapping[str, Any]], **facts: Any
    ) -> None:
        """Commit the record, and remove what killed processes left of this run.

        Args:
            session: the training client's.
            depends_on: what the run's results depend on besides its settings, such as a digest of
                its rows: plain data by name. The training client's `get_info` is added to it.
            facts: further fields of the record, such as how many rows were left out.

        Raises:
            ConfigurationError: the run was started with other values in `depends_on`.
        """
        client = self._kitchen.training_client
        found = {name: dict(about) for name, about in depends_on.items()}
        if client.supports("get_info"):
            found["training_client"] = dict(client.get_info(session))
        found = as_json(found)
        _check_unchanged(self.id, self.record.depends_on, found)
        # Of an attempt before this one.
        self._commit(status="running", error=None, ended=None, depends_on=found, **facts)
        self._started = True
        sweep(self._kitchen, self.record)

    def save(self, session: Any, step: int, keep: int, metrics: Mapping[str, float]) -> None:
        """Save a checkpoint after `step` steps, and keep the last `keep` of them."""
        observers, client = self._kitchen.observers, self._kitchen.training_client
        with observers.start("training.checkpoint", run_id=self.id, step=step):
            self._kitchen.metrics_store.flush(self.id)
            label = f"{self.record.checkpoint_prefix}{step:08d}"
            reference = client.save_checkpoint(session, label)
            known = [*self.record.checkpoints, reference]
            old, kept = known[:-keep], known[-keep:]
            state = {"step": step, "checkpoint": reference}
            self._commit(state=state, checkpoints=kept, metrics=dict(metrics))
            if client.supports("delete_checkpoint"):
                for reference in old:
                    client.delete_checkpoint(reference)

    def finish(self, weights: str | None, metrics: Mapping[str, float]) -> None:
        """Commit the end of the run."""
        self._kitchen.metrics_store.flush(self.id)
        self._commit(status="done", weights=weights, ended=now(), metrics=dict(metrics))

    def fail(self, error: BaseException) -> None:
        """Commit that the run stopped early, and why; it can be continued.

        A run that has not started keeps the record that it had, if any. A run that is done stays
        done, even if the error came while that was written.
        """
        stored = read(self._kitchen, self.id) if self._started else None
        if stored is not None and stored.status == "done":
            self.record = stored
        elif self._started:
            status = "failed" if isinstance(error, Exception) else "interrupted"
            self._commit(status=status, error=type(error).__name__, ended=now())

    def _commit(self, **fields: Any) -> None:
        self._lease.check()
        record = self.record.with_(**fields)
        write(self._kitchen, record)
        self.record = record


def _release(lease: Lease) -> None:
    with contextlib.suppress(AdapterError):  # a lease that stays is free when its term is over
        lease.release()


def _opened(
    kitchen: Kitchen,
    run_id: str,
    workflow: str,
    config: WorkflowConfig,
    previous: RunRecord | None,
) -> RunRecord:
    """Return the record of a run as it is worked on from now on; nothing is written yet."""
    plain = as_json(visible(config))
    plain.pop("run_id", None)
    about: dict[str, Any] = {
        "config": plain,
        "adapters": as_json(kitchen.describe()),
        "packages": {"crucible-kitchen": __version__, **kitchen.packages()},
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
    _check_same(run_id, previous.config, plain, config)
    if not previous.checkpoint_prefix:
        about["checkpoint_prefix"] = prefix
    return previous.with_(**about)


def _resolved(config: ConfigT, record: RunRecord) -> ConfigT:
    """Return the settings with what the run fixed at its first start in place of what was open."""
    fixed: dict[str, Any] = {}
    if isinstance(config, ModelConfig) and record.from_checkpoint is not None:
        fixed["from_checkpoint"] = record.from_checkpoint
    if isinstance(config, RowsConfig) and config.template_date is None:
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
    if other.state.checkpoint is None:
        raise ConfigurationError(
            f"workflow.from_checkpoint: the run {named!r}, which is {other.status}, has no "
            "checkpoint yet"
        )
    return other.state.checkpoint


def _check_same(
    run_id: str, before: Mapping[str, Any], now: Mapping[str, Any], config: WorkflowConfig
) -> None:
    defaults = as_json(visible(type(config).model_construct()))
    before = {**defaults, **before}  # a version may have had fewer keys
    changed = [
        key
        for key in {**before, **now}
        if before.get(key) != now.get(key) and key not in config.may_change
    ]
    if changed:
        listed = "; ".join(
            f"workflow.{key} was {before.get(key)!r} and is {now.get(key)!r}" for key in changed
        )
        raise ConfigurationError(
            f"the run {run_id!r} was started with another configuration: {listed}. "
            "Continue it as it was, or choose another workflow.run_id"
        )


def _check_unchanged(
    run_id: str, before: Mapping[str, Mapping[str, Any]], now: Mapping[str, Mapping[str, Any]]
) -> None:
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
