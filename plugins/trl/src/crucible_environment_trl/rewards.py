"""The reward of an episode, which the environment knows, or functions of what was said."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from .tools import wait

Messages = Sequence[Mapping[str, Any]]


def reward_of(
    environment: Any,
    functions: Sequence[Callable[..., Any]],
    prompt: Messages,
    completion: Messages,
    row: Mapping[str, Any],
) -> tuple[float, dict[str, float]]:
    """Return the sum of what `get_reward` and the functions return, and the metrics they log.

    The functions get what TRL gives them, for one completion: `prompts`, `completions`, the fields
    of the row, `environments`, `log_metric` and `log_extra`; neither token ids nor the trainer's
    state. One that returns None has nothing to say.

    Raises:
        ValueError: nothing scores the episode.
    """
    metrics: dict[str, float] = {}
    arguments = {
        "prompts": [list(prompt)],
        "completions": [list(completion)],
        **{name: [value] for name, value in row.items() if name != "prompt"},
        "environments": [environment],
        "log_metric": metrics.__setitem__,
        "log_extra": lambda name, values: None,
    }
    scores = [_finished(function(**arguments))[0] for function in functions]
    if hasattr(environment, "get_reward"):
        scores.append(_finished(environment.get_reward()))
    found = [float(score) for score in scores if score is not None and not math.isnan(score)]
    if not found:
        raise ValueError("nothing scores this episode: get_reward and every function returned None")
    return sum(found), metrics


def _finished(result: Any) -> Any:
    if not inspect.iscoroutine(result):
        return result
    [result] = wait([result])
    if isinstance(result, Exception):
        raise result
    return result
