"""Runs: an id, a record, and the state from which an interrupted run goes on.

The record is one JSON blob, `<run_id>/run.json`, which holds the resolved configuration without
secrets, packages and versions, seed, git commit, checkpoints, figures and the state. Since a blob
is written all or nothing, record and state cannot disagree.

The order at a checkpoint makes interrupted equal to uninterrupted: metrics are flushed, then the
checkpoint is saved, then the state is committed, then older checkpoints go. A crash between any two
leaves a state that is complete, and at worst a checkpoint that the next start removes. It is known
by its label: the record holds a prefix that no other run has, whatever their ids.

One process at a time works on a run: whoever does holds its lease, the blob `<run_id>/lease.json`.
"""

from __future__ import annotations

import contextlib
import json
import math
import re
import secrets
import subprocess
from collections.abc import Iterator, Mapping
from datetime import UTC, date, datetime
from types import TracebackType
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    FiniteFloat,
    ValidationError,
    model_validator,
)

from ..errors import (
    AdapterError,
    AdapterTimeout,
    ConfigurationError,
    NotFound,
    RateLimited,
    Unavailable,
)
from ..kitchen import Kitchen
from ..masking import visible
from ..texts import Name
from ..version import __version__
from .config import WorkflowConfig
from .lease import Lease

RECORD = "run.json"
LEASE = "lease.json"


def _one_spelling(run_id: str) -> str:
    """Refuse an id that is no path of blobs, or is another's in another spelling."""
    if taken := {"", ".", ".."} & {*run_id.split("/")}:
        raise ValueError(f"it is a path of blobs, which has no part {taken.pop()!r}")
    if taken := {RECORD, LEASE} & {*run_id.split("/")}:
        raise ValueError(f"no part of it may be {taken.pop()!r}, where another run has a file")
    return run_id


RunId = Annotated[Name, AfterValidator(_one_spelling)]
"""The type of a run's id: parts separated by `/`, in one spelling."""


