"""What a run needs before its first step, tried without training anything."""

from __future__ import annotations

import contextlib
import math
import sys
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from ..errors import AdapterError, ConfigurationError
from ..kitchen import Kitchen
from ..messages.spelling import did_you_mean
from .batches import Batches, share
from .config import ModelConfig, RunConfig, TrainingConfig
from .runs import Run, ids_with, starting_weights


def due(every: int, done: int, steps: int) -> int:
    """Return how many multiples of `every` are after `done` and before `steps`; none of 0."""
    return max((steps - 1) // every - done // every, 0) if every else 0


def saves(config: RunConfig, done: int, steps: int) -> int:
    """Return how many checkpoints a run saves after `done` of its steps; where the best one is
    kept, each evaluation may be it, so at most.
    """
    saved = due(config.save_every, done, steps) + (done < steps)
    if config.best_metric is None:
        return saved
    both = math.lcm(config.save_every, config.eval_every)
    return saved + due(config.eval_every, done, steps) - due(both, done, steps)


def checkpoints_kept(config: RunConfig, steps: int) -> int:
    """Return how many checkpoints a run of `steps` steps keeps: the last ones, and the best."""
    return min(saves(config, 0, steps), config.keep_checkpoints + (config.best_metric is not None))


def checkpoints_at_once(config: RunConfig, steps: int) -> int:
    """Return the most that are there at any time: an old one goes after the new one is saved."""
    return min(saves(config, 0, steps), checkpoints_kept(config, steps) + 1)


def check_places(
    kitchen: Kitchen, session: Any, config: RunConfig, steps: int = sys.maxsize
) -> None:
    """Try every place that a run writes to, so that nothing is trained that cannot be kept.

    Raises:
        AdapterError: a place that cannot be written, or has too little space.
    """
    client = kitchen.training_client
    if client.supports("check_storage"):
        client.check_storage(session, checkpoints_at_once(config, steps))
    check_stores(kitchen)


def check_stores(kitchen: Kitchen) -> None:
    """Try the stores that results are written to.

    Raises:
        AdapterError: one cannot be written.
    """
    for store in (kitchen.blob_store, kitchen.metrics_store):
        if store.supports("ping"):
            store.ping()


def starting_note(kitchen: Kitchen, start: str, resumed: bool) -> str:
    """Return what to say where the weights that a run starts from do not exist."""
    if resumed:
        return f"the run starts from the checkpoint {start!r}: keep it"
    known: list[str] = []
    with contextlib.suppress(AdapterError):
        known = sorted(ids_with(kitchen.blob_store.list("")))
    hint = did_you_mean(start, known)
    return f"workflow.from_checkpoint: there is no run {start!r} either{hint}"


def count_steps(config: TrainingConfig, batches: Batches[Any], run: Run[Any]) -> int:
    """Return how many steps a run takes in all.

    Raises:
        ConfigurationError: it cannot be known, or the run has taken more.
    """
    total = steps_of(config, batches)
    if run.step > total:
        raise ConfigurationError(
            f"the run {run.id!r} has taken {run.step} steps, and is to take {total} in all. Raise "
            "workflow.epochs or workflow.max_steps, or choose another workflow.run_id"
        )
    return total


def steps_of(config: TrainingConfig, batches: Batches[Any]) -> int:
    """Return how many steps there are in all.

    Raises:
        ConfigurationError: it cannot be known.
    """
    if config.max_steps is None and batches.per_epoch is None:
        raise ConfigurationError(
            "workflow.max_steps: it is needed where the number of rows is not known"
        )
    return config.max_steps or share(config.epochs, batches.per_epoch or 0)


def check_training(
    kitchen: Kitchen, config: TrainingConfig, session: Any
) -> Iterator[tuple[str, str]]:
    """Try what every training workflow needs; yield what is in order, and how.

    Raises:
        CrucibleError: names what is not.
    """
    yield "model", config.model
    tokenizer = kitchen.training_client.helper("get_tokenizer")(session)
    yield "tokenizer", type(tokenizer).__name__
    check_places(kitchen, session, config)
    yield "storage", "can be written"


@contextlib.contextmanager
def trial_session(kitchen: Kitchen, config: ModelConfig) -> Iterator[Any]:
    """Start a session in which nothing is trained, and close it at the end."""
    client = kitchen.training_client
    weights = starting_weights(kitchen, config)
    session = client.start_session(replace(config.session(), from_checkpoint=weights))
    try:
        yield session
    finally:
        client.close_session(session)
