"""Supervised fine-tuning: learn to continue prompts as the data set does."""

from __future__ import annotations

import contextlib
import datetime
import math
import sys
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, ClassVar, Literal

import numpy as np
from pydantic import Field, model_validator

from ..errors import AdapterError, ConfigurationError, CrucibleError, SessionFailed
from ..events import Span
from ..kitchen import Kitchen
from ..texts import Keyword, Name, Template
from ..types import (
    AdamParams,
    ForwardBackwardResult,
    Future,
    LoraConfig,
    OptimStepResult,
    SessionConfig,
    Tokenizer,
)
from .batches import permutation, share
from .config import WorkflowConfig
from .evaluation import exact_match, mean_nll, negative_log_likelihood
from .examples import RowReader
from .foreign import NAMES
from .rendering import Example, Renderer, TrainOn
from .rows import (
    Judge,
    Source,
    TooLong,
    duplicates,
    fingerprint,
    hold_out,
    load,
    marked,
    size_of,
)
from .runs import Run, RunId
from .schedules import ScheduleName, lr_factor
from .splits import NumberedRow

RECORDED = 4000
"""Characters of an example that a run's record keeps."""


class SupervisedConfig(WorkflowConfig):
    """What to train, on which rows, and how."""

    foreign_names: ClassVar[Mapping[str, str]] = NAMES

    model: Name
    """Model to train: a name, hub id or path that the training client knows."""
    revision: Name | None = None
    """Branch, tag or commit of the model."""
    lora: LoraConfig | None = None
    """Train a low-rank update, such as { rank = 32 }, instead of every weight."""

    dataset: Name
    """Data set to train on: a file, folder or hub id that the dataset store knows."""
    dataset_name: Name | None = None
    """Configuration within the data set, where it has several."""
    dataset_revision: Name | None = None
    """Branch, tag or commit of the data set."""
    split: Name | None = "train"
    """Split to train on, or a part of it: ``train[:90%]``, ``train[1000:]``, ``train+extra``."""
    test_dataset: Name | None = None
    """Data set to evaluate on; left out, it is `dataset` if a `test_split` is given."""
    test_split: Name | None = None
    """Split to evaluate on; a `test_dataset` without it gives its only split."""
    test_size: int | float | None = Field(default=None, gt=0, allow_inf_nan=False)
    """How many rows to evaluate on; below 1, which share of them. With `test_dataset` or
    `test_split` the first ones; else they are taken at random out of the training rows."""

    prompt: Template | None = None
    """Template of the prompt, over the fields of a row, such as `{question}\\n`."""
    completion: Template | None = None
    """Template of the completion, which ends with the end-of-sequence token."""
    messages_field: Name | None = None
    """Field that holds a conversation."""
    text_field: Name | None = None
    """Field that holds plain text. Where none of these four is given, the shape of a row is known
    by the names of its fields."""
    chat_template_kwargs: dict[str, Keyword] = Field(default_factory=dict)
    """What else the chat template is given, such as `{ enable_thinking = false }`; the field
    `chat_template_kwargs` of a row goes above."""
    train_on: TrainOn = "all_assistant_messages"
    """Which tokens count; a completion counts as an assistant message, plain text counts whole."""
    max_length: int | None = Field(default=None, ge=1)
    """Longest input in tokens; left out, it is the model's own limit."""
    too_long: TooLong = "error"
    """What to do with longer rows."""

    epochs: float = Field(default=1.0, gt=0, allow_inf_nan=False)
    """Passes over the training rows."""
    max_steps: int | None = Field(default=None, ge=1)
    """Number of optimizer steps; goes before `epochs`."""
    batch_size: int = Field(default=32, ge=1)
    """Rows in an optimizer step."""
    learning_rate: float = Field(default=1e-4, ge=0, allow_inf_nan=False)
    """Peak learning rate."""
    lr_schedule: ScheduleName = "linear"
    """Shape of its decay."""
    warmup_ratio: float = Field(default=0.0, ge=0, lt=1)
    """Share of the steps over which it rises first."""
    min_lr_ratio: float = Field(default=0.0, ge=0, le=1)
    """Where it ends, relative to the peak."""
    adam: AdamParams = AdamParams()
    """AdamW: beta1, beta2, eps, weight_decay, grad_clip_norm."""
    loss_reduction: Literal["token_mean", "sequence_mean", "sum"] = "token_mean"
    """What a step's loss is: a mean over the batch's tokens, over its rows, or a sum."""
    seed: int = Field(default=0, ge=0)
    """Of the new weights, the order of the rows, and dropout."""

    eval_every: int = Field(default=0, ge=0)
    """Evaluate after every so many steps, and at the end; 0 is at the end only."""
    eval_batch_size: int = Field(default=256, ge=1)
    """Rows in a call while evaluating."""
    exact_match: bool = False
    """Whether to complete the held-out prompts, and count how many answers are exactly right."""
    ignore_thinking: bool = True
    """Whether think blocks, `<think>...</think>`, are left out of that comparison."""
    max_tokens: int | None = Field(default=None, ge=1)
    """Longest completion while evaluating; left out, that of the longest answer."""

    run_id: RunId | None = None
    """Id of the run; that of an interrupted run continues it. Left out, a new one is made."""
    save_every: int = Field(default=0, ge=0)
    """Save a checkpoint after every so many steps, and at the end; 0 is at the end only."""
    keep_checkpoints: int = Field(default=1, ge=1)
    """How many checkpoints to keep."""
    max_restarts: int = Field(default=0, ge=0)
    """How often a session that fails is set back to the last checkpoint and goes on."""
    submit_ahead: int = Field(default=1, ge=0)
    """Steps to submit before the oldest one is awaited, so that a backend is never idle."""

    @property
    def evaluates(self) -> bool:
        """Whether there is anything to evaluate on."""
        return self.holds_out or self.test_dataset is not None or self.test_split is not None

    @property
    def holds_out(self) -> bool:
        """Whether the rows to evaluate on are taken out of the training rows."""
        given = self.test_dataset is not None or self.test_split is not None
        return self.test_size is not None and not given

    @model_validator(mode="after")
    def _exact_match_needs_rows(self) -> SupervisedConfig:
        if self.exact_match and not self.evaluates:
            raise ValueError("exact_match needs test_dataset, test_split or test_size")
        return self

    @model_validator(mode="after")
    def _size_is_a_number_or_a_share(self) -> SupervisedConfig:
        if self.test_size is not None and self.test_size >= 1 and self.test_size % 1:
            raise ValueError("test_size is a whole number of rows, or a share below 1")
        return self

    @model_validator(mode="after")
    def _one_shape_of_rows(self) -> SupervisedConfig:
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

    def required_ports(self) -> tuple[str, ...]:
        ports = ("training_client", "dataset_store", "blob_store", "metrics_store")
        return (*ports, "completer") if self.exact_match else ports