class Run:
    """The record of one run, and the right to work on it until the `with` block ends.

        with Run(kitchen, "mine", config, config.run_id) as run:
            if not run.done:
                ...
                run.start(session, {"train": rows})
                ...
                run.finish(weights, figures)

    Args:
        kitchen: its adapters; blob store, metrics store and training client are used.
        workflow: the name of the workflow.
        config: its resolved configuration.
        run_id: None makes a new id. An id that exists continues that run.

    Raises:
        ConfigurationError: the id cannot be one; the run exists and is one of another workflow, or
            was started with another configuration; its record cannot be read; or another process
            works on it.
    """

    def __init__(
        self, kitchen: Kitchen, workflow: str, config: WorkflowConfig, run_id: str | None
    ) -> None:
        self._kitchen = kitchen
        self._started = False
        self.id = run_id or f"{workflow}-{datetime.now(UTC):%Y%m%d-%H%M%S}-{secrets.token_hex(3)}"
        try:
            _one_spelling(self.id)
        except ValueError as error:
            raise ConfigurationError(f"the run id {self.id!r}: {error}") from None
        self.path = path_of(self.id)
        self._lease = lease_of(kitchen, self.id)
        previous = self._read() if run_id is not None else None
        try:
            if previous is None or previous["status"] != "done":
                acquire(self._lease, kitchen, self.id)
                previous = self._read() if run_id is not None else None  # nobody else writes now
            self._open(previous, workflow, config)
        except BaseException:
            self.close()
            raise

    def _open(self, previous: dict[str, Any] | None, workflow: str, config: WorkflowConfig) -> None:
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
            if previous["workflow"] != workflow:
                raise ConfigurationError(
                    f"the run {self.id!r} is one of the workflow {previous['workflow']!r}, and not "
                    f"of {workflow!r}. Continue it as it was, or choose another workflow.run_id"
                )
            _check_same(self.id, previous["config"], plain, _defaults(config))
        self.record |= {
            "status": previous["status"] if previous else "running",
            "config": plain,
            "adapters": _finite(self._kitchen.describe()),
            "packages": {"crucible-kitchen": __version__, **self._kitchen.packages()},
            "git_commit": _git_commit(),
        }

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let others work on the run."""
        with contextlib.suppress(AdapterError):  # a lease that stays is free when its term is over
            self._lease.release()

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

    @property
    def metrics(self) -> dict[str, float]:
        """The last value of every metric at the last checkpoint."""
        return {name: float(value) for name, value in self.record["metrics"].items()}

    @property
    def day(self) -> date:
        """The day that a chat template which writes the date is given: that of the run's start."""
        recorded = self.record.get("template_date")
        return date.today() if recorded is None else date.fromisoformat(recorded)

    @property
    def weights_name(self) -> str:
        """The name under which the final weights are saved: no other run has it."""
        return f"{self.record['checkpoint_prefix']}weights"

    def start(
        self, session: Any, depends_on: Mapping[str, Mapping[str, Any]], **facts: Any
    ) -> None:
        """Commit the record, and remove what killed processes left of this run.

        Args:
            session: the training client's.
            depends_on: by what it is called, what the run's results depend on beside its
                configuration, such as a digest of its rows: plain data. The training client's
                `get_info` is added to it.
            facts: what else the record is to hold, such as what became of the rows.

        Raises:
            ConfigurationError: the run was started with something else of `depends_on`.
        """
        client = self._kitchen.training_client
        found = {name: dict(about) for name, about in depends_on.items()}
        if client.supports("get_info"):
            found["training_client"] = dict(client.get_info(session))
        _check_unchanged(self.id, self.record.get("depends_on", {}), found)
        for ending in ("error", "ended"):  # of an attempt before this one
            self.record.pop(ending, None)
        self._commit(status="running", depends_on=_finite(found), **facts)
        self._started = True
        sweep(self._kitchen, self.record)

    def save(self, session: Any, step: int, keep: int, figures: Mapping[str, float]) -> None:
        """Save a checkpoint after `step` steps, and keep the last `keep` of them."""
        observers, client = self._kitchen.observers, self._kitchen.training_client
        with observers.start("training.checkpoint", run_id=self.id, step=step):
            self._kitchen.metrics_store.flush(self.id)
            label = f"{self.record['checkpoint_prefix']}{step:08d}"
            reference = client.save_checkpoint(session, label)
            known = [*self.record["checkpoints"], reference]
            old, kept = known[:-keep], known[-keep:]
            state = {"step": step, "checkpoint": reference}
            self._commit(state=state, checkpoints=kept, metrics=_finite(figures))
            if client.supports("delete_checkpoint"):
                for reference in old:
                    client.delete_checkpoint(reference)

    def finish(self, weights: str | None, figures: Mapping[str, float]) -> None:
        """Commit the end of the run."""
        self._kitchen.metrics_store.flush(self.id)
        self._commit(status="done", weights=weights, ended=_now(), metrics=_finite(figures))

    def fail(self, error: BaseException) -> None:
        """Commit that the run stopped early, and why; it can be continued.

        One that has not started leaves no record, or the one that it had. One that is done stays
        done, even if the error came while that was written.
        """
        stored = self._read() if self._started else None
        if stored is not None and stored["status"] == "done":
            self.record = stored
        elif self._started:
            status = "failed" if isinstance(error, Exception) else "interrupted"
            self._commit(status=status, error=type(error).__name__, ended=_now())

    def _commit(self, **fields: Any) -> None:
        self._lease.check()
        record = self.record | fields
        write(self._kitchen, self.path, record)
        self.record = record

    def _read(self) -> dict[str, Any] | None:
        return read(self._kitchen, self.id)


def path_of(run_id: str) -> str:
    """Return the path of a run's record in the blob store."""
    return f"{run_id}/{RECORD}"


