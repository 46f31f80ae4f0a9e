"""The settings that training workflows share: the model, the rows, the optimizer, the run."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal, Self, TypeAlias

from pydantic import AfterValidator, Field, model_validator

from ..options.frozen import Frozen
from ..options.texts import Keyword, Name, Template
from ..types import AdamParams, LoraConfig, SessionConfig
from .batches import share
from .foreign import NAMES
from .schedules import ScheduleName, lr_factor
from .standing import BestMode

RECORD = "run.json"
"""The last part of the path of a run's record in the blob store."""
LEASE = "lease.json"
"""The last part of the path of the lease on a run."""
SAMPLES = "samples"
"""The folder of a run's samples, a file for each evaluation."""

TrainOn: TypeAlias = Literal["last_assistant_message", "all_assistant_messages", "all_tokens"]
TooLong: TypeAlias = Literal["error", "truncate", "drop"]


def check_run_id(run_id: str) -> str:
    """Return an id; refuse one that is not a path of blobs, or is another id spelled differently.

    Raises:
        ValueError: says which part of it is wrong.
    """
    if taken := {"", ".", ".."} & {*run_id.split("/")}:
        raise ValueError(f"it is a path of blobs, which has no part {taken.pop()!r}")
    if taken := {RECORD, LEASE, SAMPLES} & {*run_id.split("/")}:
        raise ValueError(f"no part of it may be {taken.pop()!r}, where another run has a file")
    return run_id


RunId = Annotated[Name, AfterValidator(check_run_id)]
"""The type of a run's id: parts separated by `/`, in one spelling."""


class WorkflowConfig(Frozen):
    """The base of a workflow's configuration: frozen, no unknown keys, like adapter options."""

    may_change: ClassVar[frozenset[str]] = frozenset()
    """Settings that change no result, so that a run may be continued with other values of them."""
    may_extend: ClassVar[frozenset[str]] = frozenset()
    """Settings that say where a run ends: one that is done is continued with other values."""

    def required_ports(self) -> tuple[str, ...]:
        """Return the ports that a run with this configuration uses; they are bound before it."""
        return ()


class ModelConfig(WorkflowConfig):
    """Which model to start from."""

    model: Name = Field(examples=["Qwen/Qwen3-0.6B"])
    """Model to train: a name, hub id or path that the training client knows."""
    revision: Name | None = None
    """Branch, tag or commit of the model."""
    lora: LoraConfig | None = None
    """Train a low-rank update, such as { rank = 32 }, instead of every weight."""
    from_checkpoint: Name | None = None
    """Weights to start from, with a fresh optimizer: a checkpoint's reference, or the id of a run,
    which stands for its last checkpoint."""
    max_length: int | None = Field(default=None, ge=1)
    """Longest input in tokens; the model's own limit if unset."""
    seed: int = Field(default=0, ge=0)
    """Seed of new weights, dropout, the order of the rows, and sampling."""

    def session(self) -> SessionConfig:
        """Return what the training client's session is started with."""
        return SessionConfig(
            self.model,
            revision=self.revision,
            lora=self.lora,
            seed=self.seed,
            from_checkpoint=self.from_checkpoint,
            max_length=self.max_length,
        )


class OptimizerConfig(WorkflowConfig):
    """How many steps to take, and how large."""

    epochs: float = Field(default=1.0, gt=0, allow_inf_nan=False)
    """Passes over the training rows."""
    max_steps: int | None = Field(default=None, ge=1)
    """Number of optimizer steps; overrides `epochs`."""
    batch_size: int = Field(default=32, ge=1)
    """Rows in an optimizer step."""
    learning_rate: float = Field(default=1e-4, ge=0, allow_inf_nan=False)
    """Peak learning rate."""
    lr_schedule: ScheduleName = "linear"
    """Shape of its decay."""
    warmup_ratio: float = Field(default=0.0, ge=0, lt=1)
    """Fraction of the steps spent warming up."""
    min_lr_ratio: float = Field(default=0.0, ge=0, le=1)
    """Final learning rate, relative to the peak."""
    adam: AdamParams = AdamParams()
    """AdamW: beta1, beta2, eps, weight_decay, grad_clip_norm."""

    def learning_rate_at(self, step: int, total: int) -> float:
        """Return the learning rate of a step, counted from 0, of a run of `total` steps."""
        warmup = share(self.warmup_ratio, total)
        return self.learning_rate * lr_factor(
            self.lr_schedule, step, total, warmup=warmup, min_ratio=self.min_lr_ratio
        )


