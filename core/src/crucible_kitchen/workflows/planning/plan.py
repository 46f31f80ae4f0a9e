"""What a run would do and write, found out without training: `crucible run --dry-run`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ...errors import Unsupported
from ...kitchen import Kitchen
from .. import runs
from ..batches import Batches, in_batches
from ..checks import (
    check_places,
    checkpoints_at_once,
    checkpoints_kept,
    due,
    saves,
    steps_of,
)
from ..config import RunConfig, TrainingConfig
from .memory import Memory


@dataclass(frozen=True, slots=True)
class Storage:
    """Bytes that a run writes to where its training client keeps weights.

    Args:
        checkpoint: size of one checkpoint.
        weights: size of the weights that are saved at the end.
        written: in all.
        most: the most that is there at any time, since older checkpoints are deleted.
    """

    checkpoint: int
    weights: int
    written: int
    most: int


@dataclass(frozen=True, slots=True)
class Plan:
    """What a run would do.

    Args:
        steps: optimizer steps of the whole run.
        done: how many of them are done already, in the run that would be continued.
        epochs: passes over the items; None where their number is not known.
        evaluations: evaluations that are still to come; with early stopping, at most.
        checkpoints: checkpoints that are still to come; where the best is kept, at most.
        storage: bytes; None if the training client does not offer them.
        amounts: what else is known, such as rows and tokens of a pass over them, by name.
        examples: the first items as text, what is trained on between ⟦ and ⟧.
        memory: bytes; None if the training client does not offer them.
    """

    steps: int
    done: int
    epochs: float | None
    evaluations: int
    checkpoints: int
    storage: Storage | None
    amounts: Mapping[str, int] = field(default_factory=dict)
    examples: Sequence[str] = ()
    memory: Memory | None = None


def plan_training(
    kitchen: Kitchen,
    session: Any,
    config: TrainingConfig,
    items: Sequence[Any] | Batches[Any],
    evaluates: bool,
    amounts: Mapping[str, int],
    examples: Sequence[str] = (),
    memory: Memory | None = None,
) -> Plan:
    """Return what a training workflow would do with these items. Nothing is written.

    Args:
        kitchen: its adapters.
        session: the training client's, which knows how large checkpoints are.
        config: the settings.
        items: what would be trained on, as `prepare` returns it.
        evaluates: whether there is anything to evaluate on.
        amounts: of the plan.
        examples: of the plan.
        memory: of the plan.

    Raises:
        ConfigurationError: how many steps there are cannot be known.
        AdapterError: a place that cannot be written, or has too little space.
    """
    batches = in_batches(items, config.batch_size, config.seed)
    steps = steps_of(config, batches)
    record = None if config.run_id is None else runs.read(kitchen, config.run_id)
    done = 0 if record is None else record.state.step
    check_places(kitchen, session, config, steps)
    evaluations = _evaluations(config, done, steps) if evaluates else 0
    checkpoints = saves(config, done, steps)
    return Plan(
        steps,
        done,
        steps / batches.per_epoch if batches.per_epoch else None,
        evaluations,
        checkpoints,
        _storage(kitchen, session, config, checkpoints, steps),
        amounts,
        examples,
        memory,
    )


def _evaluations(config: RunConfig, done: int, steps: int) -> int:
    first = config.eval_on_start and done == 0
    return int(first) + due(config.eval_every, done, steps) + (done < steps)


def _storage(
    kitchen: Kitchen, session: Any, config: RunConfig, checkpoints: int, steps: int
) -> Storage | None:
    try:
        needed = kitchen.training_client.helper("storage_needed")(session)
    except Unsupported:
        return None
    checkpoint, weights = int(needed["checkpoint"]), int(needed["weights"])
    at_the_end = checkpoints_kept(config, steps) * checkpoint + weights
    most = max(checkpoints_at_once(config, steps) * checkpoint, at_the_end)
    return Storage(checkpoint, weights, checkpoints * checkpoint + weights, most)
