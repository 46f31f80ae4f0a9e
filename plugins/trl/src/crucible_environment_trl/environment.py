"""The environment: an object written for TRL, whose methods the model calls."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

from crucible_kitchen import Completion, InvalidInput, Observation, Step

from .answers import parsed
from .options import TrlOptions, load
from .problems import asked, check_takes_seed, rows_of
from .rewards import reward_of
from .tools import call, schema_of, tools_of


class Trl:
    """What TRL calls an environment: an object with `reset`, tools and perhaps `get_reward`.

    The public methods of the object's class are tools. A completion that calls tools is followed by
    their results, messages of the role `tool`; one that calls none ends the episode, and then the
    episode has its reward. Metrics: `tool_calls` and `tool_failures` of the episode, and what
    reward functions log.

    Raises:
        InvalidInput: the object is not one that TRL would take, has no reward, or takes no seed
            where there are no rows.
    """

    def __init__(self, options: TrlOptions) -> None:
        self._options = options
        self._object = load(options.factory)()
        name = type(self._object).__name__
        if not callable(getattr(self._object, "reset", None)):
            raise InvalidInput(f"{name} has no method reset, so it is not an environment of TRL")
        self._functions = [load(path) for path in options.reward_functions]
        if not self._functions and not hasattr(self._object, "get_reward"):
            raise InvalidInput(f"{name} has no get_reward: give reward_functions")
        self._methods = tools_of(self._object)
        self.tools: Sequence[Mapping[str, Any]] = [*map(schema_of, self._methods.values())]
        """The JSON schemas of the tools."""
        path = options.dataset
        self._rows = None
        self.size: int | None = None
        self.version: str | None = None
        if path is None:
            check_takes_seed(self._object.reset, name)
        else:
            changed = os.stat(path).st_mtime_ns if path.exists() else 0
            self._rows = rows_of(path, changed)
            self.size, self.version = len(self._rows), self._rows.sha256
        self.answer: str | None = None
        """The field `answer` of the row, if there is one."""

    def reset(self, seed: int) -> Observation:
        row: Mapping[str, Any] = {"seed": seed} if self._rows is None else self._rows[seed]
        self._row, self._said = row, list[dict[str, Any]]()
        self._iterations = self._calls = self._failures = 0
        self.answer = None if row.get("answer") is None else str(row["answer"])
        observation = self._object.reset(**row)
        self._prompt = asked(row.get("prompt", self._options.prompt), observation)
        return self._prompt

    def step(self, completion: Completion) -> Step:
        message, well_formed = parsed(completion.text, self._options.tool_format, self.tools)
        self._said.append(message)
        calls = message.get("tool_calls")
        most = self._options.max_tool_calling_iterations
        if calls and (most is None or self._iterations < most):
            results, failed = call(self._methods, calls)
            self._said += results
            self._iterations += 1
            self._calls += len(calls)
            self._failures += failed
            return Step(reward=0.0, done=False, observation=results, metrics=self._counts())
        reward, logged = reward_of(
            self._object, self._functions, self._prompt, self._said, self._row
        )
        metrics = {**logged, **self._counts()}
        return Step(reward=reward, metrics=metrics, parsed=well_formed)

    def _counts(self) -> dict[str, float]:
        return {"tool_calls": float(self._calls), "tool_failures": float(self._failures)}
