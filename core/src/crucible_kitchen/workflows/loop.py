"""The training loop: steps in flight, pauses, restarts. What a step computes is the algorithm's."""

from __future__ import annotations

import contextlib
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Generic, TypeVar

from ..errors import AdapterError, CrucibleError, InvalidInput, NotFound, SessionFailed
from ..events import Span, TypedEvent, kinds
from ..kitchen import Kitchen
from ..types import Future, OptimStepResult
from .algorithm import Algorithm, Measure, Prepared, TrainingResult
from .batches import in_batches
from .checkpoints import Checkpoints
from .checks import check_places, count_steps, starting_note
from .config import TrainingConfig
from .evaluator import Evaluator
from .restarts import Restarts
from .runs import Run, reported

T = TypeVar("T")
ConfigT = TypeVar("ConfigT", bound=TrainingConfig)


def train(
    kitchen: Kitchen,
    workflow: str,
    config: ConfigT,
    algorithm: Callable[[Kitchen, ConfigT], Algorithm[Any]],
) -> TrainingResult:
    """Run an algorithm from its last checkpoint to the end.

    A run killed at any instant and started again under its `run_id` ends with the same weights,
    bit for bit where the backend is deterministic, and the same rows of metrics.

    Metrics, one row a step, besides those of the algorithm: `learning_rate`, `grad_norm`,
    `progress` (fraction of the run, 0 to 1), `time/step` (seconds), `tokens_per_second`.

    Args:
        kitchen: its adapters.
        workflow: the workflow's name, for records and events.
        config: the settings.
        algorithm: makes the algorithm from the kitchen and the settings; the class itself, say. In
            these settings, what was left open is as it was when the run first started.

    Raises:
        ConfigurationError: the settings do not fit the adapters, or the run that is continued.
        InvalidInput: the items cannot be trained on.
        AdapterError: a call failed, and restarts are used up.
    """
    with Run.open(kitchen, workflow, config, config.run_id) as run:
        with reported(kitchen, workflow, run):
            if not run.done:
                _Loop(kitchen, workflow, run, algorithm(kitchen, run.config)).complete()
        record, best = run.record, run.record.state.standing.best
        at = None if best is None else best.step
        return TrainingResult(run.id, run.step, run.metrics, run.checkpoint, record.weights, at)


@dataclass(slots=True)
class _Step:
    """A step that was submitted and not yet awaited: one update, or several."""

    number: int
    learning_rate: float
    updates: list[tuple[Measure, Future[OptimStepResult]]]
    span: Span