class RunConfig(WorkflowConfig):
    """When to evaluate and save, and what to do about failures."""

    may_change = frozenset(
        {"save_every", "keep_checkpoints", "max_restarts", "submit_ahead", "render_cache"}
    )

    may_extend = frozenset({"epochs", "max_steps", "early_stopping_patience"})

    run_id: RunId | None = None
    """Id of the run; the id of an interrupted run resumes it, that of a finished one with more
    `epochs` or `max_steps` continues it. A new id is made if unset."""
    eval_every: int = Field(default=0, ge=0)
    """Steps between evaluations; 0 evaluates at the end only."""
    eval_on_start: bool = False
    """Whether to evaluate before the first step, too; no checkpoint is chosen by it."""
    best_metric: Name | None = None
    """Metric of an evaluation, such as `test/nll`, by which the best checkpoint is chosen. That is
    kept, and the weights of the run are its weights. Set `best_mode`, too."""
    best_mode: BestMode | None = None
    """Whether the lowest or the highest value of `best_metric` is the best."""
    early_stopping_patience: int | None = Field(default=None, ge=1)
    """Evaluations in a row without a better `best_metric` after which the run ends; never if
    unset."""
    save_every: int = Field(default=0, ge=0)
    """Steps between checkpoints; 0 saves at the end only."""
    keep_checkpoints: int = Field(default=1, ge=1)
    """How many checkpoints to keep."""
    max_restarts: int = Field(default=0, ge=0)
    """How often to restore a failed session from the last checkpoint, or to start it again; what
    fails then counts."""
    submit_ahead: int = Field(default=1, ge=0)
    """Steps to submit before the oldest one is awaited, so that the backend is never idle."""

    @model_validator(mode="after")
    def _best_by_a_metric(self) -> Self:
        if (self.best_metric is None) != (self.best_mode is None):
            raise ValueError(
                'best_metric and best_mode go together, such as best_metric = "test/nll" and '
                'best_mode = "min"'
            )
        if self.early_stopping_patience is not None:
            if self.best_metric is None:
                raise ValueError("early_stopping_patience needs best_metric and best_mode")
            if not self.eval_every:
                raise ValueError("early_stopping_patience needs eval_every")
        return self


class TrainingConfig(ModelConfig, OptimizerConfig, RunConfig):
    """The settings of every workflow that trains a model."""

    foreign_names: ClassVar[Mapping[str, str]] = NAMES

    def required_ports(self) -> tuple[str, ...]:
        return ("training_client", "blob_store", "metrics_store", *super().required_ports())


class TemplateConfig(WorkflowConfig):
    """What the chat template is given besides messages."""

    chat_template_kwargs: dict[str, Keyword] = Field(default_factory=dict)
    """Further arguments of the chat template, such as `{ enable_thinking = false }`; the field
    `chat_template_kwargs` of a row overrides them."""
    template_date: datetime.date | None = None
    """Date given to a chat template that writes the current one; the day on which the run was
    first started if unset."""


