"""What an environment says about itself, and what it hands out."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from typing import Any

import numpy as np

from ...environments import Environment, Step
from ...types import Completion, Usage
from ..conformance import since
from .fixtures import EnvironmentFixtures
from .playing import Maker, Transcript, begun, completion, noted, plain, played

HELD_OUT = 2**31
"""Seeds from this one on are those of held-out problems."""

OF_ANY_SCRIPT = (
    *("\u00b2", "\u2460", "\u0663", "\u00bd", "\u2167", "\u4e09", "\uff13", "\u22123", "1\u00b2"),
    *("x" * 200_000, "7" * 200_000, " " * 200_000, "(" * 200_000, "1," * 100_000),
)
"""Digits that are not from 0 to 9, and long texts."""


class Values(EnvironmentFixtures):
    """Attributes, problems that are held out, and values that stay as they are."""

    @since("1.5")
    def test_problems_that_are_held_out_are_others(self, made: Maker) -> None:
        """Where every seed is a problem, those from 2**31 on, which are never trained on, are not
        the first ones again, and neither are those after a million.

        Usually broken by `seed % n` for a generator of few bits, or for a list that is shorter:
        what is held out was trained on, and the evaluation is too good.
        """
        environment = made()
        if getattr(environment, "size", None) is not None:
            return  # then there are no others
        first = [begun(environment, seed) for seed in range(12)]
        if all(each == first[0] for each in first):
            return  # `test_seeds_are_different_problems` looks at what follows, too
        for start in (HELD_OUT, 10**6, 2**32 - 12):
            later = [begun(environment, seed) for seed in range(start, start + 12)]
            assert later != first, f"the problems from seed {start} are those from seed 0"

    @since("1.5")
    def test_seeds_that_are_large_are_different_problems(self, made: Maker) -> None:
        """Seeds that follow each other beyond 2**31 are different problems, as small ones are.

        Usually broken by a seed that becomes a float of 32 bits.
        """
        environment = made()
        if getattr(environment, "size", None) is not None:
            return
        small = [begun(environment, seed) for seed in range(12)]
        if all(each == small[0] for each in small):
            return  # `test_seeds_are_different_problems` looks at what follows, too
        large = [begun(environment, HELD_OUT + seed) for seed in range(12)]
        assert any(each != large[0] for each in large)

    @since("1.5")
    def test_what_it_says_about_itself_is_well_formed(self, made: Maker) -> None:
        """`held_together` is a number from 1, `tools` a list of JSON schemas, `version` and
        `answer` are texts; each may be missing or None.

        Usually broken by the number that is the answer, by a single schema, and by functions in
        place of their schemas.
        """
        environment: Any = made()
        for seed in self.problems(made):
            environment.reset(seed)
            answer = getattr(environment, "answer", None)
            assert answer is None or isinstance(answer, str), f"the answer is {answer!r}"
        together = getattr(environment, "held_together", None)
        assert together is None or (type(together) is int and together >= 1), (
            f"held_together is {together!r}"
        )
        version = getattr(environment, "version", None)
        assert version is None or isinstance(version, str), f"the version is {version!r}"
        tools = getattr(environment, "tools", None)
        if tools is not None:
            assert isinstance(tools, list | tuple), f"tools are a {type(tools).__name__}"
            for tool in tools:
                assert isinstance(tool, dict), f"a tool is a {type(tool).__name__}"
                json.dumps(tool)

    @since("1.5")
    def test_what_it_says_about_itself_does_not_change(self, made: Maker) -> None:
        """`size`, `held_together` and `version` are equal in two objects, and the same after
        playing: a run asks one object, and is continued with another.

        Usually broken by a size that counts what has been seen, and by an address or a time in the
        version.
        """
        names = ("size", "held_together", "version")
        environments = [made() for _ in range(7)]
        said = [[getattr(each, name, None) for name in names] for each in environments]
        assert all(each == said[0] for each in said), f"{names}: {said}"
        seed = self.problems(made)[0]
        for texts in self.said(made, seed):
            played(environments[0], seed, texts, self.most_turns)
        assert [getattr(environments[0], name, None) for name in names] == said[0]

    @since("1.5")
    def test_any_way_to_end_is_answered(self, made: Maker) -> None:
        """A completion that was cut, that was filtered, that comes with token ids, log
        probabilities, usage and reasoning, has a finite reward, and is left as it was.

        Usually broken by a reward that reads what only some servers return.
        """
        for seed in self.problems(made)[:2]:
            for [text, *_] in self.said(made, seed):
                bare = completion(text)
                ids = np.arange(len(text), dtype=np.int64)
                logprobs = -np.ones(len(text), np.float32)
                whole = replace(
                    bare,
                    tokens=ids,
                    logprobs=logprobs,
                    usage=Usage(3, len(text)),
                    reasoning="I think",
                )
                for end in ("length", "content_filter", "tool_calls"):
                    for each in (replace(bare, finish_reason=end), whole):
                        self._answered(made(), seed, each)

    @since("1.5")
    def test_a_text_of_any_script_and_length_is_answered(self, made: Maker) -> None:
        """Digits of other scripts, fractions, and a text of 200,000 characters have a reward.

        Usually broken by `int(text)` where `text.isdigit()`: "\u00b2" is a digit, and not a number;
        and by an expression that takes a square of the time.
        """
        environment = made()
        seed = self.problems(made)[0]
        for text in OF_ANY_SCRIPT:
            environment.reset(seed)
            step = environment.step(completion(text))
            assert math.isfinite(step.reward), f"{text[:20]!r}: the reward is {step.reward!r}"

    @since("1.5")
    def test_messages_of_a_step_are_the_new_ones_alone(self, made: Maker) -> None:
        """A step returns what follows the completion: not the conversation so far, and more of it
        each time.

        Usually broken by returning the list that the environment adds to: a model reads its first
        turn again in every turn, and a context is soon full.
        """
        for seed in self.problems(made):
            for texts in self.said(made, seed):
                environment = made()
                environment.reset(seed)
                before: Any = None
                grown = 0
                for turn in range(self.most_turns):
                    step = environment.step(completion(texts[turn % len(texts)]))
                    if step.done or isinstance(step.observation, str):
                        break
                    now = plain(step.observation)
                    grown += before is not None and now[: len(before)] == before != now
                    assert grown < 2, f"seed {seed}: each turn begins with the one before"
                    before = now

    @since("1.5")
    def test_what_was_handed_out_does_not_change_it(self, made: Maker) -> None:
        """A caller may add to the messages that it was given, and to the metrics: the next `reset`
        is what it was. Later steps do not change earlier ones.

        Usually broken by a list, or a table, that the environment keeps and hands out each time.
        """
        for seed in self.problems(made):
            for texts in self.said(made, seed):
                environment = made()
                before = played(environment, seed, texts, self.most_turns)
                steps = self._spoiled(environment, seed, texts)
                for _ in range(2):
                    assert played(environment, seed, texts, self.most_turns) == before
                assert played(made(), seed, texts, self.most_turns) == before
                assert [noted(step) for step, _ in steps] == [old for _, old in steps]

    @since("1.5")
    def test_closing_one_leaves_the_others(self, made: Maker) -> None:
        """After one object was closed, others play on, and new ones can be made.

        Usually broken by closing what all of them share.
        """
        seed = self.problems(made)[0]
        texts = self.said(made, seed)[0]
        other = made()
        before = played(other, seed, texts, self.most_turns)
        closed = made.without_closing()
        begun(closed, seed)
        if callable(close := getattr(closed, "close", None)):
            close()
        assert played(other, seed, texts, self.most_turns) == before
        assert played(made(), seed, texts, self.most_turns) == before

    def _answered(self, environment: Environment, seed: int, said: Completion) -> None:
        environment.reset(seed)
        before = (said.text, said.finish_reason, said.reasoning)
        step = environment.step(said)
        assert math.isfinite(step.reward), f"{said}: the reward is {step.reward!r}"
        assert (said.text, said.finish_reason, said.reasoning) == before, "it was changed"

    def _spoiled(
        self, environment: Environment, seed: int, texts: list[str]
    ) -> list[tuple[Step, Transcript]]:
        """Play a problem, and change what was asked; return the steps, each with what it was."""
        asked: Any = environment.reset(seed)
        steps: list[tuple[Step, Transcript]] = []
        for turn in range(self.most_turns):
            step = environment.step(completion(texts[turn % len(texts)]))
            steps.append((step, noted(step)))
            if step.done:
                break
        if isinstance(asked, list) and plain(asked) and isinstance(asked[0], dict):
            asked.append({"role": "assistant", "content": "added by the caller"})
        return steps
