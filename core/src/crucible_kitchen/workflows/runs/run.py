"""One run, opened by the one process that works on it.

The order at a checkpoint makes interrupted equal to uninterrupted: metrics are flushed, then the
checkpoint is saved, then the state is committed, then older checkpoints are deleted. A crash
between any two leaves a complete state, and at worst a checkpoint that the next start removes. It
is recognised by its label: the record holds a prefix that no other run has, whatever their ids.
Steps that run while a checkpoint is saved change none of this: what is committed with it is what
was known when it was submitted.
"""

from __future__ import annotations

import contextlib
import json
import secrets
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import Any, Generic, Self, TypeVar

from ...errors import AdapterError, ConfigurationError
from ...kitchen import Kitchen
from ...messages.numbers import as_json
from ..config import WorkflowConfig, check_run_id
from ..standing import Standing
from .changes import check_unchanged, extends
from .cleaning import acquire, lease_of, sweep
from .lease import Lease
from .opening import opened, resolved
from .record import RunRecord, now, read, samples_path, write
from .saving import Saving, awaited, known

ConfigT = TypeVar("ConfigT", bound=WorkflowConfig)
NOTHING_EVALUATED = Standing()


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
            if previous is None or previous.status != "done" or extends(previous, config):
                acquire(lease, kitchen, named)
                # Once more: from now on no other process writes it.
                previous = None if run_id is None else read(kitchen, named)
            record = opened(kitchen, named, workflow, config, previous)
            return cls(kitchen, resolved(config, record), record, lease, previous is not None)
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
            session: the training client's; None where the run needs no training client.
            depends_on: what the run's results depend on besides its settings, such as a digest of
                its rows: plain data by name. The training client's `get_info` is added to it.
            facts: further fields of the record, such as how many rows were left out.

        Raises:
            ConfigurationError: the run was started with other values in `depends_on`.
        """
        found = {name: dict(about) for name, about in depends_on.items()}
        if session is not None and self._kitchen.training_client.supports("get_info"):
            found["training_client"] = dict(self._kitchen.training_client.get_info(session))
        found = as_json(found)
        check_unchanged(self.id, self.record.depends_on, found)
        # Of an attempt before this one.
        self._commit(status="running", error=None, ended=None, depends_on=found, **facts)
        self._started = True
        sweep(self._kitchen, self.record)

    def keep_samples(self, step: int, samples: Sequence[Mapping[str, Any]]) -> None:
        """Keep the samples of an evaluation after `step` steps in the blob store."""
        if samples:
            lines = "".join(
                json.dumps(as_json(each), ensure_ascii=False) + "\n" for each in samples
            )
            path = samples_path(self.id, step)
            self._kitchen.blob_store.write(path, lines.encode(errors="replace"))

    def save(
        self,
        session: Any,
        step: int,
        keep: int,
        metrics: Mapping[str, float],
        standing: Standing = NOTHING_EVALUATED,
    ) -> Saving:
        """Submit a checkpoint after `step` steps, for `commit`; keep the last `keep`, and the best.

        Where the training client can, it is saved while the next steps run; else it is durable
        when this returns. One that the run has already is not saved again.
        """
        client = self._kitchen.training_client
        span = self._kitchen.observers.start("training.checkpoint", run_id=self.id, step=step)
        with span.current():
            self._kitchen.metrics_store.flush(self.id)
            label = f"{self.record.checkpoint_prefix}{step:08d}"
            if self.checkpoint is not None and self.step == step:
                reference = known(self.checkpoint)
            elif client.supports("save_checkpoint_async"):
                reference = awaited(
                    partial(client.await_, client.save_checkpoint_async(session, label))
                )
            else:
                reference = known(client.save_checkpoint(session, label))
        return Saving(step, keep, dict(metrics), standing, span, reference)

    def commit(self, saving: Saving) -> str:
        """Wait until a checkpoint is durable, commit the state that it belongs to, and delete older
        ones; return its reference. Again, it changes nothing.
        """
        try:
            reference = saving.reference.result()
        except Exception as error:
            saving.span.end(error)
            raise
        with saving.span:
            client, checkpoints = self._kitchen.training_client, self.record.checkpoints
            if reference not in checkpoints:
                checkpoints = [*checkpoints, reference]
            standing = saving.standing.saved(saving.step, reference)
            best = standing.best and standing.best.checkpoint
            kept = [
                each for each in checkpoints if each in checkpoints[-saving.keep :] or each == best
            ]
            state: dict[str, Any] = {"step": saving.step, "checkpoint": reference}
            if standing != NOTHING_EVALUATED:
                state["standing"] = standing.model_dump()
            self._commit(state=state, checkpoints=kept, metrics=saving.metrics)
            if client.supports("delete_checkpoint"):
                for old in checkpoints:
                    if old not in kept:
                        client.delete_checkpoint(old)
        return reference

    def finish(self, weights: str | None, metrics: Mapping[str, float]) -> None:
        """Commit the end of the run."""
        self._kitchen.metrics_store.flush(self.id)
        before = self.record.weights
        self._commit(status="done", weights=weights, ended=now(), metrics=dict(metrics))
        if before not in (None, weights):  # the run had been done, and was extended
            sweep(self._kitchen, self.record)

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