@dataclass(frozen=True, slots=True)
class SupervisedResult:
    """How a run ended.

    Args:
        run_id: its id.
        steps: how many optimizer steps it took.
        metrics: the last value of every metric.
        checkpoint: the reference of the last checkpoint.
        weights: a model reference of the final weights, where the training client offers one.
    """

    run_id: str
    steps: int
    metrics: Mapping[str, float]
    checkpoint: str | None
    weights: str | None


def supervised(kitchen: Kitchen, config: SupervisedConfig) -> SupervisedResult:
    """Fine-tune a model on prompts with completions, conversations, or plain text.

    Metrics, one row a step: `train_mean_nll` (nats per trained token), `num_tokens` (trained),
    `learning_rate`, `grad_norm`, `progress` (share of the run, 0 to 1), `time/step` (seconds),
    `tokens_per_second`; at evaluations `test/nll` (nats per trained token) and
    `test/exact_match` (a share).

    A run killed at any instant and started again under its `run_id` ends with the same weights,
    bit for bit where the backend is deterministic, and the same rows of metrics.

    Raises:
        ConfigurationError: the kitchen's adapters cannot do what the configuration asks for.
        InvalidInput: a row that cannot be rendered.
        AdapterError: a call failed, and restarts are used up.
    """
    _check_capabilities(kitchen, config)
    emit = kitchen.observers.emit
    with Run(kitchen, "supervised", config, config.run_id) as run:
        about = {"resumed_at": run.step, "done": run.done}
        emit("workflow.start", workflow="supervised", run_id=run.id, **about)
        try:
            if not run.done:
                _Training(kitchen, config, run).complete()
        except BaseException as error:
            with contextlib.suppress(CrucibleError):  # never hide the first failure behind another
                run.fail(error)
            emit(
                "workflow.exception",
                workflow="supervised",
                run_id=run.id,
                step=run.step,
                error=type(error).__name__,
            )
            raise
        emit("workflow.stop", workflow="supervised", run_id=run.id)
        return SupervisedResult(
            run.id, run.step, run.metrics, run.checkpoint, run.record.get("weights")
        )