class _Loop(Generic[T]):
    def __init__(
        self, kitchen: Kitchen, workflow: str, run: Run[Any], algorithm: Algorithm[T]
    ) -> None:
        self._kitchen, self._client, self._workflow = kitchen, kitchen.training_client, workflow
        self._run, self._algorithm = run, algorithm
        self._config: TrainingConfig = run.config
        self._metrics: dict[str, float] = {}
        self._evaluator = Evaluator(kitchen, run, algorithm, self._record)
        self._restarts = Restarts(kitchen, workflow, run)
        self._last = 0.0  # when the step before was done, by `time.perf_counter`
        self._in_flight: deque[_Step] = deque()
        self._checkpoints = Checkpoints(run, self._evaluator)
        self._submitted: int | None = None
        """How many steps the session has received; None while that is not known."""

    def complete(self) -> None:
        """Train from the last checkpoint to the end."""
        self._session = self._restarts.again(self._start_session)
        try:
            self._prepare()
            while True:
                try:
                    self._finish(self._take_steps())
                    break
                except AdapterError as error:
                    self._restart(error)
        except KeyboardInterrupt:
            self._save_interrupted()
            raise
        except Exception:
            with contextlib.suppress(CrucibleError):
                self._checkpoints.settle()
            raise
        finally:
            self._abandon(sys.exception())
            with contextlib.suppress(AdapterError):
                self._client.close_session(self._session)

    def _start_session(self) -> Any:
        try:
            return self._client.start_session(self._config.session())
        except NotFound as error:
            if (start := self._config.from_checkpoint) is not None:
                error.add_note(starting_note(self._kitchen, start, self._run.resumed))
            raise

    def _prepare(self) -> None:
        """Do whatever can fail before the first step, and commit the record."""
        config, run = self._config, self._run
        prepared = self._algorithm.prepare(self._session)
        if not isinstance(prepared, Prepared):
            prepared = Prepared(prepared)
        items = prepared.items
        if isinstance(items, Sequence) and not len(items):
            raise InvalidInput("there is nothing to train on: the algorithm prepared no items")
        self._batches = in_batches(items, config.batch_size, config.seed)
        self._total = count_steps(config, self._batches, run)
        start = partial(run.start, self._session, prepared.depends_on, **prepared.facts)
        if run.checkpoint is not None:  # before the record says that the run goes on
            load = partial(self._client.load_checkpoint, self._session, run.checkpoint)
            self._restarts.again(load)
            self._metrics = run.metrics
        if run.resumed:  # frees first what killed processes left of it
            start()
        check_places(self._kitchen, self._session, config, self._total)
        prepared.trial()
        if not run.resumed:  # last, so that a start that fails leaves no record
            start()

    # --- steps ---

    def _take_steps(self) -> int:
        """Take the steps from the last checkpoint on; return after how many the run ends."""
        start = self._submitted = self._run.step
        if start == 0 and self._config.eval_on_start:
            self._evaluate(0)
        self._pause(start)  # a run that was interrupted may have something due
        if self._evaluator.is_over():
            return start
        for step, items in self._items(start):
            self._in_flight.append(self._submit(step, items))
            self._submitted = step + 1
            pause = self._pauses_after(step + 1)
            while self._in_flight and (pause or len(self._in_flight) > self._config.submit_ahead):
                self._await()
            self._checkpoints.settle(wait=False)
            if pause:
                self._pause(step + 1)
                if self._evaluator.is_over():
                    return step + 1
        while self._in_flight:
            self._await()
        return self._total

    def _items(self, start: int) -> Iterator[tuple[int, Sequence[T]]]:
        """Yield each step from `start` with its items, and report where an epoch begins."""
        current = None
        with contextlib.closing(self._batches.between(start, self._total)) as batches:
            while True:
                try:
                    epoch, step, items = next(batches)
                except StopIteration:
                    return
                except AdapterError:  # a bad row, or a dataset store that is away: not the session
                    self._save_submitted()
                    raise
                if epoch != current:
                    current = epoch
                    self._emit(kinds.TrainingEpoch(epoch=epoch, run_id=self._run.id))
                yield step, items

    def _submit(self, step: int, items: Sequence[T]) -> _Step:
        rate = self._config.learning_rate_at(step, self._total)
        event = kinds.TrainingStep(step=step + 1, total=self._total, run_id=self._run.id)
        span = self._kitchen.observers.start(event)
        with span.current():
            # Interrupted in here, the session still has the weights of the step before: it is
            # saved, or, with a gradient pending, refuses to be.
            updates = []
            for measure in self._gradients(step, items):
                self._submitted = None  # while it is not known whether the session took the step
                update = self._client.optim_step(self._session, rate, self._config.adam)
                updates.append((measure, update))
            if not updates:
                raise InvalidInput(f"the algorithm submitted no gradient in step {step + 1}")
        return _Step(step + 1, rate, updates, span)

    def _gradients(self, step: int, items: Sequence[T]) -> Iterator[Measure]:
        """Have the gradient of each update submitted; yield what measures it."""
        try:
            submitted = self._algorithm.submit(self._session, items, step)
            yield from submitted if isinstance(submitted, Iterator) else (submitted,)
        except CrucibleError as error:
            # Of an environment or a sampler that is away, say: the session has its weights.
            if getattr(error, "port", None) != self._client.name:
                self._save_submitted()
            raise

    def _await(self) -> None:
        """Await the oldest step. It stays in flight until its metrics are recorded."""
        step = self._in_flight[0]
        with step.span.current():
            metrics: dict[str, float] = {}
            for measure, update in step.updates:
                metrics |= measure()
                norm = self._client.await_(update).grad_norm
                metrics |= {} if norm is None else {"grad_norm": norm}
            now = time.perf_counter()
            seconds, self._last = now - self._last, now
            metrics |= {
                "learning_rate": step.learning_rate,
                "progress": step.number / self._total,
                "time/step": seconds,
            }
            if "num_tokens" in metrics:
                metrics["tokens_per_second"] = metrics["num_tokens"] / max(seconds, 1e-9)
            self._record(metrics, step.number)
        self._in_flight.popleft()
        step.span.end(metrics=metrics)

    def _restart(self, error: AdapterError) -> None:
        """Restore a failed session from the last checkpoint, or raise. What fails meanwhile is one
        more failure.
        """
        self._submitted = None
        with contextlib.suppress(AdapterError):
            self._checkpoints.settle()
        self._evaluator.restore()
        self._abandon(error)
        # A call without effect that is not worth repeating is wrong in itself.
        if error.no_effect and not (error.retryable or isinstance(error, SessionFailed)):
            raise error
        self._restarts.count(error)
        try:
            self._restore()
        except AdapterError as another:
            self._restart(another)

    def _restore(self) -> None:
        if self._run.checkpoint is not None:
            self._client.load_checkpoint(self._session, self._run.checkpoint)
            return
        self._client.close_session(self._session)
        self._session = self._start_session()

    def _abandon(self, error: BaseException | None) -> None:
        """End the spans of steps that were submitted and will never be awaited."""
        while self._in_flight:
            self._in_flight.popleft().span.end(error)

    # --- pauses ---

    def _pauses_after(self, step: int) -> bool:
        """Say whether something is due after `step` steps that needs a quiet session."""
        config = self._config
        return self._is_due(config.eval_every, step) or self._is_due(config.save_every, step)

    def _is_due(self, every: int, step: int) -> bool:
        return 0 < step < self._total and every > 0 and step % every == 0

    def _pause(self, step: int) -> None:
        """Do what is due after `step` steps. Nothing is in flight."""
        if self._is_due(self._config.eval_every, step):
            self._evaluate(step)
        if self._is_due(self._config.save_every, step) or self._evaluator.is_best(step):
            self._save(step)
        self._last = time.perf_counter()  # a pause is not part of the next step's time

    def _evaluate(self, step: int) -> None:
        try:
            self._evaluator.evaluate(self._session, step, self._total)
        except CrucibleError:  # the steps are worth more than what is known of them
            with contextlib.suppress(CrucibleError):
                self._save(step)
            raise

    def _save(self, step: int) -> None:
        self._checkpoints.save(self._session, step, self._metrics)

    def _save_interrupted(self) -> None:
        """Save after the last step that was submitted, so that an interrupted run loses nothing."""
        step = self._checkpoints.saving if self._submitted is None else self._submitted
        if step is not None and step > self._run.step:
            about = {"workflow": self._workflow, "run_id": self._run.id}
            self._emit(kinds.WorkflowInterrupted(**about, step=step))
            self._save_submitted()

    def _save_submitted(self) -> None:
        """Save after the last step that was submitted; an evaluation that is due is made when the
        run is continued. Not where it is unknown what the session has received, or where saving
        fails.
        """
        with contextlib.suppress(CrucibleError):
            self._checkpoints.settle()
        step = self._submitted
        if step is None or step <= self._run.step:
            return
        with contextlib.suppress(CrucibleError):
            while self._in_flight:
                self._await()
            self._save(step)
            self._checkpoints.settle()

    def _finish(self, step: int) -> None:
        """End the run after `step` steps, with the weights that it stands for."""
        client = self._client
        self._evaluate(step)
        self._save(step)
        self._checkpoints.settle()
        weights, record = None, self._run.record
        if record.chosen is not None and record.chosen != self._run.checkpoint:
            client.load_checkpoint(self._session, record.chosen)
        if client.supports("save_weights_for_sampler"):
            weights = client.save_weights_for_sampler(self._session, self._run.weights_name)
        self._emit(kinds.WorkflowFinishing(workflow=self._workflow, run_id=self._run.id))
        self._run.finish(weights, self._metrics)

    # --- what is reported ---

    def _record(self, metrics: dict[str, float], step: int) -> None:
        self._metrics |= metrics
        self._kitchen.metrics_store.record_many(self._run.id, metrics, step)

    def _emit(self, event: TypedEvent) -> None:
        self._kitchen.observers.emit(event)
