"""Confidence intervals and pass@k of evaluations."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from crucible_kitchen.workflows.evaluation.statistics import Z, interval, pass_at_k, wilson
from hypothesis import given
from hypothesis import strategies as st


@pytest.mark.parametrize(("samples", "right", "k"), [(5, 2, 1), (5, 2, 3), (6, 1, 4), (4, 4, 2)])
def test_pass_at_k_is_the_share_of_all_choices_of_k_samples_with_a_right_one(
    samples: int, right: int, k: int
) -> None:
    drawn = [index < right for index in range(samples)]
    chosen = [any(choice) for choice in itertools.combinations(drawn, k)]
    assert pass_at_k(samples, right, k) == pytest.approx(sum(chosen) / len(chosen))


def test_pass_at_k_is_certain_once_fewer_than_k_samples_are_wrong() -> None:
    assert pass_at_k(1000, 991, 10) == 1.0
    assert pass_at_k(1000, 0, 1000) == 0.0


def test_wilsons_interval_is_that_of_the_literature() -> None:
    # 15 of 50: Newcombe 1998's method 3 gives 0.1910 to 0.4375.
    assert wilson(0.3, 50) == pytest.approx((0.1910, 0.4375), abs=1e-4)


@given(st.integers(0, 60), st.integers(1, 60))
def test_wilsons_interval_holds_the_share_and_is_never_empty(right: int, count: int) -> None:
    share = min(right, count) / count
    low, high = wilson(share, count)
    assert 0 <= low <= share + 1e-12
    assert share - 1e-12 <= high <= 1
    assert low < high


def test_a_perfect_score_of_few_problems_is_not_certain() -> None:
    low, high = interval(np.ones((20, 1)))
    assert low == pytest.approx(0.839, abs=1e-3)
    assert high == pytest.approx(1.0)


def test_rewards_that_are_not_shares_have_the_normal_interval_of_the_problems_means() -> None:
    rewards = np.array([[0.1, 0.5], [0.3, 0.3], [0.9, 0.7]])
    means = rewards.mean(axis=1)
    half = Z * means.std(ddof=1) / math.sqrt(3)
    assert interval(rewards) == pytest.approx((means.mean() - half, means.mean() + half))


def test_samples_that_all_agree_within_a_problem_count_as_one() -> None:
    once = np.array([[1.0], [0.0], [1.0], [1.0], [0.0], [1.0]])
    assert interval(np.repeat(once, 50, axis=1)) == pytest.approx(interval(once), abs=0.02)


def test_independent_samples_of_a_problem_make_the_interval_narrower() -> None:
    rewards = np.random.default_rng(0).integers(0, 2, (100, 16)).astype(float)
    low, high = interval(rewards)
    wide = interval(rewards[:, :1])
    assert high - low < 0.5 * (wide[1] - wide[0])


def test_one_problem_has_an_interval_only_as_a_share() -> None:
    assert np.isnan(interval(np.array([[0.5, 0.7]]))).all()
    low, high = interval(np.array([[1.0]]))
    assert low < 0.25
    assert high == pytest.approx(1.0)


def test_the_interval_covers_the_true_mean_about_19_times_in_20() -> None:
    random = np.random.default_rng(7)
    held = 0
    for _ in range(400):
        chances = random.beta(2, 3, 60)  # of each problem; the mean is 0.4
        low, high = interval((random.random((60, 4)) < chances[:, None]).astype(float))
        held += low <= 0.4 <= high
    assert 0.92 < held / 400 < 0.985
