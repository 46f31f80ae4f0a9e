"""A seed is a problem, always and everywhere the same one."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from contextlib import contextmanager
from unittest import mock

import numpy as np

from .elsewhere import played_elsewhere
from .fixtures import EnvironmentFixtures
from .playing import Maker, Transcript, begun, played


class Determinism(EnvironmentFixtures):
    """What depends on the seed, and what on nothing else."""

    def test_a_seed_is_the_same_problem_in_two_objects(self, made: Maker) -> None:
        """What is asked, and what follows the same completions, is equal in two objects that were
        reset with one seed: a group of samples answers one problem, and a run that is continued
        gets the problems that it would have got.

        Usually broken by a generator that is made in the constructor and not seeded by `reset`.
        """
        for seed in self.problems(made):
            for texts in self.said(made, seed):
                one, two = (played(made(), seed, texts, self.most_turns) for _ in range(2))
                assert one == two, f"seed {seed}, completions {texts}"

    def test_a_seed_is_the_same_problem_again(self, made: Maker) -> None:
        """An object that is reset with a seed that it has had before asks and answers the same,
        whatever it played between.

        Usually broken by a counter, by an iterator over problems that `reset` takes the next from,
        or by what an episode changes in a problem that is kept.
        """
        environment = made()
        seeds = self.problems(made)
        before = [self._all(environment, made, seed) for seed in seeds]
        again = [self._all(environment, made, seed) for seed in reversed(seeds)]
        assert again[::-1] == before

    def test_a_seed_is_the_same_problem_in_another_process(self, made: Maker) -> None:
        """Another process, which finds the environment by its name, gets the same: a run may be
        continued on another machine.

        Usually broken by `hash` of a text, or the order of a set, which differ from process to
        process, and by an environment that only this process can import.
        """
        plays = [
            (seed, texts) for seed in self.problems(made)[:2] for texts in self.said(made, seed)
        ]
        environment = made()
        here = [played(environment, seed, texts, self.most_turns) for seed, texts in plays]
        assert played_elsewhere(made.chosen, plays, self.most_turns) == here

    def test_global_randomness_is_left_alone(self, made: Maker) -> None:
        """Nothing depends on the generators that `random` and NumPy share with the whole program,
        and these are as they were afterwards.

        Usually broken by `random.choice`, or by `random.seed(seed)`, after which everything else
        in the program repeats itself: use `random.Random(seed)`.
        """
        found = []
        for state in (1, 2):
            with _seeded(state):
                before = _state()
                environment = made()
                found.append([self._all(environment, made, seed) for seed in self.problems(made)])
                assert _state() == before, "the state of a global generator has changed"
        assert found[0] == found[1]

    def test_the_clock_changes_nothing(self, made: Maker) -> None:
        """What is asked and rewarded is the same on another day.

        Usually broken by a prompt with the date of today, and by a generator seeded with the time.
        """
        first = [begun(made(), seed) for seed in self.problems(made)]
        later = time.time() + 400 * 24 * 3600
        with (
            mock.patch("time.time", return_value=later),
            mock.patch("time.time_ns", return_value=int(later * 1e9)),
        ):
            assert [begun(made(), seed) for seed in self.problems(made)] == first

    def test_seeds_are_different_problems(self, made: Maker) -> None:
        """Of several seeds, at least two differ in what is asked or in what follows, unless there
        is only one problem.

        Usually broken by a `reset` that does not look at its seed.
        """
        seeds = self.problems(made)
        if len(seeds) > 1:
            environment = made()
            found = [self._all(environment, made, seed) for seed in seeds]
            assert any(each != found[0] for each in found), (
                f"the seeds {', '.join(map(str, seeds))} ask and answer alike; if the completions "
                "that were tried mean nothing to the environment, add some to `completions`, or "
                "give the fixture `says`"
            )

    def _all(self, environment: object, made: Maker, seed: int) -> list[Transcript]:
        return [
            played(environment, seed, texts, self.most_turns)  # type: ignore[arg-type]
            for texts in self.said(made, seed)
        ]


def _state() -> tuple[object, ...]:
    legacy = np.random.get_state(legacy=True)
    assert isinstance(legacy, tuple)
    return (random.getstate(), legacy[1].tobytes(), *legacy[2:])


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    before, legacy = random.getstate(), np.random.get_state(legacy=True)
    random.seed(seed)
    np.random.seed(seed)
    try:
        yield
    finally:
        random.setstate(before)
        np.random.set_state(legacy)
