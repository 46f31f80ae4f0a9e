"""Evaluation: how good weights are on a data set or in an environment, without training."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal, Self

from pydantic import model_validator

from ..errors import ConfigurationError, NotFound
from ..events import kinds
from ..kitchen import Kitchen
from .algorithm import Metrics, Sample
from .checks import check_stores
from .config import RunId
from .evaluation.tasks import AnswersTask, ProblemsTask, RowsTask, SpokenTask, Task, TaskConfig
from .planning.plan import Plan, Storage
from .runs import Run, reported, samples_path, starting_weights
from .sampling.sampler import check_live_weights
from .sessions import frozen


class EvaluateConfig(TaskConfig):
    """Which weights to evaluate, and on what."""

    run_id: RunId | None = None
    """Id under which the results are kept. A new id is made if unset."""
    model_of: Literal["training_client", "completer"] = "training_client"
    """Whose name `model` is. The training client computes log probabilities, and gives its weights
    to the completer. The completer alone needs no training client and reads conversations only;
    there `model` may also be the id of a run, which stands for its weights."""

    def required_ports(self) -> tuple[str, ...]:
        needed = {
            "training_client": self.model_of == "training_client",
            "dataset_store": self.environment is None,
            "blob_store": True,
            "metrics_store": True,
            "completer": self.exact_match or self.has_problems,
        }
        return tuple(port for port, is_needed in needed.items() if is_needed)

    @model_validator(mode="after")
    def _completer_alone(self) -> Self:
        if self.model_of == "training_client":
            return self
        for name in ("revision", "lora", "from_checkpoint", "max_length", "chat_template_kwargs"):
            if getattr(self, name):
                raise ValueError(
                    f'{name} is of a training client; with model_of = "completer", leave it out'
                )
        if not (self.exact_match or self.has_problems):
            raise ValueError(
                'a completer measures no NLL: with model_of = "completer", set exact_match = true'
            )
        if self.max_tokens is None:
            raise ValueError('model_of = "completer" needs max_tokens: it knows no tokenizer')
        return self


@dataclass(frozen=True, slots=True)
class EvaluationResult:
    """What an evaluation found.

    Args:
        run_id: the id under which it is kept.
        metrics: by name.
        samples: what was completed; empty where only log probabilities were computed.
    """

    run_id: str
    metrics: Metrics
    samples: Sequence[Sample] = field(repr=False)


def evaluate(kitchen: Kitchen, config: EvaluateConfig) -> EvaluationResult:
    """Score a model, a checkpoint or a run, without training it.

    The results are kept as those of a run: metrics in the metrics store at step 0, samples in the
    blob store. Metrics: `test/nll` (nats per trained token) of the training client's models, and
    `test/exact_match` (a share) with its 95 % interval `test/exact_match/low` and `/high`
    (Wilson's).

    Raises:
        ConfigurationError: the adapters cannot do what the configuration asks for.
        InvalidInput: a row that cannot be evaluated.
        AdapterError: a call failed.
    """
    _check_capabilities(kitchen, config)
    with Run.open(kitchen, "evaluate", config, config.run_id) as run:
        with reported(kitchen, "evaluate", run):
            samples = _kept(kitchen, run.id) if run.done else _measured(kitchen, run)
        return EvaluationResult(run.id, run.metrics, samples)


def _measured(kitchen: Kitchen, run: Run[EvaluateConfig]) -> Sequence[Sample]:
    with _session(kitchen, run.config) as session:
        task = _task(kitchen, run.config, session)
        check_stores(kitchen)
        run.start(session, task.depends_on, **task.facts)
        with kitchen.observers.start(kinds.TrainingEval(step=0, run_id=run.id)) as span:
            evaluation = task.measure()
            span.set(metrics=evaluation.metrics)
    kitchen.metrics_store.record_many(run.id, evaluation.metrics, 0)
    if samples := [asdict(sample) for sample in evaluation.samples]:
        run.keep_samples(0, samples)
        kitchen.observers.emit(kinds.TrainingSamples(step=0, run_id=run.id, samples=samples))
    kitchen.observers.emit(kinds.WorkflowFinishing(workflow="evaluate", run_id=run.id))
    run.finish(None, evaluation.metrics)
    return evaluation.samples


def check(kitchen: Kitchen, config: EvaluateConfig) -> Iterator[tuple[str, str]]:
    """Try what an evaluation needs; yield what is in order, and how.

    Raises:
        CrucibleError: names what is not.
    """
    _check_capabilities(kitchen, config)
    with _session(kitchen, config) as session:
        yield "model", config.model
        for name, count in _task(kitchen, config, session).amounts.items():
            yield name.replace("_", " "), f"{count:,}"


def plan(kitchen: Kitchen, config: EvaluateConfig) -> Plan:
    """Return what would be evaluated, without doing so."""
    _check_capabilities(kitchen, config)
    with _session(kitchen, config) as session:
        task = _task(kitchen, config, session)
        nothing = Storage(0, 0, 0, 0)
        examples = task.facts.get("examples", ())
        return Plan(0, 0, 0.0, 1, 0, nothing, task.amounts, examples)


def _task(kitchen: Kitchen, config: EvaluateConfig, session: Any) -> Task:
    if session is None:
        return (SpokenTask if config.has_problems else AnswersTask)(kitchen, config)
    if config.has_problems:
        return ProblemsTask(kitchen, config, session)
    return RowsTask(kitchen, config, session)


def _kept(kitchen: Kitchen, run_id: str) -> list[Sample]:
    """Return the samples of an evaluation that is done."""
    try:
        lines = kitchen.blob_store.read(samples_path(run_id, 0)).splitlines()
    except NotFound:
        return []
    return [Sample(**json.loads(line)) for line in lines]


@contextlib.contextmanager
def _session(kitchen: Kitchen, config: EvaluateConfig) -> Iterator[Any]:
    if config.model_of == "completer":
        yield None
        return
    weights = starting_weights(kitchen, config)
    start = replace(config.session(), from_checkpoint=weights)
    with frozen(kitchen.training_client, start) as session:
        yield session


def _check_capabilities(kitchen: Kitchen, config: EvaluateConfig) -> None:
    if config.model_of == "completer":
        return
    client = kitchen.training_client
    if not client.supports("forward"):
        raise ConfigurationError(
            f"the training client {client.adapter!r} has no forward, so it measures no NLL; with "
            'workflow.model_of = "completer" the completer alone is evaluated'
        )
    if config.exact_match or config.has_problems:
        check_live_weights(kitchen, "workflow.exact_match" if config.exact_match else "workflow")
