"""Environments with one fault each, which `EnvironmentConformance` must find."""

from __future__ import annotations

import random
import re
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

from crucible_kitchen import Completion, EnvironmentOptions, Observation, Step
from pydantic import Field

HIGHEST = 999
TURNS = 4


class Options(EnvironmentOptions):
    seen: list[int] = Field(default_factory=list)
    """Problems that were begun; nothing but a mutant writes it."""


class Right:
    """Guess a number: an environment of several turns without a fault."""

    def __init__(self, options: Options) -> None:
        self.options = options
        self.turn = 0

    def reset(self, seed: int) -> Observation:
        self.turn = 0
        self.number = self.draw(seed)
        return [{"role": "user", "content": f"Guess a number from 0 to {HIGHEST}."}]

    def draw(self, seed: int) -> int:
        return random.Random(seed).randint(0, HIGHEST)

    @property
    def answer(self) -> str:
        return str(self.number)

    def step(self, completion: Completion) -> Step:
        self.turn += 1
        said = self.read(completion.text)
        right = said == self.number
        hint = (
            "A number, please." if said is None else "Higher." if said < self.number else "Lower."
        )
        return Step(
            reward=1.0 if right else 0.0 if said is None else 0.1,
            done=right or self.turn == TURNS,
            observation=[{"role": "user", "content": hint}],
            metrics={"turns": self.turn},
            parsed=said is not None,
        )

    def read(self, text: str) -> int | None:
        found = re.fullmatch(r"\s*([0-9]{1,3})\s*", text)
        return int(found[1]) if found else None


def _with(step: Step, **fields: Any) -> Step:
    names = ("reward", "done", "observation", "metrics", "parsed")
    return Step(**{name: getattr(step, name) for name in names} | fields)


class CountsItsObjects(Right):
    made: ClassVar[int] = 0

    def __init__(self, options: Options) -> None:
        super().__init__(options)
        CountsItsObjects.made += 1
        self.shift = CountsItsObjects.made

    def draw(self, seed: int) -> int:
        return (super().draw(seed) + self.shift) % HIGHEST


class TakesTheNextProblem(Right):
    def __init__(self, options: Options) -> None:
        super().__init__(options)
        self.random = random.Random(7)

    def draw(self, seed: int) -> int:
        return (super().draw(seed) + self.random.randint(0, HIGHEST)) % HIGHEST


class HashesAText(Right):
    def draw(self, seed: int) -> int:
        return hash(f"problem {seed}") % HIGHEST


class SeedsTheGlobalGenerator(Right):
    def draw(self, seed: int) -> int:
        random.seed(seed)
        return random.randint(0, HIGHEST)


class DependsOnTheGlobalGenerator(Right):
    def draw(self, seed: int) -> int:
        return (super().draw(seed) + hash(random.getstate())) % HIGHEST


class AsksWithTheDate(Right):
    def reset(self, seed: int) -> Observation:
        super().reset(seed)
        return f"It is day {int(time.time() // 86400)}. Guess a number."


class IgnoresItsSeed(Right):
    def draw(self, seed: int) -> int:
        return 500


class AsksWithOneMessage(Right):
    def reset(self, seed: int) -> Observation:
        return super().reset(seed)[0]  # type: ignore[return-value]


class GoesOnWithNothing(Right):
    def step(self, completion: Completion) -> Step:
        return _with(super().step(completion), observation="")


class AsksWithAnIterator(Right):
    def reset(self, seed: int) -> Observation:
        return iter(super().reset(seed))  # type: ignore[return-value]


class GoesOnWritingToWhatItReturned(Right):
    def reset(self, seed: int) -> Observation:
        self.messages: list[Any] = [*super().reset(seed)]
        return self.messages

    def step(self, completion: Completion) -> Step:
        self.messages.append({"role": "assistant", "content": completion.text})
        return super().step(completion)


class ReturnsATuple(Right):
    def step(self, completion: Completion) -> Step:
        step = super().step(completion)
        return step.observation, step.reward, step.done, {}  # type: ignore[return-value]


class ParsedIsWhatWasRead(Right):
    def step(self, completion: Completion) -> Step:
        step = super().step(completion)
        return _with(step, parsed=self.read(completion.text))


class AMetricIsNotANumber(Right):
    def step(self, completion: Completion) -> Step:
        return _with(super().step(completion), metrics={"length": float("nan")})


class RewardsNothingWithNan(Right):
    def step(self, completion: Completion) -> Step:
        step = super().step(completion)
        return _with(step, reward=step.reward if completion.text else float("nan"))


