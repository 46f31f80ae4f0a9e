"""The environment: a session on an OpenEnv server."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from crucible_kitchen import Completion, InvalidInput, Observation, Step
from pydantic import BaseModel

from .connection import Connection, Refused
from .options import COMPLETION, OpenEnvOptions, load


class OpenEnv:
    """An environment that an OpenEnv server hosts. Each object has a session of its own.

    A problem is `reset(seed=...)`; whether the same seed is the same problem is up to the server.
    A completion that is no action, or one that the server refuses, ends the episode with reward 0,
    and is not `parsed`. A reward of None is 0.
    """

    def __init__(self, options: OpenEnvOptions) -> None:
        self._options = options
        client = load(options.client) if options.client else _generic_client()
        self._act = load(options.action_function) if options.action_function else None
        self._show = load(options.observation_function) if options.observation_function else None
        self._connection = Connection(
            lambda: client(
                base_url=options.base_url,
                connect_timeout_s=options.connect_timeout,
                message_timeout_s=options.timeout,
            ),
            options.base_url,
        )

    def reset(self, seed: int) -> Observation:
        result = self._connection.reset(**{**self._options.reset, "seed": seed})
        if result.done:
            raise InvalidInput("the episode is done after its reset")
        return self._shown(result.observation, first=True)

    def step(self, completion: Completion) -> Step:
        try:
            action = self._action(completion.text)
            result = self._connection.step(action)
        except (ValueError, Refused):
            return Step(reward=0.0, parsed=False)
        reward = 0.0 if result.reward is None else float(result.reward)
        if result.done:
            return Step(reward=reward)
        return Step(reward=reward, done=False, observation=self._shown(result.observation))

    def close(self) -> None:
        self._connection.close()

    def _action(self, text: str) -> Any:
        if self._act is not None:
            return self._act(text)
        return _filled(self._options.action, text)

    def _shown(self, observation: Any, first: bool = False) -> Observation:
        options = self._options
        if self._show is not None:
            shown: Observation = self._show(observation)
        elif options.observation is None:
            shown = json.dumps(_fields(observation), ensure_ascii=False, default=str)
        else:
            try:
                shown = options.observation.format_map(_fields(observation))
            except (KeyError, IndexError, AttributeError, ValueError) as error:
                names = ", ".join(_fields(observation)) or "none"
                raise InvalidInput(
                    f"the template of observations does not fit: {error!r}; fields: {names}"
                ) from error
        if not (options.as_chat and isinstance(shown, str)):
            return shown
        system = [{"role": "system", "content": options.system_prompt}] * bool(
            first and options.system_prompt
        )
        return [*system, {"role": "user", "content": shown}]


def _generic_client() -> Any:
    from openenv.core.generic_client import GenericEnvClient

    return GenericEnvClient


def _filled(template: Any, text: str) -> Any:
    """Return an action's table with the completion in its place."""
    if isinstance(template, str):
        return template.replace(COMPLETION, text)
    if isinstance(template, Mapping):
        return {name: _filled(value, text) for name, value in template.items()}
    if isinstance(template, list | tuple):
        return [_filled(value, text) for value in template]
    return template


def _fields(observation: Any) -> Mapping[str, Any]:
    """Return the fields of an observation, but for reward and the like, which it is not asked."""
    if isinstance(observation, BaseModel):
        fields: dict[str, Any] = observation.model_dump(
            mode="json", exclude={"done", "reward", "metadata"}
        )
        return fields
    if isinstance(observation, Mapping):
        return observation
    if hasattr(observation, "__dict__"):
        return dict(vars(observation))
    raise InvalidInput(
        f"an observation is a {type(observation).__name__}, which has no fields: give "
        "observation_function"
    )