def _check_capabilities(kitchen: Kitchen, config: SupervisedConfig) -> None:
    client = kitchen.training_client
    if config.evaluates and not client.supports("forward"):
        raise ConfigurationError(
            f"workflow.test_dataset: the training client {client.adapter!r} has no forward, "
            "so nothing can be evaluated; leave out test_dataset and test_split"
        )
    if config.exact_match and not client.supports("save_weights_for_sampler"):
        raise ConfigurationError(
            f"workflow.exact_match: the training client {client.adapter!r} has no "
            "save_weights_for_sampler, so the completer cannot use the weights"
        )


@dataclass(slots=True)
class _Step:
    """A step that was submitted and not yet awaited."""

    index: int
    batch: Sequence[Example]
    learning_rate: float
    loss: Future[ForwardBackwardResult]
    update: Future[OptimStepResult]
    span: Span


@dataclass(slots=True)
class _Training:
    kitchen: Kitchen
    config: SupervisedConfig
    run: Run
    session: Any = None
    train: list[Example] = field(default_factory=list)
    test: list[Example] = field(default_factory=list)
    total: int = 0
    restarts: int = 0
    figures: dict[str, float] = field(default_factory=dict)
    last: float = 0.0
    flying: deque[_Step] = field(default_factory=deque)
    """Steps that were submitted, and whose outcome is not recorded yet."""
    submitted: int | None = None
    """How many steps the session has got; None while that is not known."""

    def complete(self) -> None:
        """Train from the last checkpoint to the end."""
        client = self.kitchen.training_client
        self.session = client.start_session(_session_config(self.config))
        try:
            self._start()
            if self.run.checkpoint is not None:
                client.load_checkpoint(self.session, self.run.checkpoint)
                self.figures = self.run.metrics
            while True:
                try:
                    self._steps(self.run.step)
                    self._finish()
                    break
                except AdapterError as error:
                    self._restart(error)
        except KeyboardInterrupt:
            self._save_what_there_is()
            raise
        finally:
            self._abandon(sys.exception())
            with contextlib.suppress(AdapterError):
                client.close_session(self.session)

    # --- before the first step ---

    def _start(self) -> None:
        """Do whatever can fail before the first step, and commit the record."""
        facts, rendered = self._load_rows()
        if self.run.step > self.total:
            raise ConfigurationError(
                f"the record of the run {self.run.id!r} is damaged: it is at step {self.run.step} "
                f"of {self.total}. Restore it, or choose another workflow.run_id"
            )
        self.run.start(self.session, rendered, **facts)
        _try_places(self.kitchen, self.session, self.config, self.total)
        if self.config.exact_match:
            self._try_completer()

    def _load_rows(self) -> tuple[dict[str, Any], dict[str, Mapping[str, Any]]]:
        """Render the rows; return what the record says of them, and what they are known by."""
        config = self.config
        tokenizer = self.kitchen.training_client.helper("get_tokenizer")(self.session)
        judge = _judge(config, tokenizer, self.run.day)
        train, test = _rows(self.kitchen, config)
        self.train = self._examples("train", judge, train, config.dataset, config.split)
        about = {"train": asdict(judge.counts)}
        rendered: dict[str, Mapping[str, Any]] = {"train": fingerprint(self.train)}
        if config.evaluates:
            dataset = config.test_dataset or config.dataset
            split = config.split if config.holds_out else config.test_split
            self.test = self._examples("test", judge, test, dataset, split)
            about["test"] = asdict(judge.counts)
            rendered["test"] = fingerprint(self.test)
        per_epoch = math.ceil(len(self.train) / config.batch_size)
        self.total = config.max_steps or share(config.epochs, per_epoch)
        writes_date = judge.renderer.template.writes_date
        facts: dict[str, Any] = {
            "rows": about,
            "examples": [marked(one, tokenizer)[:RECORDED] for one in self.train[:3]],
            "template_date": self.run.day.isoformat() if writes_date else None,
        }
        return facts, rendered

    def _examples(
        self, purpose: str, judge: Judge, rows: list[NumberedRow], dataset: str, split: str | None
    ) -> list[Example]:
        what = f"{dataset} [{split}]" if split else dataset
        named = {"purpose": purpose, "dataset": dataset, "split": split}
        with self.kitchen.observers.start("dataset.render", **named) as span:
            examples = judge.examples(rows, what)
            if purpose == "test":
                judge.counts.also_in_train = duplicates(self.train, examples)
            span.set(**asdict(judge.counts))
        return examples

    def _try_completer(self) -> None:
        """Complete one prompt, so that a completer which cannot does not show after training."""
        answered = [example for example in self.test if example.prompt_length is not None]
        self._exact_match(answered[:1], max_tokens=1)

    def _exact_match(self, examples: Sequence[Example], max_tokens: int | None) -> float:
        return exact_match(
            self.kitchen.completer,
            self._published(),
            examples,
            self.kitchen.training_client.helper("get_tokenizer")(self.session),
            max_tokens=max_tokens,
            batch_size=self.config.eval_batch_size,
            ignore_thinking=self.config.ignore_thinking,
        )

    def _published(self) -> str:
        return self.kitchen.training_client.save_weights_for_sampler(self.session)

    def _batches(self, start: int) -> Iterator[tuple[int, list[Example]]]:
        """Yield every step from `start` with its batch: a function of (seed, step) alone."""
        size = self.config.batch_size
        per_epoch = math.ceil(len(self.train) / size)
        epoch, order = -1, np.empty(0, np.int64)
        for step in range(start, self.total):
            if step // per_epoch != epoch:
                epoch = step // per_epoch
                order = permutation(len(self.train), self.config.seed, epoch)
                self.kitchen.observers.emit("training.epoch", run_id=self.run.id, epoch=epoch)
            at = step % per_epoch * size
            yield step, [self.train[index] for index in order[at : at + size]]

    # --- steps ---

    def _steps(self, start: int) -> None:
        """Take every step from `start`, at most `submit_ahead` in flight beside the awaited."""
        self.last = time.perf_counter()
        self.submitted = start
        for index, batch in self._batches(start):
            self.flying.append(self._submit(index, batch))
            self.submitted = index + 1
            pause = self._pauses_after(index + 1)
            while self.flying and (pause or len(self.flying) > self.config.submit_ahead):
                self._await()
            if pause:
                self._pause(index + 1)
        while self.flying:
            self._await()

    def _save_what_there_is(self) -> None:
        """Save after the last step that was submitted, so that an interrupted run loses nothing.

        Not where nobody knows what the session has got, or where it cannot be done.
        """
        step = self.submitted
        if step is None or step <= self.run.step:
            return
        self.kitchen.observers.emit(
            "workflow.interrupted", workflow="supervised", run_id=self.run.id, step=step
        )
        with contextlib.suppress(CrucibleError):
            while self.flying:
                self._await()
            self._pause(step)  # what is due after it would not be done when the run goes on
            if self.run.step < step:
                self._save(step)

    def _submit(self, index: int, batch: list[Example]) -> _Step:
        config, client = self.config, self.kitchen.training_client
        scale = {
            "token_mean": 1.0 / sum(example.weight for example in batch),
            "sequence_mean": 1.0 / len(batch),
            "sum": 1.0,
        }[config.loss_reduction]
        learning_rate = config.learning_rate * lr_factor(
            config.lr_schedule,
            index,
            self.total,
            warmup=share(config.warmup_ratio, self.total),
            min_ratio=config.min_lr_ratio,
        )
        per_row = config.loss_reduction == "sequence_mean"
        datums = [e.datum(scale / e.weight if per_row else scale) for e in batch]
        span = self._span("training.step", index + 1)
        self.submitted = None  # while it is not known what the session has got
        with span.current():
            loss = client.forward_backward(self.session, datums)
            update = client.optim_step(self.session, learning_rate, config.adam)
        return _Step(index, batch, learning_rate, loss, update, span)

    def _await(self) -> None:
        """Await the oldest step. It stays where it is until its metrics are recorded."""
        step = self.flying[0]
        with step.span.current():
            metrics = self._outcome(step)
            self._record(metrics, step.index + 1)
        self.flying.popleft()
        step.span.end(metrics=metrics)

    def _outcome(self, step: _Step) -> dict[str, float]:
        client = self.kitchen.training_client
        # From the logprobs, not from `loss`: that one is in units of `loss_reduction`.
        nll = negative_log_likelihood(client, client.await_(step.loss), step.batch)
        update = client.await_(step.update)
        now = time.perf_counter()
        seconds, self.last = now - self.last, now
        tokens = sum(example.weight for example in step.batch)
        metrics = {
            "train_mean_nll": nll / tokens,
            "num_tokens": tokens,
            "learning_rate": step.learning_rate,
            "progress": (step.index + 1) / self.total,
            "time/step": seconds,
            "tokens_per_second": tokens / max(seconds, 1e-9),
        }
        if update.grad_norm is not None:
            metrics["grad_norm"] = update.grad_norm
        return metrics

    def _record(self, metrics: dict[str, float], step: int) -> None:
        self.figures |= metrics
        self.kitchen.metrics_store.record_many(self.run.id, metrics, step)

    def _span(self, event: str, step: int) -> Span:
        return self.kitchen.observers.start(event, run_id=self.run.id, step=step, total=self.total)

    def _restart(self, error: AdapterError) -> None:
        """Set a failed session back to the last checkpoint, or raise."""
        client = self.kitchen.training_client
        self.submitted = None
        self._abandon(error)
        # What had no effect and is not worth a repeat is wrong with the call.
        hopeless = error.no_effect and not (error.retryable or isinstance(error, SessionFailed))
        if hopeless:
            raise error
        if self.restarts >= self.config.max_restarts:
            if self.config.max_restarts:
                error.add_note(f"restarts are used up (workflow.max_restarts={self.restarts})")
            raise error
        self.restarts += 1
        self.kitchen.observers.emit(
            "workflow.restart",
            workflow="supervised",
            run_id=self.run.id,
            step=self.run.step,
            restart=self.restarts,
            callback=error.callback,
            error=type(error).__name__,
        )
        if self.run.checkpoint is not None:
            client.load_checkpoint(self.session, self.run.checkpoint)
            return
        client.close_session(self.session)
        self.session = client.start_session(_session_config(self.config))

    def _abandon(self, error: BaseException | None) -> None:
        """End the steps that were submitted, and will never be awaited."""
        while self.flying:
            self.flying.popleft().span.end(error)

    # --- pauses ---

    def _pauses_after(self, step: int) -> bool:
        """Say whether something happens after `step` steps that needs a quiet session."""
        return self._due(self.config.eval_every, step) or self._due(self.config.save_every, step)

    def _due(self, every: int, step: int) -> bool:
        return step < self.total and every > 0 and step % every == 0

    def _pause(self, step: int) -> None:
        if self._due(self.config.eval_every, step):
            self._evaluate(step)
        if self._due(self.config.save_every, step):
            self._save(step)
        self.last = time.perf_counter()  # a pause is no part of the next step's time

    def _save(self, step: int) -> None:
        self.run.save(self.session, step, self.config.keep_checkpoints, self.figures)

    def _evaluate(self, step: int) -> None:
        if not self.test:
            return
        config, client = self.config, self.kitchen.training_client
        with self._span("training.eval", step) as span:
            nll = mean_nll(client, self.session, self.test, config.eval_batch_size)
            metrics = {"test/nll": nll}
            if config.exact_match:
                metrics["test/exact_match"] = self._exact_match(self.test, config.max_tokens)
            self._record(metrics, step)
            span.set(metrics=metrics)

    def _finish(self) -> None:
        client = self.kitchen.training_client
        self._evaluate(self.total)
        self._save(self.total)
        weights = None
        if client.supports("save_weights_for_sampler"):
            weights = client.save_weights_for_sampler(self.session, self.run.weights_name)
        self.kitchen.observers.emit("workflow.finishing", workflow="supervised", run_id=self.run.id)
        self.run.finish(weights, self.figures)