def lease_of(kitchen: Kitchen, run_id: str) -> Lease:
    """Return the lease on a run, not acquired."""
    return Lease(kitchen.blob_store, f"{run_id}/{LEASE}", f"the run {run_id!r}")


def acquire(lease: Lease, kitchen: Kitchen, run_id: str) -> None:
    """Take the lease on a run; tell observers of a holder that is waited for."""
    emit = kitchen.observers.emit
    lease.acquire(
        lambda holder: emit("workflow.waiting", run_id=run_id, seconds=lease.term, holder=holder)
    )


def sweep(kitchen: Kitchen, record: Mapping[str, Any], dry_run: bool = False) -> list[str]:
    """Remove what killed processes left of a run whose lease is held; return its names.

    Unfinished blobs, checkpoints and weights, and whole ones that the record does not name.
    """
    client, prefix = kitchen.training_client, record.get("checkpoint_prefix")
    left = kitchen.blob_store.clean(path_of(record["run_id"]), dry_run=dry_run)
    if prefix is None:  # of a version that had none
        return left
    named = [*record["checkpoints"], record.get("weights")]
    keep = [reference for reference in named if reference is not None]
    left += client.clean(prefix, keep, dry_run)
    if client.supports("list_checkpoints") and client.supports("delete_checkpoint"):
        for reference in client.list_checkpoints(prefix):
            if reference not in keep and reference not in left:
                left.append(reference)
                if not dry_run:
                    client.delete_checkpoint(reference)
    return left


def clean(kitchen: Kitchen, dry_run: bool = False) -> Iterator[tuple[str, str]]:
    """Remove what killed runs left behind; yield the run, and what was, or would be, done.

    A run that another process works on is left alone. Of one that was killed, the record says so
    from then on, and no longer that it is running. All holders elsewhere are watched at once.

    Raises:
        Unsupported: the blob store cannot list its blobs.
        AdapterError: a backend is away.
    """
    there = {*kitchen.blob_store.list("")}
    endings = (path_of(""), lease_of(kitchen, "").path)
    found_ids = {p.removesuffix(e) for p in there for e in endings if p.endswith(e)}
    removes = kitchen.blob_store.supports("delete")  # else a lease that was released stays
    watched: list[tuple[str, Lease]] = []
    for run_id in sorted(found_ids):
        lease = lease_of(kitchen, run_id)
        found: list[str] = []
        with _left_alone(found):
            if not (lease.path in there and removes) and not _is_left(kitchen, run_id):
                continue
            try:
                lease.look()
            except ConfigurationError:
                if dry_run or not (path_of(run_id) in there or lease.is_one):
                    raise
                watched.append((run_id, lease))
            else:
                found += _clean(kitchen, run_id, lease, dry_run)
        yield from ((run_id, what) for what in found)
    for run_id, lease in watched:
        found = []
        with _left_alone(found):
            found += _clean(kitchen, run_id, lease, dry_run)
        yield from ((run_id, what) for what in found)


@contextlib.contextmanager
def _left_alone(found: list[str]) -> Iterator[None]:
    """Name what is wrong with one run, which concerns no other; not a backend that is away."""
    try:
        yield
    except (Unavailable, AdapterTimeout, RateLimited):
        raise
    except (ConfigurationError, AdapterError) as error:
        found.append(f"left alone: {error}")


def _is_left(kitchen: Kitchen, run_id: str) -> bool:
    """Say whether there is anything to clean: most runs are done, and need no lease for it."""
    record = read(kitchen, run_id)
    if record is None:
        return False
    return record["status"] == "running" or bool(sweep(kitchen, record, dry_run=True))