class ReadsAnyDigits(Right):
    def read(self, text: str) -> int | None:
        return int(text) if text.isdigit() else None


class WaitsForANumber(Right):
    def step(self, completion: Completion) -> Step:
        step = super().step(completion)
        return _with(step, done=step.done and step.parsed)


class CountsOneTooMany(Right):
    size = 11

    def draw(self, seed: int) -> int:
        return [super(CountsOneTooMany, self).draw(each) for each in range(10)][seed]


class TakesSeedsOf31Bits(Right):
    def draw(self, seed: int) -> int:
        if seed >= 2**31:
            raise OverflowError("the seed must be below 2**31")
        return super().draw(seed)


class KeepsItsNumberInTheClass(Right):
    kept: ClassVar[int] = 0

    def reset(self, seed: int) -> Observation:
        asked = super().reset(seed)
        KeepsItsNumberInTheClass.kept = self.number
        return asked

    def step(self, completion: Completion) -> Step:
        self.number = self.kept
        return super().step(completion)


class BelongsToOneThread(Right):
    def __init__(self, options: Options) -> None:
        super().__init__(options)
        self.thread = threading.get_ident()

    def reset(self, seed: int) -> Observation:
        if threading.get_ident() != self.thread:
            raise RuntimeError("it was made in another thread")
        return super().reset(seed)


class ClearsItsTurnsAtTheEnd(Right):
    def reset(self, seed: int) -> Observation:
        turn = self.turn
        asked = super().reset(seed)
        self.turn = turn
        return asked

    def step(self, completion: Completion) -> Step:
        step = super().step(completion)
        self.turn = 0 if step.done else self.turn
        return step


class WritesToItsOptions(Right):
    def reset(self, seed: int) -> Observation:
        self.options.seen.append(seed)
        return super().reset(seed)


class ClosesWhatWasNotOpened(Right):
    def close(self) -> None:
        del self.number


DETERMINISM = {
    "two": "test_a_seed_is_the_same_problem_in_two_objects",
    "again": "test_a_seed_is_the_same_problem_again",
    "process": "test_a_seed_is_the_same_problem_in_another_process",
    "global": "test_global_randomness_is_left_alone",
    "clock": "test_the_clock_changes_nothing",
    "differ": "test_seeds_are_different_problems",
}
MUTANTS: Mapping[Callable[..., Right], str] = {
    CountsItsObjects: DETERMINISM["two"],
    TakesTheNextProblem: DETERMINISM["again"],
    HashesAText: DETERMINISM["process"],
    SeedsTheGlobalGenerator: DETERMINISM["global"],
    DependsOnTheGlobalGenerator: DETERMINISM["global"],
    AsksWithTheDate: DETERMINISM["clock"],
    IgnoresItsSeed: DETERMINISM["differ"],
    AsksWithOneMessage: "test_an_observation_is_text_messages_or_token_ids",
    GoesOnWithNothing: "test_an_observation_is_text_messages_or_token_ids",
    AsksWithAnIterator: "test_an_observation_is_text_messages_or_token_ids",
    GoesOnWritingToWhatItReturned: "test_an_observation_can_be_read_twice",
    ReturnsATuple: "test_a_step_is_a_step",
    ParsedIsWhatWasRead: "test_a_step_is_a_step",
    AMetricIsNotANumber: "test_a_step_is_a_step",
    RewardsNothingWithNan: "test_a_reward_is_a_finite_number",
    ReadsAnyDigits: "test_any_completion_is_answered",
    WaitsForANumber: "test_an_episode_ends",
    CountsOneTooMany: "test_every_seed_is_a_problem",
    TakesSeedsOf31Bits: "test_every_seed_is_a_problem",
    KeepsItsNumberInTheClass: "test_two_at_once_share_nothing",
    BelongsToOneThread: "test_threads_share_nothing",
    ClearsItsTurnsAtTheEnd: "test_a_reset_in_mid_episode_begins_again",
    WritesToItsOptions: "test_options_stay_as_they_were_given",
    ClosesWhatWasNotOpened: "test_it_can_be_closed_at_any_time",
}
"""Each mutant, and the promise that it breaks."""

ALSO: Mapping[Callable[..., Right], str] = {
    TakesTheNextProblem: "test_a_reset_in_mid_episode_begins_again",
    AsksWithOneMessage: "test_every_seed_is_a_problem",
    RewardsNothingWithNan: "test_any_completion_is_answered",
}
"""The promise that a mutant breaks as well. The others break one."""

BROAD = (CountsItsObjects, AsksWithAnIterator, ReturnsATuple)
"""Mutants of which hardly anything is right, so that many promises are broken."""
