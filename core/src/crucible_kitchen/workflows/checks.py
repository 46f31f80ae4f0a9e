"""What a run needs before its first step, tried without training anything."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from ..kitchen import Kitchen
from .config import ModelConfig, RunConfig, TrainingConfig
from .runs import starting_weights


def check_places(
    kitchen: Kitchen, session: Any, config: RunConfig, steps: float = math.inf
) -> None:
    """Try every place that a run writes to, so that nothing is trained that cannot be kept.

    Raises:
        AdapterError: a place that cannot be written, or has too little space.
    """
    client = kitchen.training_client
    if client.supports("check_storage"):
        saves = steps / config.save_every if config.save_every else 1
        ahead = min(config.keep_checkpoints + 1, saves)  # the old one goes after the new
        client.check_storage(session, math.ceil(ahead))
    for store in (kitchen.blob_store, kitchen.metrics_store):
        if store.supports("ping"):
            store.ping()


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
