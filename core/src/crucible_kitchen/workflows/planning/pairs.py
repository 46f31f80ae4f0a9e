"""What a run on pairs of answers would do, and its first pairs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ...kitchen import Kitchen
from ..checks import trial_session
from ..pairs import check_can_compare
from ..rows.first_rows import show_rows
from ..rows.prepare import prepare_rows
from .memory import estimate_memory, refine_memory
from .plan import Plan, plan_training


def plan(kitchen: Kitchen, config: Any) -> Plan:
    """Return what a run would do and write, without training, nor computing the reference.

    Args:
        kitchen: its adapters.
        config: a `TrainingConfig` that is also a `PairsConfig`.
    """
    check_can_compare(kitchen)
    memory = estimate_memory(kitchen, config)
    with trial_session(kitchen, config) as session:
        rows = prepare_rows(kitchen, session, config, 2 * config.batch_size, config.reader)
        pairs = range(rows.amounts["train_sequences"] // 2)
        memory = refine_memory(kitchen, config, memory, 2 * config.batch_size, rows.longest)
        about = (config.evaluates, rows.amounts, rows.facts["examples"], memory)
        return plan_training(kitchen, session, config, pairs, *about)


def preview(kitchen: Kitchen, config: Any, count: int) -> Iterator[str]:
    """Yield both sides of the first `count` pairs as text, what is compared between ⟦ and ⟧.

    Args:
        kitchen: its adapters.
        config: a `ModelConfig` that is also a `PairsConfig`.
        count: pairs.
    """
    with trial_session(kitchen, config) as session:
        yield from show_rows(kitchen, session, config, count, config.reader)
