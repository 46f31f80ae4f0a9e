"""What an environment returns can be learned from."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from ...environments import Environment, Step
from ...environments.guarded import unfit
from .fixtures import EnvironmentFixtures
from .playing import Maker, completion, plain

HOSTILE = (
    *("", " \n", "\x00", "🙂" * 100, "\ud83d", "9" * 5000, "-0", "1e999", "nan", "inf", "0/0"),
    *("\\boxed{", "<answer>", "</answer>", "{}", "[[[[", "```python\nexit()\n```", "None"),
)
"""What a model says while it has not learned anything, too."""


class Answers(EnvironmentFixtures):
    """The types and ranges of what an environment returns."""

    def test_an_observation_is_text_messages_or_token_ids(self, made: Maker) -> None:
        """`reset` returns text, a list of messages with a role, or token ids, and so does a step
        that does not end the episode. None of them is empty.

        Usually broken by a single message in place of a list of one, by `None`, and by a prompt
        that is empty where a field of a data set is.
        """
        for seed in self.problems(made):
            environment = made()
            assert not (why := unfit(environment.reset(seed))), f"seed {seed}: reset returned {why}"
            for step in self._steps(environment, made, seed):
                if not step.done:
                    assert not (why := unfit(step.observation)), f"seed {seed}: it is {why}"

    def test_an_observation_can_be_read_twice(self, made: Maker) -> None:
        """An observation is a value, the same each time it is read, and later steps do not change
        it.

        Usually broken by a generator, and by a list of messages that the environment goes on
        appending to.
        """
        for seed in self.problems(made):
            environment = made()
            asked = environment.reset(seed)
            before = plain(asked)
            for _ in self._steps(environment, made, seed, reset=False):
                pass
            assert plain(asked) == before, f"seed {seed}"

    def test_a_step_is_a_step(self, made: Maker) -> None:
        """`step` returns a `Step` whose `done` and `parsed` are bools, and whose metrics are
        finite numbers by name.

        Usually broken by the tuple that Gymnasium returns, and by a `parsed` that is the answer
        that was found: an answer of 0 would count as unparsed.
        """
        for seed in self.problems(made):
            for step in self._steps(made(), made, seed):
                assert isinstance(step, Step), f"seed {seed}: a {type(step).__name__}"
                flags = {"done": step.done, "parsed": step.parsed}
                for name, flag in flags.items():
                    assert isinstance(flag, bool | np.bool_), f"{name} is {flag!r}"
                for metric, value in step.metrics.items():
                    assert isinstance(metric, str)
                    assert _is_finite(value), f"the metric {metric} is {value!r}"

    def test_a_reward_is_a_finite_number(self, made: Maker) -> None:
        """Every completion has a reward, a finite number.

        Usually broken by the mean of nothing, a division by the length of an empty answer, or the
        logarithm of 0: one NaN in a batch is a NaN in every weight.
        """
        for seed in self.problems(made):
            for step in self._steps(made(), made, seed):
                assert _is_finite(step.reward), f"seed {seed}: the reward is {step.reward!r}"

    def test_any_completion_is_answered(self, made: Maker) -> None:
        """A step answers any text: empty, endless digits, half a character, broken markup. What
        cannot be read has a reward like any other.

        Usually broken by `int(text)`, which refuses more than 4,300 digits, by `text.split()[0]`,
        and by `json.loads`.
        """
        environment = made()
        for seed in self.problems(made)[:2]:
            for text in HOSTILE:
                environment.reset(seed)
                step = environment.step(completion(text))
                assert _is_finite(step.reward), f"{text[:20]!r}: the reward is {step.reward!r}"

    def test_an_episode_ends(self, made: Maker) -> None:
        """An episode ends within `most_turns` completions, whatever they are.

        Usually broken by waiting for an answer that can be read, which a model that has not
        learned yet never gives.
        """
        for seed in self.problems(made):
            for texts in [*self.said(made, seed), ["", "\x00"]]:
                environment = made()
                environment.reset(seed)
                for turn in range(self.most_turns):
                    if environment.step(completion(texts[turn % len(texts)])).done:
                        break
                else:
                    raise AssertionError(
                        f"seed {seed} goes on after {self.most_turns} completions, {texts[:3]}"
                    )

    def test_every_seed_is_a_problem(self, made: Maker) -> None:
        """`size` is None, or a number of problems from 1 to 2**32; each seed below it, without it
        every seed below 2**32, can be begun. Seeds from 2**31 are those that are held out.

        Usually broken by a size that counts one too many, and by a generator that takes seeds of
        31 bits.
        """
        environment = made()
        size = getattr(environment, "size", None)
        if size is None:
            seeds = [0, 2**31 - 1, 2**31, 2**32 - 1]
        else:
            assert isinstance(size, int), f"size is {size!r}"
            assert 1 <= size <= 2**32, f"size is {size}"
            seeds = [0, size // 2, size - 1]
        for seed in seeds:
            assert not (why := unfit(environment.reset(seed))), f"seed {seed}: reset returned {why}"

    def _steps(
        self, environment: Environment, made: Maker, seed: int, *, reset: bool = True
    ) -> Iterator[Step]:
        """Yield what follows completions, of one episode after the other."""
        for texts in self.said(made, seed):
            if reset:
                environment.reset(seed)
            reset = True
            for turn in range(self.most_turns):
                step = environment.step(completion(texts[turn % len(texts)]))
                yield step
                if not isinstance(step, Step) or step.done:
                    break


def _is_finite(value: object) -> bool:
    return isinstance(value, int | float | np.number) and math.isfinite(value)