def _session_config(config: SupervisedConfig) -> SessionConfig:
    return SessionConfig(
        config.model,
        revision=config.revision,
        lora=config.lora,
        seed=config.seed,
        max_length=config.max_length,
    )


def _try_places(
    kitchen: Kitchen, session: Any, config: SupervisedConfig, steps: float = math.inf
) -> None:
    """Try every place that a run writes to, so that nothing is trained that cannot be kept."""
    client = kitchen.training_client
    if client.supports("check_storage"):
        saves = steps / config.save_every if config.save_every else 1
        ahead = min(config.keep_checkpoints + 1, saves)  # the old one goes after the new
        client.check_storage(session, math.ceil(ahead))
    for store in (kitchen.blob_store, kitchen.metrics_store):
        if store.supports("ping"):
            store.ping()


def check(kitchen: Kitchen, config: SupervisedConfig) -> Iterator[tuple[str, str]]:
    """Try what a run needs before its first step; yield what is in order, and how.

    Raises:
        CrucibleError: what is not.
    """
    _check_capabilities(kitchen, config)
    with _session(kitchen, config) as session:
        yield "model", config.model
        tokenizer = kitchen.training_client.helper("get_tokenizer")(session)
        yield "tokenizer", type(tokenizer).__name__
        _try_places(kitchen, session, config)
        yield "storage", "can be written"
        train, test = _rows(kitchen, config)
        judge = _judge(config, tokenizer, None)
        for purpose, rows in (("train", train), ("test", test)):
            if rows or purpose == "train":
                examples = judge.kept(rows[:1], config.dataset)
                length = f"{len(examples[0].tokens)} tokens" if examples else "too long, left out"
                yield f"{purpose} rows", f"{len(rows):,}; {rows[0][0]}: {length}"


