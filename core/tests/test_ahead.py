"""Sampling ahead of the step that learns, at most so far."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import closing

import pytest
from crucible_kitchen.workflows.batches import Shuffled
from crucible_kitchen.workflows.episodes.ahead import Ahead

STEPS = 12


class Sampling:
    """Weights that have a version for each synchronisation, and a record of what they sampled."""

    def __init__(self, ahead: int, gate: threading.Event | None = None) -> None:
        self.gate, self.versions = gate, 0
        self.log: list[tuple[int, int]] = []
        self.ahead = Ahead(Shuffled(range(100), 4, seed=0), self.work, ahead, STEPS)

    def work(self, items: Sequence[int], step: int, model: str) -> tuple[list[int], int]:
        if self.gate is not None and threading.current_thread() is not threading.main_thread():
            assert self.gate.wait(30)
        self.log.append((step, int(model)))
        return list(items), int(model)

    def take(self, step: int) -> tuple[tuple[list[int], int], int]:
        def synchronise() -> str:
            self.versions = step
            return str(step)

        return self.ahead.take(batch(step), step, synchronise)


def batch(step: int) -> list[int]:
    [(_, _, items)] = Shuffled(range(100), 4, seed=0).between(step, step + 1)
    return items


@pytest.fixture(params=[0, 1, 3])
def sampling(request: pytest.FixtureRequest) -> Iterator[Sampling]:
    made = Sampling(request.param)
    with closing(made.ahead):
        yield made


def test_each_step_gets_its_own_batch_whatever_was_sampled_ahead(sampling: Sampling) -> None:
    for step in range(STEPS):
        (items, _), _ = sampling.take(step)
        assert items == batch(step)


@pytest.mark.parametrize("ahead", [0, 1, 2, 5])
def test_weights_are_never_older_than_allowed_and_their_age_is_reported(ahead: int) -> None:
    sampling = Sampling(ahead)
    with closing(sampling.ahead):
        ages = []
        for step in range(STEPS):
            (_, version), age = sampling.take(step)
            assert age == step - version
            ages.append(age)
    assert ages[0] == 0
    assert max(ages) <= ahead


def test_one_step_ahead_the_weights_are_one_step_old_whatever_the_timing() -> None:
    sampling = Sampling(1)
    with closing(sampling.ahead):
        assert [sampling.take(step)[1] for step in range(5)] == [0, 1, 1, 1, 1]


def test_the_next_batch_is_sampled_while_the_step_is_trained_on() -> None:
    gate = threading.Event()
    sampling = Sampling(1, gate)
    with closing(sampling.ahead):
        sampling.take(0)  # returns although the thread cannot sample yet
        assert sampling.log == [(0, 0)]
        gate.set()
        sampling.take(1)
    assert sampling.log[1] == (1, 0)


def test_nothing_is_sampled_beyond_the_end_of_the_run(sampling: Sampling) -> None:
    for step in range(STEPS):
        sampling.take(step)
    sampling.ahead.wait()
    assert sorted(step for step, _ in sampling.log) == list(range(STEPS))


def test_what_was_sampled_ahead_is_dropped_where_a_run_goes_back(sampling: Sampling) -> None:
    for step in range(4):
        sampling.take(step)
    sampling.ahead.wait()
    sampling.log.clear()
    for step in range(1, 7):
        (items, version), _ = sampling.take(step)
        assert items == batch(step)
        assert (step, version) in sampling.log


def test_an_error_of_the_thread_is_raised_by_the_step_that_needs_the_batch() -> None:
    class Broken(Sampling):
        def work(self, items: Sequence[int], step: int, model: str) -> tuple[list[int], int]:
            if step == 1:
                raise RuntimeError("the server is away")
            return super().work(items, step, model)

    sampling = Broken(1)
    with closing(sampling.ahead):
        sampling.take(0)
        with pytest.raises(RuntimeError, match="away"):
            sampling.take(1)
        assert sampling.take(1 + 1)[0][0] == batch(2)
