"""What a run on rows would do, and its first rows."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ...errors import ConfigurationError
from ...kitchen import Kitchen
from ..checks import trial_session
from ..rows.first_rows import show_rows
from ..rows.prepare import prepare_rows
from .memory import estimate_memory, refine_memory
from .plan import Plan, plan_training


def plan(kitchen: Kitchen, config: Any) -> Plan:
    """Return what a run would do and write, without training.

    Args:
        kitchen: its adapters.
        config: a `TrainingConfig` that is also a `RowsConfig`.
    """
    if config.evaluates and not kitchen.training_client.supports("forward"):
        raise ConfigurationError(
            f"workflow.test_dataset: the training client {kitchen.training_client.adapter!r} has "
            "no forward, so nothing can be evaluated"
        )
    memory = estimate_memory(kitchen, config)
    with trial_session(kitchen, config) as session:
        rows = prepare_rows(kitchen, session, config, config.batch_size)
        memory = refine_memory(kitchen, config, memory, config.batch_size, rows.longest)
        about = (config.evaluates, rows.amounts, rows.facts["examples"], memory)
        return plan_training(kitchen, session, config, rows.train, *about)


def preview(kitchen: Kitchen, config: Any, count: int) -> Iterator[str]:
    """Yield the text of the first `count` training rows, what is trained on between ⟦ and ⟧.

    Args:
        kitchen: its adapters.
        config: a `ModelConfig` that is also a `RowsConfig`.
        count: rows.
    """
    with trial_session(kitchen, config) as session:
        yield from show_rows(kitchen, session, config, count)
