"""The evaluations of a run: measured, recorded, shown, and compared with the best one so far."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from typing import Any, TypeAlias

from ..errors import ConfigurationError
from ..events import kinds
from ..kitchen import Kitchen
from .algorithm import Algorithm, Evaluation
from .config import RunConfig
from .runs import Run
from .standing import Standing

Record: TypeAlias = Callable[[dict[str, float], int], None]
"""Records metrics of a step."""


class Evaluator:
    """Evaluates a run, at most once after each step.

    Attributes:
        standing: what the evaluations have shown so far.
    """

    def __init__(
        self, kitchen: Kitchen, run: Run[Any], algorithm: Algorithm[Any], record: Record
    ) -> None:
        self._kitchen, self._run, self._algorithm = kitchen, run, algorithm
        self._record = record
        self._config: RunConfig = run.config
        self.restore()
        if not algorithm.evaluates:
            _check_nothing_is_asked_for(self._config)

    def restore(self) -> None:
        """Take over the standing that was saved, which knows the best one's checkpoint."""
        self.standing: Standing = self._run.record.state.standing

    def saved(self, step: int, checkpoint: str) -> None:
        """Note the checkpoint of a step, which may be that of the best evaluation."""
        self.standing = self.standing.saved(step, checkpoint)

    def evaluate(self, session: Any, step: int, total: int) -> None:
        """Measure the weights after `step` steps, and record it; do nothing if that is done, or
        there is nothing to evaluate on.
        """
        if not self._algorithm.evaluates or self.standing.step == step:
            return
        event = kinds.TrainingEval(step=step, total=total, run_id=self._run.id)
        with self._kitchen.observers.start(event) as span:
            found = self._algorithm.evaluate(session)
            evaluation = found if isinstance(found, Evaluation) else Evaluation(found)
            metrics = dict(evaluation.metrics)
            self._keep_samples(step, evaluation)
            self._record(metrics, step)
            span.set(metrics=metrics)
        # Not before: an evaluation that is interrupted is due again.
        if self._config.best_metric is None or self._config.best_mode is None:
            self.standing = self.standing.at(step)
        else:
            by = (self._config.best_metric, self._config.best_mode)
            self.standing = self.standing.after(metrics, *by, step)
        if self.is_over() and self.standing.best is not None:
            self._kitchen.observers.emit(
                kinds.TrainingEarlyStop(
                    step=step,
                    run_id=self._run.id,
                    metric=self._config.best_metric or "",
                    best_step=self.standing.best.step,
                    best_value=self.standing.best.value,
                )
            )

    def _keep_samples(self, step: int, evaluation: Evaluation) -> None:
        samples = [asdict(sample) for sample in evaluation.samples]
        if samples:
            self._run.keep_samples(step, samples)
            event = kinds.TrainingSamples(step=step, run_id=self._run.id, samples=samples)
            self._kitchen.observers.emit(event)

    def is_best(self, step: int) -> bool:
        """Say whether the weights after `step` steps are the best so far."""
        return self.standing.best is not None and self.standing.best.step == step

    def is_over(self) -> bool:
        """Say whether the best evaluation is so long ago that the run ends."""
        patience = self._config.early_stopping_patience
        return patience is not None and self.standing.waited >= patience


def _check_nothing_is_asked_for(config: RunConfig) -> None:
    for name in ("eval_every", "eval_on_start", "best_metric"):
        if value := getattr(config, name):
            raise ConfigurationError(
                f"workflow.{name}: it is {value!r}, but there is nothing to evaluate on. Name it, "
                f"such as by test_split or test_size, or leave out {name}"
            )
