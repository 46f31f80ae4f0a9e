"""An environment whose answers are checked, so that a bad one is named and not learned from."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np

from ..errors import AdapterError, InvalidInput, described
from ..types import Completion
from .environment import Environment, Observation, Step

T = TypeVar("T")


class Guarded:
    """An environment, checked: what it raises or returns amiss is an `InvalidInput` that names the
    environment, the seed and the turn. An `AdapterError`, such as one of a server that is away,
    stays what it is, with a note.

    Args:
        environment: what is checked; its attribute `problem_name`, if it has one, is what messages
            call the problem instead of its seed.
        name: its name in messages.
    """

    def __init__(self, environment: Environment, name: str) -> None:
        self._environment, self._name = environment, name
        self._seed: int | None = None
        self._turn = 0
        self._done = True

    @property
    def size(self) -> int | None:
        """How many problems there are; None if every seed is one."""
        size = getattr(self._environment, "size", None)
        if size is not None and (not isinstance(size, int) or not 0 < size <= 2**32):
            raise InvalidInput(
                f"the environment {self._name}: its size is {size!r}, it must be from 1 to 2**32"
            )
        return size

    @property
    def held_together(self) -> int:
        """How many problems that follow each other are held out together."""
        count = getattr(self._environment, "held_together", 1)
        if not isinstance(count, int) or count < 1:
            raise InvalidInput(
                f"the environment {self._name}: its held_together is {count!r}, it must be a whole "
                "number from 1"
            )
        return count

    @property
    def version(self) -> str | None:
        """What says whether its problems are the same as before, if anything does."""
        version = getattr(self._environment, "version", None)
        return None if version is None else str(version)

    @property
    def tools(self) -> Sequence[Mapping[str, Any]] | None:
        """The tools of the problem that was begun last, if there are any."""
        return getattr(self._environment, "tools", None)

    @property
    def answer(self) -> str | None:
        """The right answer of the problem that was begun last, if it is known."""
        answer = getattr(self._environment, "answer", None)
        return None if answer is None else str(answer)

    def reset(self, seed: int) -> Observation:
        self._seed, self._turn, self._done = seed, 0, False
        observation = self._called(lambda: self._environment.reset(seed))
        if why := unfit(observation):
            raise self._wrong(f"reset returned {why}")
        return observation

    def step(self, completion: Completion) -> Step:
        self._turn += 1
        if self._done:
            raise self._wrong("the episode has ended; reset begins the next")
        step = self._called(lambda: self._environment.step(completion))
        if not isinstance(step, Step):
            raise self._wrong(f"step returned a {type(step).__name__}, not a Step")
        for name, value in {"reward": step.reward, **step.metrics}.items():
            if not _is_number(value) or not math.isfinite(value):
                raise self._wrong(f"the {name} is {value!r}, it must be a finite number")
        if not step.done and (why := unfit(step.observation)):
            raise self._wrong(f"the observation that follows is {why}")
        self._done = step.done
        return step

    def close(self) -> None:
        if callable(close := getattr(self._environment, "close", None)):
            close()

    def _called(self, call: Callable[[], T]) -> T:
        try:
            return call()
        except AdapterError as error:
            error.add_note(f"in {self._place()}")
            raise
        except Exception as error:
            raise self._wrong(f"it raised {described(error)}") from error

    def _wrong(self, what: str) -> InvalidInput:
        return InvalidInput(f"{self._place()}: {what}")

    def _place(self) -> str:
        turn = f", turn {self._turn}" if self._turn else ""
        problem = getattr(self._environment, "problem_name", None) or f"seed {self._seed}"
        return f"the environment {self._name}, {problem}{turn}"


def unfit(observation: object) -> str:
    """Say what an observation is that it must not be; "" if it is text, messages or token ids."""
    if isinstance(observation, str):
        return "" if observation else "an empty text"
    if not isinstance(observation, Sequence | np.ndarray):
        return f"a {type(observation).__name__}, not text, messages or token ids"
    items = list(observation)
    if not items:
        return "an empty list"
    if all(isinstance(item, Mapping) and isinstance(item.get("role"), str) for item in items):
        return ""
    if all(_is_integer(item) and item >= 0 for item in items):
        return ""
    kinds = ", ".join(dict.fromkeys(type(item).__name__ for item in items))
    return f"a list of {kinds}, not one of messages with a role, or of token ids"


def _is_integer(value: object) -> bool:
    return isinstance(value, int | np.integer) and not isinstance(value, bool)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float | np.number)
