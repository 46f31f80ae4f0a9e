"""The canary: which of trainer and sampler has old weights, from what both say of a probe."""

from __future__ import annotations

import numpy as np
import pytest
from crucible_kitchen import FloatArray
from crucible_kitchen.workflows.sampling.canary import (
    Canary,
    NotFinite,
    Probe,
    Sighting,
    StaleWeights,
)
from hypothesis import given
from hypothesis import strategies as st

PROBE = Probe([np.arange(9)], [8])
START = -np.linspace(0.5, 4, 8, dtype=np.float32)


def moved(by: float, seed: int = 0) -> FloatArray:
    """Return the log probabilities after a movement of `by` nats on average."""
    direction = np.random.default_rng(seed).choice([-1, 1], 8)
    return (START + by * direction).astype(np.float32)


def see(canary: Canary, sampler: FloatArray, trainer: FloatArray, probe: Probe = PROBE) -> None:
    canary.check(Sighting(probe, sampler, trainer), lambda _: trainer)


def canary(tolerance: float = 0.1) -> Canary:
    return Canary(tolerance, "vllm", "torch")


def test_a_sampler_that_moves_with_the_trainer_has_its_weights() -> None:
    watch = canary()
    for step in range(5):
        see(watch, moved(0.3 * step), moved(0.3 * step))


@given(st.floats(1e-7, 1.0), st.floats(0.0, 0.03), st.integers(0, 1000))
def test_a_sampler_of_low_precision_is_never_called_stale(
    rate: float, noise: float, seed: int
) -> None:
    watch, generator = canary(), np.random.default_rng(seed)
    for step in range(20):
        error = generator.normal(0, noise, 8).astype(np.float32)
        see(watch, moved(rate * step) + error, moved(rate * step))


@pytest.mark.parametrize("rate", [1e-3, 1e-2, 1.0])
def test_a_sampler_that_keeps_the_first_weights_is_found_at_the_first_movement(rate: float) -> None:
    watch = canary()
    see(watch, START, START)
    with pytest.raises(StaleWeights, match="the completer 'vllm' is stale") as caught:
        see(watch, START, moved(rate))
    assert caught.value.details["stale"] == "sampler"


def test_movements_that_are_smaller_than_the_noise_add_up_until_they_show() -> None:
    watch = canary()
    see(watch, moved(0.01, seed=1), START)
    for steps in range(1, 40):
        see(watch, moved(0.01, seed=1), moved(0.002 * steps))
    # The trainer has now moved 8 times what the two differ by anyway.
    with pytest.raises(StaleWeights, match="the completer 'vllm' is stale"):
        see(watch, moved(0.01, seed=1), moved(0.002 * 41))


def test_a_sampler_that_misses_one_synchronisation_is_found_there() -> None:
    watch = canary()
    for step in (0, 1, 2):
        see(watch, moved(0.02 * step), moved(0.02 * step))
    with pytest.raises(StaleWeights, match="it kept old weights"):
        see(watch, moved(0.04), moved(0.06))


def test_a_trainer_that_stays_where_it_was_while_the_sampler_moves_is_stale() -> None:
    watch = canary()
    see(watch, START, START)
    with pytest.raises(StaleWeights, match="the training client 'torch' is stale") as caught:
        see(watch, moved(0.5), START)
    assert caught.value.details["stale"] == "trainer"


def test_two_that_differ_from_the_beginning_are_refused_without_blaming_one() -> None:
    with pytest.raises(StaleWeights, match=r"differ by 0\.5 nats") as caught:
        see(canary(), moved(0.5), START)
    assert "cannot be told" in str(caught.value)
    assert "workflow.sampler_tolerance = 0.1" in str(caught.value)
    assert caught.value.details["stale"] is None


def test_two_that_move_apart_are_refused_without_blaming_one() -> None:
    watch = canary()
    see(watch, START, START)
    with pytest.raises(StaleWeights, match="cannot be told"):
        see(watch, moved(0.5, seed=1), moved(0.5, seed=2))


@pytest.mark.parametrize("value", [np.nan, -np.inf])
def test_log_probabilities_that_are_not_finite_are_no_sign_of_old_weights(value: float) -> None:
    bad = np.full(8, value, np.float32)
    with pytest.raises(NotFinite, match="not finite in the completer 'vllm'") as caught:
        see(canary(), bad, START)
    assert "different weights" not in str(caught.value)
    with pytest.raises(NotFinite, match="in the training client 'torch' and the completer 'vllm'"):
        see(canary(), bad, bad)
    assert NotFinite("").no_effect


def test_updates_that_a_low_precision_swallows_are_no_sign_before_the_precision_is_seen() -> None:
    watch, uniform = canary(), np.full(8, -5, np.float32)
    for step in range(10):  # both say exactly the same at first, and the sampler has steps of 0.02
        trainer = uniform - np.float32(2e-3 * step)
        see(watch, np.round(trainer / 0.02) * np.float32(0.02), trainer)


def test_a_sampler_that_is_always_one_synchronisation_behind_is_found() -> None:
    watch, error = canary(), moved(1e-3, seed=1) - START
    for before, now in ((0.0, 0.0), (0.0, 7e-3)):
        see(watch, moved(before) + error, moved(now))
    with pytest.raises(StaleWeights, match="the completer 'vllm' is stale") as caught:
        see(watch, moved(7e-3) + error, moved(1.4e-2))
    assert caught.value.details["stale"] == "sampler"
    assert "one synchronisation behind" in str(caught.value)


def test_a_sampler_that_says_something_else_is_not_taken_for_one_that_stayed() -> None:
    watch, other = canary(), Probe([np.arange(1, 10)], [8])
    see(watch, START, START)
    see(watch, moved(0.3), moved(0.3), other)


def test_of_other_completions_it_is_not_known_which_of_the_two_is_stale() -> None:
    watch, other = canary(), Probe([np.arange(1, 10)], [8])
    see(watch, START, START)
    with pytest.raises(StaleWeights, match="cannot be told") as caught:
        see(watch, moved(0.3), START, other)  # of new weights, or of a completer without seeds
    assert caught.value.details["stale"] is None


def test_a_stale_sampler_is_not_worth_a_restart() -> None:
    assert StaleWeights("").no_effect
    assert not StaleWeights("").retryable
