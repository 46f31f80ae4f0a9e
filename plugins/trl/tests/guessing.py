"""Environments and reward functions as someone would write them for TRL."""

from __future__ import annotations

import random
from typing import Any


class Guessing:
    """Find a number: the model asks whether it is larger, and then says it."""

    def reset(self, seed: int = 0, highest: int = 9, **kwargs: Any) -> str:
        self.number = random.Random(seed).randint(0, highest)
        self.guesses = 0
        self.said: int | None = None
        return f"Guess my number, 0 to {highest}."

    def is_larger(self, than: int) -> bool:
        """Say whether the number is larger than another.

        Args:
            than: The other number.

        Returns:
            Whether it is.
        """
        self.guesses += 1
        return self.number > than

    async def say(self, number: int, reason: str = "") -> str:
        """Say which number it is.

        Args:
            number: The number.
            reason: Why.

        Returns:
            Whether it is right, in words.
        """
        self.said = number
        return "right" if number == self.number else "wrong"

    def fail(self) -> str:
        """Do not work.

        Returns:
            Nothing.
        """
        raise RuntimeError("out of order")

    def get_reward(self) -> float:
        return float(self.said == self.number) - 0.01 * self.guesses

    def _helper(self) -> None: ...


class Silent:
    """Has no reward of its own, and problems that are rows."""

    def reset(self, prompt: Any, answer: str, **kwargs: Any) -> None:
        self.looked = 0

    def look_up(self, word: str) -> str:
        """Look up a word.

        Args:
            word: The word.

        Returns:
            What it means.
        """
        self.looked += 1
        return {"two": "2", "three": "3"}.get(word, "unknown")


class Unseeded(Silent):
    def reset(self) -> None:  # type: ignore[override]
        ...


class NoReset:
    def get_reward(self) -> float:
        return 0.0


class Untyped(Guessing):
    def look(self, where):  # type: ignore[no-untyped-def]
        return where


class Nothing(Guessing):
    def get_reward(self) -> None:  # type: ignore[override]
        return None


def contains_answer(completions: Any, answer: Any, log_metric: Any, **kwargs: Any) -> list[float]:
    log_metric("messages", float(len(completions[0])))
    return [float(a in c[-1]["content"]) for c, a in zip(completions, answer, strict=True)]


async def looked_up(environments: Any, **kwargs: Any) -> list[float | None]:
    return [0.5 if environment.looked else None for environment in environments]


NOT_CALLABLE = {"guessing": Guessing}
