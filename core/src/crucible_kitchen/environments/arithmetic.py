"""Sums to work out: `37+58=`, and the reward is 1 for the right number."""

from __future__ import annotations

import math
import operator
import re
from typing import Literal, Self

from pydantic import Field, model_validator

from ..types import Completion
from .environment import EnvironmentOptions, Observation, Step

OPERATIONS = {"+": operator.add, "-": operator.sub, "*": operator.mul}
GOLDEN = (math.sqrt(5) - 1) / 2


class ArithmeticOptions(EnvironmentOptions):
    smallest: int = Field(default=10, ge=0)
    """Smallest operand."""
    largest: int = Field(default=99, ge=0)
    """Largest operand."""
    operation: Literal["+", "-", "*"] = "+"
    """What to do with the operands."""

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.largest < self.smallest:
            raise ValueError(f"largest is {self.largest}, below smallest, {self.smallest}")
        return self


class Arithmetic:
    """One turn: two operands and their operation, such as `37+58=`. The reward is 1 if the
    completion is the result in digits, white space around it aside, else 0.

    There are n (n + 1) problems with n operands, at most 2**32: every pair in both orders, two
    problems that follow each other and are held out together, so that a problem that is held out is
    not trained on the other way round. Those that follow are spread evenly over all pairs.

    Args:
        options: the operands and the operation.
    """

    held_together = 2

    def __init__(self, options: ArithmeticOptions) -> None:
        self._options = options
        self._operands = options.largest - options.smallest + 1
        self._pairs = self._operands * (self._operands + 1) // 2
        self._stride = _coprime_near(round(self._pairs * GOLDEN), self._pairs)
        self.size = min(2 * self._pairs, 2**32)
        self.answer: str | None = None
        """The result of the problem that was begun last."""

    def reset(self, seed: int) -> Observation:
        number, turned = divmod(seed, 2)
        a, b = _pair(number * self._stride % self._pairs)
        if turned:
            a, b = b, a
        a, b = a + self._options.smallest, b + self._options.smallest
        self.answer = str(OPERATIONS[self._options.operation](a, b))
        return f"{a}{self._options.operation}{b}="

    def step(self, completion: Completion) -> Step:
        said = completion.text.strip()
        parsed = re.fullmatch(r"-?[0-9]+", said) is not None
        return Step(reward=float(said == self.answer), parsed=parsed)


def _pair(number: int) -> tuple[int, int]:
    """Return the pair (a, b), a <= b, of a number: 0 is (0, 0), 1 (0, 1), 2 (1, 1), 3 (0, 2)..."""
    b = (math.isqrt(8 * number + 1) - 1) // 2
    return number - b * (b + 1) // 2, b


def _coprime_near(start: int, count: int) -> int:
    """Return the first number from `start` on, at least 1, without a divisor in common with
    `count`.
    """
    found = max(start, 1)
    while math.gcd(found, count) != 1:
        found += 1
    return found
