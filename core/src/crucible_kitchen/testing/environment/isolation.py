"""Environments do not disturb each other, and an episode does not disturb the next."""

from __future__ import annotations

import threading

from ...environments import Environment
from .fixtures import EnvironmentFixtures
from .playing import Maker, Transcript, begun, completion, noted, plain, played


class Isolation(EnvironmentFixtures):
    """What an object keeps to itself."""

    def test_two_at_once_share_nothing(self, made: Maker) -> None:
        """Two objects that are played by turns answer as they do alone: the samples of a batch are
        played at the same time.

        Usually broken by state in the class or the module, such as `self.messages = []` in the
        body of the class.
        """
        seeds = self.problems(made)
        for one, two in zip(seeds, [*seeds[1:], seeds[0]], strict=True):
            for said in self.said(made, one):
                alone = [played(made(), seed, said, self.most_turns) for seed in (one, two)]
                found = self._by_turns([made(), made()], [one, two], said)
                assert found == alone, f"seeds {one} and {two}, completions {said}"

    def test_threads_share_nothing(self, made: Maker) -> None:
        """Objects that are played in several threads answer as they do alone.

        Usually broken by a cache of the module that is not locked, and by a library that has one
        current state.
        """
        seeds = self.problems(made)
        alone = [self._first(made(), made, seed) for seed in seeds]
        found: dict[int, list[Transcript] | BaseException] = {}
        start = threading.Barrier(len(seeds))
        makes = [made() for _ in seeds]

        def play(place: int) -> None:
            start.wait()
            try:
                found[place] = self._first(makes[place], made, seeds[place])
            except Exception as error:
                found[place] = error

        threads = [threading.Thread(target=play, args=(place,)) for place in range(len(seeds))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert [found[place] for place in range(len(seeds))] == alone

    def test_a_reset_in_mid_episode_begins_again(self, made: Maker) -> None:
        """`reset` leaves an unfinished episode behind: what follows is as in a new object.

        Usually broken by a list of messages, a score or a counter of turns that only the end of an
        episode clears.
        """
        seeds = self.problems(made)
        for left, seed in zip(seeds, [*seeds[1:], seeds[0]], strict=True):
            for texts in self.said(made, seed):
                environment = made()
                environment.reset(left)
                environment.step(completion(self.completions[0]))
                environment.reset(seed)
                environment.reset(left)
                found = played(environment, seed, texts, self.most_turns)
                assert found == played(made(), seed, texts, self.most_turns), f"seed {seed}"

    def test_options_stay_as_they_were_given(self, made: Maker) -> None:
        """Nothing that is played changes the options, which many objects share.

        Usually broken by taking the next item from a list of the options with `pop`, and by a
        table that is filled in.
        """
        before = plain(made.chosen.options.model_dump(mode="json"))
        environment = made()
        for seed in self.problems(made):
            for texts in self.said(made, seed):
                played(environment, seed, texts, self.most_turns)
        assert plain(made.chosen.options.model_dump(mode="json")) == before

    def test_it_can_be_closed_at_any_time(self, made: Maker) -> None:
        """`close`, where there is one, works before the first problem and in the middle of one.

        Usually broken by closing what `reset` would have opened: a run that is interrupted would
        end with this error, and not with its own.
        """
        for begin in (False, True):
            environment = made.without_closing()
            if begin:
                begun(environment, self.problems(made)[0])
            if callable(close := getattr(environment, "close", None)):
                close()

    def _first(self, environment: Environment, made: Maker, seed: int) -> list[Transcript]:
        return [
            played(environment, seed, texts, self.most_turns) for texts in self.said(made, seed)
        ]

    def _by_turns(
        self, environments: list[Environment], seeds: list[int], said: list[str]
    ) -> list[Transcript]:
        transcripts = [begun(each, seed) for each, seed in zip(environments, seeds, strict=True)]
        going = [0, 1]
        for turn in range(self.most_turns):
            for place in list(going):
                step = environments[place].step(completion(said[turn % len(said)]))
                transcripts[place].append(noted(step))
                if step.done:
                    going.remove(place)
        return transcripts
