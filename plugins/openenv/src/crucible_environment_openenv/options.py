"""The options of the environment."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Annotated, Any, Self

from crucible_kitchen import (
    CrucibleError,
    EnvironmentOptions,
    FromEnv,
    Keyword,
    Name,
    Template,
    imported,
)
from pydantic import Field, field_validator, model_validator

COMPLETION = "{completion}"


class OpenEnvOptions(EnvironmentOptions):
    base_url: Annotated[Name, FromEnv("OPENENV_BASE_URL")] = Field(
        examples=["http://127.0.0.1:8000"]
    )
    """Address of the server."""
    client: Name | None = None
    """The client's class, "module:name" or "file.py:name". If unset, OpenEnv's GenericEnvClient,
    which takes and returns plain tables and needs no package of the environment's own."""
    action: Mapping[str, Keyword] | None = None
    """The action as a table, in which {completion} is what the model said, such as
    { message = "{completion}" }."""
    action_function: Name | None = None
    """A function of the completion's text that returns the action, in place of `action`. Its
    ValueError says that the text is none."""
    observation: Template | None = None
    """Template of what is asked, over the fields of the observation, such as "{prompt}"; all of it
    as JSON if unset."""
    observation_function: Name | None = None
    """A function of the observation that returns text, messages or token ids, in place of
    `observation`."""
    reset: Mapping[str, Keyword] = {}
    """Arguments of every reset, besides the seed."""
    as_chat: bool = True
    """Whether a text is a user's message, through the chat template, or text as it is."""
    system_prompt: Template = ""
    """The system message, if any."""
    connect_timeout: float = Field(default=10, gt=0, allow_inf_nan=False)
    """Seconds to wait for a connection."""
    timeout: float = Field(default=60, gt=0, allow_inf_nan=False)
    """Seconds to wait for an answer."""

    @field_validator("client", "action_function", "observation_function")
    @classmethod
    def _can_be_called(cls, path: str | None) -> str | None:
        if path is not None and not callable(found := load(path)):
            raise ValueError(f"{path} is a {type(found).__name__}, not a function")
        return path

    @model_validator(mode="after")
    def _say_one_thing(self) -> Self:
        if (self.action is None) == (self.action_function is None):
            raise ValueError(
                'say what to do with a completion, either by action = { field = "{completion}" } '
                "or by action_function"
            )
        if self.action is not None and COMPLETION not in str(self.action):
            raise ValueError("action has no {completion}, so what the model says changes nothing")
        if self.observation is not None and self.observation_function is not None:
            raise ValueError("observation and observation_function both say what is asked")
        if "seed" in self.reset:
            raise ValueError("reset.seed: the seed is that of the problem; leave it out")
        if self.system_prompt and not self.as_chat:
            raise ValueError("system_prompt is a message, and as_chat = false asks no messages")
        return self


@functools.cache  # a file would be executed again for each environment
def load(path: str) -> Any:
    """Return what "module:name" or "file.py:name" names.

    Raises:
        ValueError: there is nothing of this name, or its module cannot be imported.
    """
    if ":" not in path:
        raise ValueError(f'{path!r} names a module at most: write "module:name" or "file.py:name"')
    try:
        return imported(path, "object")
    except CrucibleError as error:
        raise ValueError(str(error)) from error
