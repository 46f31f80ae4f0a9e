"""An environment of your own, of several turns: guess a number.

crucible check environment.docs/examples/guess_environment.py:Guess
crucible run workflow.environment.use=docs/examples/guess_environment.py:Guess ...
"""

from __future__ import annotations

import random

from crucible_kitchen import Completion, EnvironmentOptions, Observation, Step


class GuessOptions(EnvironmentOptions):
    highest: int = 20
    """Largest number to guess."""
    guesses: int = 5
    """Completions in an episode at most."""


class Guess:
    def __init__(self, options: GuessOptions) -> None:
        self.options = options

    def reset(self, seed: int) -> Observation:
        self.number = random.Random(seed).randint(0, self.options.highest)
        self.answer, self.turn = str(self.number), 0
        return [{"role": "user", "content": f"Guess a number up to {self.options.highest}."}]

    def step(self, completion: Completion) -> Step:
        self.turn += 1
        said = completion.text.strip()
        if said == self.answer:
            return Step(reward=1.0)
        parsed = said.isascii() and said.isdigit() and len(said) < 10
        hint = "Higher." if parsed and int(said) < self.number else "Lower."
        return Step(
            reward=0.0,
            done=self.turn == self.options.guesses,
            observation=[{"role": "user", "content": hint if parsed else "A number, please."}],
            parsed=parsed,
        )