@contextlib.contextmanager
def _session(kitchen: Kitchen, config: SupervisedConfig) -> Iterator[Any]:
    """Start a session that nothing is trained in, and close it at the end."""
    client = kitchen.training_client
    session = client.start_session(_session_config(config))
    try:
        yield session
    finally:
        client.close_session(session)


def preview(kitchen: Kitchen, config: SupervisedConfig, count: int) -> Iterator[str]:
    """Yield the text of the first `count` training rows, what is trained on between ⟦ and ⟧."""
    with _session(kitchen, config) as session:
        tokenizer = kitchen.training_client.helper("get_tokenizer")(session)
        train, _ = _rows(kitchen, config)
        judge = _judge(config, tokenizer, None)
        for name, row in train[:count]:
            examples = judge.kept([(name, row)], config.dataset)
            if not examples:
                yield f"{name} is left out, too long"
            for example in examples:
                yield f"{name}, {len(example.tokens)} tokens\n{marked(example, tokenizer)}"


def _judge(config: SupervisedConfig, tokenizer: Tokenizer, date: datetime.date | None) -> Judge:
    reader = RowReader(config.prompt, config.completion, config.messages_field, config.text_field)
    renderer = Renderer(tokenizer, config.train_on, config.chat_template_kwargs, date)
    return Judge(reader, renderer, config.too_long, config.max_length)


def _rows(
    kitchen: Kitchen, config: SupervisedConfig
) -> tuple[list[NumberedRow], list[NumberedRow]]:
    """Return the rows to train on, and those to evaluate on."""
    about = (config.dataset_name, config.dataset_revision)
    train = load(kitchen, Source(config.dataset, config.split, *about))
    if config.holds_out and config.test_size is not None:
        return hold_out(train, config.test_size, config.seed)
    if not config.evaluates:
        return train, []
    dataset = config.test_dataset or config.dataset
    test = load(kitchen, Source(dataset, config.test_split, *about))
    count = None if config.test_size is None else size_of(config.test_size, len(test))
    return train, test[:count]
