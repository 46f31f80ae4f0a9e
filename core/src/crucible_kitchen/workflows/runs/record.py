"""The record of a run: what it is, how far it has got, and what it depends on.

One JSON blob, `<run_id>/run.json`. Since a blob is written all or nothing, what a run did and the
state from which it can be continued cannot disagree.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from datetime import UTC, date, datetime
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, ValidationError, model_validator

from ...errors import ConfigurationError, NotFound
from ...kitchen import Kitchen
from ...messages.numbers import as_json
from ..config import RECORD, SAMPLES
from ..standing import Standing


class RunState(BaseModel):
    """From where a run can be continued.

    Args:
        step: optimizer steps that the last checkpoint holds.
        checkpoint: its reference; None before the first one.
        standing: what the evaluations up to it have shown.
    """

    model_config = ConfigDict(frozen=True, strict=True)

    step: int = Field(default=0, ge=0)
    checkpoint: str | None = None
    standing: Standing = Standing()


class RunRecord(BaseModel):
    """What is known of a run. Fields that a later version adds are kept as they are.

    A record is checked when it is read: what a run continues from must be there and must agree.
    """

    model_config = ConfigDict(frozen=True, extra="allow", strict=True)

    __pydantic_extra__: dict[str, Any] = Field(init=False)  # else Sphinx cannot import it

    run_id: str
    """Id of the run."""
    workflow: str
    """Name of the workflow."""
    status: str
    """`running`, `done`, `failed` or `interrupted`."""
    created: str | None = None
    """When the run was first started, in UTC (ISO 8601)."""
    ended: str | None = None
    """When it last stopped, in UTC (ISO 8601)."""
    error: str | None = None
    """Type of the error that stopped it."""
    config: dict[str, Any]
    """The workflow's settings, without secrets and without the run's id."""
    adapters: dict[str, Any] = {}
    """The adapters and their options, without secrets, by port."""
    packages: dict[str, str] = {}
    """Versions of the packages that it uses."""
    lock: dict[str, Any] | None = None
    """What it is made of, for `crucible lock --from-run`: distributions and their digests."""
    git_commit: str | None = None
    """Commit of the working folder."""
    state: RunState
    """From where it can be continued."""
    checkpoints: list[str]
    """References of the checkpoints that are kept, oldest first."""
    checkpoint_prefix: str = ""
    """What the labels of its checkpoints begin with, and no other run's."""
    metrics: dict[str, FiniteFloat | Literal["nan", "inf", "-inf"]]
    """The last value of every metric at the last checkpoint."""
    depends_on: dict[str, dict[str, Any]] = {}
    """What its results depend on besides its settings, such as digests of its rows."""
    from_checkpoint: str | None = None
    """Reference of the checkpoint whose weights it started from."""
    template_date: date | None = Field(default=None, strict=False)
    """Date that its chat template was given, if it writes one."""
    weights: str | None = None
    """Model reference of its final weights."""

    @property
    def chosen(self) -> str | None:
        """Reference of the checkpoint that the run stands for: the best one, if it looks for one,
        else the last.
        """
        best = self.state.standing.best
        return self.state.checkpoint if best is None or not best.checkpoint else best.checkpoint

    @property
    def values(self) -> dict[str, float]:
        """`metrics` as numbers: JSON has none for NaN and infinities."""
        return {name: float(value) for name, value in self.metrics.items()}

    def with_(self, **fields: Any) -> Self:
        """Return a copy with other values of these fields; infinite numbers become JSON's."""
        return type(self).model_validate(self._plain() | as_json(fields))

    @classmethod
    def from_json(cls, content: bytes) -> Self:
        """Read a record.

        Raises:
            pydantic.ValidationError: it is damaged, or is something else.
        """
        return cls.model_validate_json(content)

    def to_json(self) -> bytes:
        """Return it as it is kept in the blob store."""
        text = json.dumps(self._plain(), indent=2, ensure_ascii=False, allow_nan=False)
        return text.encode(errors="replace")

    def _plain(self) -> dict[str, Any]:
        plain = self.model_dump(mode="json", exclude_unset=True)
        return {k: v for k, v in plain.items() if v is not None or k not in ("ended", "error")}

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        prefix = rf"{re.escape(self.run_id)}/[0-9a-f]{{8}}/"
        given = "checkpoint_prefix" in self.model_fields_set
        if given and not re.fullmatch(prefix, self.checkpoint_prefix):  # others' would be removed
            raise ValueError(f"the checkpoint_prefix {self.checkpoint_prefix!r} is not its own")
        step, checkpoint = self.state.step, self.state.checkpoint
        if (step == 0) != (checkpoint is None):
            raise ValueError(f"step {step} does not go with the checkpoint {checkpoint!r}")
        best = self.state.standing.best
        for named in (checkpoint, best and best.checkpoint):
            if named is not None and named not in self.checkpoints:
                raise ValueError(f"the checkpoint of its state, {named!r}, is not among them all")
        return self


def path_of(run_id: str) -> str:
    """Return the path of a run's record in the blob store."""
    return f"{run_id}/{RECORD}"


def ids_with(paths: Iterable[str], name: str = RECORD) -> set[str]:
    """Return the ids of the runs that have a blob of this name among these paths."""
    return {path.removesuffix(f"/{name}") for path in paths if path.endswith(f"/{name}")}


def samples_path(run_id: str, step: int) -> str:
    """Return the path of the samples of an evaluation: JSON lines, a sample each."""
    return f"{run_id}/{SAMPLES}/{step:08d}.jsonl"


def read(kitchen: Kitchen, run_id: str) -> RunRecord | None:
    """Return the record of a run, or None if there is none in the blob store.

    Raises:
        ConfigurationError: it is not a record of a run, or is another run's.
    """
    path = path_of(run_id)
    try:
        content = kitchen.blob_store.read(path)
    except NotFound:
        return None
    try:
        record = RunRecord.from_json(content)
    except ValidationError as error:
        [first, *_] = error.errors(include_url=False, include_context=False, include_input=False)
        what = "".join(f"{part}: " for part in first["loc"])
        what += first["msg"].removeprefix("Value error, ")
        raise ConfigurationError(
            f"the blob {path!r} of the blob store is damaged, or not the record of a run: "
            f"{what}. Restore it, or choose another workflow.run_id"
        ) from error
    if record.run_id != run_id:  # continuing a copy would remove what belongs to the original
        raise ConfigurationError(
            f"the blob {path!r} of the blob store is the record of another run, "
            f"{record.run_id!r}. Remove it, or choose another workflow.run_id"
        )
    return record


def write(kitchen: Kitchen, record: RunRecord) -> None:
    """Write a record, all or nothing."""
    kitchen.blob_store.write(path_of(record.run_id), record.to_json())


def now() -> str:
    """Return the time in UTC, to the second (ISO 8601)."""
    return datetime.now(UTC).isoformat(timespec="seconds")
