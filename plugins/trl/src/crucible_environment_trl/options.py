"""The options of the environment."""

from __future__ import annotations

import functools
from typing import Any, Literal

from crucible_kitchen import CrucibleError, EnvironmentOptions, LocalPath, Name, Template, imported
from pydantic import Field, field_validator

Format = Literal[
    "qwen3",
    "qwen3_5",
    "llama3",
    "glm4moe",
    "gptoss",
    "gemma4",
    "lfm2_2_5",
    "nemotron_3",
    "deepseek_r1_distill",
]


class TrlOptions(EnvironmentOptions):
    factory: Name = Field(examples=["my_environment:Maze"])
    """What TRL calls `environment_factory`: a class or function without arguments, as "module:name"
    or "file.py:name"."""
    dataset: LocalPath | None = None
    """JSON Lines file of problems. The fields of a row are arguments of `reset`, as TRL passes
    those of `train_dataset`; `prompt`, a text or messages, is what is asked. Without it, a problem
    is `reset(seed=...)`."""
    prompt: Template = ""
    """The user's message, where rows have no `prompt`. What `reset` returns follows it."""
    reward_functions: tuple[Name, ...] = ()
    """Reward functions as TRL has them, "module:name" or "file.py:name"; the reward is the sum of
    what they and `get_reward` return."""
    max_tool_calling_iterations: int | None = Field(default=None, ge=1)
    """Turns in which tools are called, at most. A run's `max_turns` should be more, so that an
    episode ends here and has a reward."""
    tool_format: Format = "qwen3"
    """How the model writes tool calls: the name of a response template of TRL. "qwen3" is that
    of Qwen 2.5 and 3 and of Hermes, <tool_call>{"name": ..., "arguments": ...}</tool_call>."""

    @field_validator("factory", "reward_functions")
    @classmethod
    def _can_be_called(cls, value: Any) -> Any:
        for path in (value,) if isinstance(value, str) else value:
            found = load(path)
            if not callable(found):
                hint = "; write the name of one of them" if isinstance(found, dict) else ""
                raise ValueError(f"{path} is a {type(found).__name__}, not a function{hint}")
        return value


@functools.cache  # a file would be executed again for each environment
def load(path: str) -> Any:
    """Return what "module:name" or "file.py:name" names.

    Raises:
        ValueError: there is nothing of this name, or its module cannot be imported.
    """
    if ":" not in path:
        raise ValueError(
            f'{path!r} says no name in a module: write "module:name" or "file.py:name"'
        )
    try:
        return imported(path, "object")
    except CrucibleError as error:
        raise ValueError(str(error)) from error
