"""Environments with one fault each, which `EnvironmentConformance` must find."""

from __future__ import annotations

import random
import re
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import numpy as np
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


class RepeatsItsProblemsAfterAThousand(Right):
    def draw(self, seed: int) -> int:
        return super().draw(seed % 1000)


class DrawsHeldOutProblemsFromTheFirst(Right):
    def draw(self, seed: int) -> int:
        return super().draw(seed & 0x7FFFFFFF)


class RoundsItsSeed(Right):
    def draw(self, seed: int) -> int:
        return super().draw(int(np.float32(seed)))


class AnswersWithANumber(Right):
    @property
    def answer(self) -> Any:
        return self.number


class HasOneTool(Right):
    tools: ClassVar[Mapping[str, Any]] = {"type": "function", "function": {"name": "guess"}}


class HoldsNothingTogether(Right):
    held_together = 0


class ItsVersionIsItsAddress(Right):
    @property
    def version(self) -> str:
        return hex(id(self))


class GrowsWhileItIsPlayed(Right):
    size = HIGHEST

    def reset(self, seed: int) -> Observation:
        self.size += 1
        return super().reset(seed)


class FailsOnWhatWasCut(Right):
    def step(self, completion: Completion) -> Step:
        if completion.finish_reason == "length":
            raise ValueError("the completion was cut")
        return super().step(completion)


class CountsProbabilities(Right):
    def step(self, completion: Completion) -> Step:
        step = super().step(completion)
        if completion.logprobs is None:
            return step
        return _with(step, reward=float("inf") if completion.logprobs.sum() < -1 else step.reward)


class ReadsDigitsOfAnyScript(Right):
    def read(self, text: str) -> int | None:
        return int(text) if text.isdigit() and len(text) < 4 else super().read(text)


class RefusesLongAnswers(Right):
    def step(self, completion: Completion) -> Step:
        if len(completion.text) > 10_000:
            raise ValueError("the answer is too long")
        return super().step(completion)


class ReturnsTheConversation(Right):
    def reset(self, seed: int) -> Observation:
        self.heard: list[Any] = []
        return super().reset(seed)

    def step(self, completion: Completion) -> Step:
        step = super().step(completion)
        self.heard = [*self.heard, *step.observation]
        return _with(step, observation=self.heard)


class HandsOutItsMessages(Right):
    def reset(self, seed: int) -> Observation:
        asked: list[Any] = self.__dict__.setdefault("asked", [])
        if not asked:
            asked += super().reset(seed)
        super().reset(seed)
        return asked


class KeepsOneTableOfMetrics(Right):
    def step(self, completion: Completion) -> Step:
        step = super().step(completion)
        table = self.__dict__.setdefault("table", {})
        table.update(step.metrics)
        return _with(step, metrics=table)


class SharesItsConnection(Right):
    is_open: ClassVar[bool] = False

    def __init__(self, options: Options) -> None:
        super().__init__(options)
        SharesItsConnection.is_open = True

    def close(self) -> None:
        SharesItsConnection.is_open = False

    def step(self, completion: Completion) -> Step:
        if not self.is_open:
            raise RuntimeError("the connection is closed")
        return super().step(completion)


DETERMINISM = {
    "two": "test_a_seed_is_the_same_problem_in_two_objects",
    "again": "test_a_seed_is_the_same_problem_again",
    "process": "test_a_seed_is_the_same_problem_in_another_process",
    "global": "test_global_randomness_is_left_alone",
    "clock": "test_the_clock_changes_nothing",
    "differ": "test_seeds_are_different_problems",
}
VALUES = {
    "held_out": "test_problems_that_are_held_out_are_others",
    "formed": "test_what_it_says_about_itself_is_well_formed",
    "same": "test_what_it_says_about_itself_does_not_change",
    "end": "test_any_way_to_end_is_answered",
    "script": "test_a_text_of_any_script_and_length_is_answered",
    "handed": "test_what_was_handed_out_does_not_change_it",
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
    RepeatsItsProblemsAfterAThousand: VALUES["held_out"],
    DrawsHeldOutProblemsFromTheFirst: VALUES["held_out"],
    RoundsItsSeed: "test_seeds_that_are_large_are_different_problems",
    AnswersWithANumber: VALUES["formed"],
    HasOneTool: VALUES["formed"],
    HoldsNothingTogether: VALUES["formed"],
    ItsVersionIsItsAddress: VALUES["same"],
    GrowsWhileItIsPlayed: VALUES["same"],
    FailsOnWhatWasCut: VALUES["end"],
    CountsProbabilities: VALUES["end"],
    ReadsDigitsOfAnyScript: VALUES["script"],
    RefusesLongAnswers: VALUES["script"],
    ReturnsTheConversation: "test_messages_of_a_step_are_the_new_ones_alone",
    HandsOutItsMessages: VALUES["handed"],
    KeepsOneTableOfMetrics: VALUES["handed"],
    SharesItsConnection: "test_closing_one_leaves_the_others",
}
"""Each mutant, and the promise that it breaks."""

ALSO: Mapping[Callable[..., Right], set[str]] = {
    TakesTheNextProblem: {
        "test_a_reset_in_mid_episode_begins_again",
        "test_closing_one_leaves_the_others",
        VALUES["handed"],
    },
    AsksWithOneMessage: {"test_every_seed_is_a_problem"},
    RewardsNothingWithNan: {"test_any_completion_is_answered", VALUES["end"]},
    ReadsAnyDigits: {VALUES["script"]},
    TakesSeedsOf31Bits: {
        VALUES["held_out"],
        "test_seeds_that_are_large_are_different_problems",
    },
}
"""The promises that a mutant breaks as well. The others break one."""

BROAD = (CountsItsObjects, AsksWithAnIterator, ReturnsATuple)
"""Mutants of which hardly anything is right, so that many promises are broken."""