class RowsConfig(ModelConfig, TemplateConfig):
    """Which rows to train and to evaluate on, and how to read them for a model."""

    dataset: Name = Field(examples=["train.jsonl"])
    """Data set to train on: a file, folder or hub id that the dataset store knows."""
    dataset_name: Name | None = None
    """Configuration within the data set, where it has several."""
    dataset_revision: Name | None = None
    """Branch, tag or commit of the data set."""
    split: Name | None = "train"
    """Split to train on, or a part of it: ``train[:90%]``, ``train[1000:]``, ``train+extra``."""
    test_dataset: Name | None = None
    """Data set to evaluate on; `dataset` if unset and `test_split` is given."""
    test_split: Name | None = None
    """Split to evaluate on; a `test_dataset` without it must have a single split."""
    test_size: int | float | None = Field(default=None, gt=0, allow_inf_nan=False)
    """Number of rows to evaluate on; below 1, the fraction of them. The first rows of
    `test_dataset` or `test_split`; without either, random rows taken out of the training rows."""

    prompt: Template | None = None
    """Template of the prompt, over the fields of a row, such as `{question}\\n`."""
    completion: Template | None = None
    """Template of the completion, which ends with the end-of-sequence token."""
    messages_field: Name | None = None
    """Field that holds a conversation."""
    text_field: Name | None = None
    """Field that holds plain text. Where none of these four is given, the shape of a row is
    recognised by the names of its fields."""
    train_on: TrainOn = "all_assistant_messages"
    """Which tokens count; a completion counts as an assistant message, plain text counts whole."""
    too_long: TooLong = "error"
    """What to do with rows longer than `max_length`."""
    eval_batch_size: int = Field(default=256, ge=1)
    """Rows in a call while evaluating."""

    check_rows: Literal["all", "first"] | Annotated[int, Field(ge=1)] = "all"
    """Training rows that are rendered and checked before the first step. The others are rendered
    ahead of the step that needs them, and a bad one ends the run there. Of a stream, "first" if
    unset."""
    render_cache: bool = True
    """Whether rendered rows are kept in a folder of the user, so that the next start is instant."""
    streaming: bool = False
    """Read the training rows as a stream, without loading the data set; needs `max_steps`."""
    shuffle_buffer: int | None = Field(default=None, ge=1)
    """Rows of a stream that are held and shuffled at a time, 1 for none; the dataset store's choice
    if unset."""

    @property
    def rows_to_check(self) -> Literal["all", "first"] | int:
        """The training rows to check before the first step; of a stream that is never all."""
        return "first" if self.streaming and self.check_rows == "all" else self.check_rows

    @property
    def evaluates(self) -> bool:
        """Whether there are rows to evaluate on."""
        return self.holds_out or self.test_dataset is not None or self.test_split is not None

    @property
    def holds_out(self) -> bool:
        """Whether the rows to evaluate on are taken out of the training rows."""
        given = self.test_dataset is not None or self.test_split is not None
        return self.test_size is not None and not given

    def required_ports(self) -> tuple[str, ...]:
        return (*super().required_ports(), "dataset_store")

    @model_validator(mode="after")
    def _size_is_a_number_or_a_fraction(self) -> Self:
        if self.test_size is not None and self.test_size >= 1 and self.test_size % 1:
            raise ValueError("test_size is a whole number of rows, or a fraction below 1")
        return self

    @model_validator(mode="after")
    def _a_stream_has_no_known_end(self) -> Self:
        if not self.streaming:
            if self.shuffle_buffer is not None:
                raise ValueError("shuffle_buffer is of a stream; set streaming = true")
            return self
        if self.check_rows == "all" and "check_rows" in self.model_fields_set:
            raise ValueError(
                'a stream cannot be checked whole; set check_rows = "first" or a number'
            )
        if self.holds_out:
            raise ValueError(
                "test_size takes random rows out of the training rows, which a stream does not "
                "allow; set test_split or test_dataset"
            )
        if getattr(self, "max_steps", 1) is None:
            raise ValueError(
                "streaming needs max_steps: where a stream ends is not known beforehand"
            )
        return self

    @model_validator(mode="after")
    def _one_shape_of_rows(self) -> Self:
        templates = self.prompt is not None or self.completion is not None
        given = [
            name
            for name, there in (
                ("prompt and completion", templates),
                ("messages_field", self.messages_field is not None),
                ("text_field", self.text_field is not None),
            )
            if there
        ]
        if len(given) > 1:
            raise ValueError(f"{' and '.join(given)} say different things of one row; give one")
        return self
