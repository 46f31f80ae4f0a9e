"""What a run on problems would do, whose model learns from completions that are sampled."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from typing import Any

from ...kitchen import Kitchen
from ..batches import in_batches
from ..checks import steps_of, trial_session
from ..problems.prepare import prepare_problems
from ..sampling.sampler import check_live_weights
from .memory import estimate_memory, refine_memory
from .plan import Plan, plan_training


def plan(kitchen: Kitchen, config: Any) -> Plan:
    """Return what a run would do and write, without sampling or training.

    Args:
        kitchen: its adapters.
        config: a `TrainingConfig` that is also a `PlayedProblems`, with the number of completions
            of a problem as `group_size` or `samples`.
    """
    check_live_weights(kitchen, "workflow.use")
    memory = estimate_memory(kitchen, config)
    with (
        trial_session(kitchen, config) as session,
        closing(prepare_problems(kitchen, session, config)) as problems,
    ):
        amounts = {"test_problems": len(problems.test)}
        if isinstance(problems.train, Sequence):
            amounts["train_problems"] = len(problems.train)
        steps = steps_of(config, in_batches(problems.train, config.batch_size, config.seed))
        group = config.group_size if hasattr(config, "group_size") else config.samples
        completions = steps * config.batch_size * group
        amounts["completions_at_most"] = completions
        amounts["sampled_tokens_at_most"] = completions * config.max_tokens
        memory = refine_memory(kitchen, config, memory, 0, None)
        about = (config.evaluates, amounts, problems.facts.get("examples", ()), memory)
        return plan_training(kitchen, session, config, problems.train, *about)