def _clean(kitchen: Kitchen, run_id: str, lease: Lease, dry_run: bool) -> Iterator[str]:
    was_left = kitchen.blob_store.supports("delete") and kitchen.blob_store.exists(lease.path)
    with lease:
        if not dry_run:
            acquire(lease, kitchen, run_id)
        if was_left:
            yield f"removed {lease.path}"
        record = read(kitchen, run_id)
        if record is None:
            return
        for name in sweep(kitchen, record, dry_run):
            yield f"removed {name}"
        if record["status"] == "running":
            if not dry_run:
                lease.check()
                killed = {"status": "interrupted", "error": "killed", "ended": _now()}
                write(kitchen, path_of(run_id), record | killed)
            yield f"was killed; goes on after step {record['state']['step']}"


def _is_date(text: str) -> str:
    date.fromisoformat(text)
    return text


class _State(BaseModel):
    step: int = Field(ge=0)
    checkpoint: str | None


class _Record(BaseModel):
    """What a run goes on from must be in its record, and must fit together."""

    model_config = ConfigDict(extra="allow", strict=True)

    __pydantic_extra__: dict[str, Any] = Field(init=False)  # else Sphinx cannot import it

    run_id: str
    workflow: str
    status: str
    config: dict[str, Any]
    state: _State
    checkpoints: list[str]
    metrics: dict[str, FiniteFloat | Literal["nan", "inf", "-inf"]]
    checkpoint_prefix: str = ""
    """Versions before it had none."""
    depends_on: dict[str, dict[str, Any]] = {}
    template_date: Annotated[str, AfterValidator(_is_date)] | None = None
    weights: str | None = None

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        prefix = rf"{re.escape(self.run_id)}/[0-9a-f]{{8}}/"
        given = "checkpoint_prefix" in self.model_fields_set
        if given and not re.fullmatch(prefix, self.checkpoint_prefix):  # others' would be removed
            raise ValueError(f"the checkpoint_prefix {self.checkpoint_prefix!r} is none of it")
        step, checkpoint = self.state.step, self.state.checkpoint
        if (step == 0) != (checkpoint is None):
            raise ValueError(f"step {step} does not go with the checkpoint {checkpoint!r}")
        if checkpoint is not None and checkpoint not in self.checkpoints:
            raise ValueError(f"the checkpoint of its state, {checkpoint!r}, is not among them all")
        return self


def read(kitchen: Kitchen, run_id: str) -> dict[str, Any] | None:
    """Return the record of a run, or None if there is none in the blob store.

    Raises:
        ConfigurationError: it is no record of a run, or that of another.
    """
    path = path_of(run_id)
    try:
        content = kitchen.blob_store.read(path)
    except NotFound:
        return None
    try:
        record = _Record.model_validate_json(content)
        if record.run_id != run_id:  # what is copied would remove what belongs to the original
            raise ConfigurationError(
                f"the blob {path!r} of the blob store is the record of another run, "
                f"{record.run_id!r}. Remove it, or choose another workflow.run_id"
            )
    except ValidationError as error:
        [first, *_] = error.errors(include_url=False, include_context=False, include_input=False)
        what = "".join(f"{part}: " for part in first["loc"])
        what += first["msg"].removeprefix("Value error, ")
        raise ConfigurationError(
            f"the blob {path!r} of the blob store is damaged, or not the record of a run: "
            f"{what}. Restore it, or choose another workflow.run_id"
        ) from error
    return record.model_dump(exclude_unset=True)


def write(kitchen: Kitchen, path: str, record: Mapping[str, Any]) -> None:
    """Write a record, all or nothing."""
    text = json.dumps(record, indent=2, ensure_ascii=False, allow_nan=False)
    kitchen.blob_store.write(path, text.encode(errors="replace"))


def _check_same(
    run_id: str, before: Mapping[str, Any], now: Mapping[str, Any], defaults: Mapping[str, Any]
) -> None:
    before = {**defaults, **before}  # a version may have had fewer keys
    changed = [key for key in {**before, **now} if before.get(key) != now.get(key)]
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


def _defaults(config: WorkflowConfig) -> Mapping[str, Any]:
    defaults: Mapping[str, Any] = _finite(visible(type(config).model_construct()))
    return defaults


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
