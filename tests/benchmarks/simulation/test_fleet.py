"""The arithmetic of the simulated fleet, and that what is simulated agrees with what is known."""

from __future__ import annotations

from math import inf

import pytest
from crucible_kitchen import Unavailable

from . import formulas
from .goodput import Cluster, train
from .load import load
from .sampling import Fleet, sample
from .starting import start

MINUTE, HOUR = 60.0, 3600.0


@pytest.mark.parametrize(("mtbf", "best"), [(24 * HOUR, 117), (6 * HOUR, 57), (HOUR / 4, 9.1)])
def test_the_best_interval_is_that_of_dalys_figures_3_to_5(mtbf: float, best: float) -> None:
    found = formulas.daly(saving=5 * MINUTE, mtbf=mtbf) / MINUTE
    assert found == pytest.approx(best, abs=0.5)


def test_no_interval_near_the_best_has_a_better_goodput() -> None:
    saving, restart, mtbf = 5 * MINUTE, 10 * MINUTE, 6 * HOUR
    best = formulas.daly(saving, mtbf)
    at_best = formulas.goodput(best, saving, restart, mtbf)
    for factor in (0.8, 0.9, 1.1, 1.25):
        assert formulas.goodput(factor * best, saving, restart, mtbf) < at_best


def test_without_failures_only_saving_takes_time() -> None:
    assert formulas.goodput(9 * MINUTE, MINUTE, HOUR, inf) == 0.9
    assert formulas.goodput(9 * MINUTE, MINUTE, HOUR, 1e9) == pytest.approx(0.9, abs=1e-4)
    assert formulas.goodput_behind(9 * MINUTE, MINUTE, HOUR, inf) == 1.0


def test_ten_times_the_nodes_fail_ten_times_as_often() -> None:
    assert formulas.mtbf_of(10, HOUR) == HOUR / 10


def test_a_run_without_failures_loses_the_time_of_its_saves() -> None:
    outcome = train(Cluster(step=60, restart=600, mtbf=1e12), steps=40, save_every=10)
    assert outcome.failures == 0
    # Three saves of 75 s; the fourth, at the end, is not counted.
    assert outcome.seconds == pytest.approx(40 * 60 + 3 * 75, abs=1)


def test_a_save_behind_the_steps_costs_nothing_without_failures() -> None:
    cluster = Cluster(step=60, restart=600, mtbf=1e12)
    assert train(cluster, steps=40, save_every=10, behind=True).goodput == pytest.approx(
        1, abs=0.01
    )


@pytest.mark.slow
def test_goodput_agrees_with_dalys_formula() -> None:
    cluster = Cluster(step=120, restart=600, mtbf=2 * HOUR)
    outcome = train(cluster, steps=800, save_every=10)
    expected = formulas.goodput(1200, cluster.saving, 600, outcome.mtbf)
    assert outcome.failures > 10
    assert outcome.goodput == pytest.approx(expected, abs=0.04)


def test_a_failure_while_the_session_is_restored_ends_the_run_unless_it_is_repeated() -> None:
    cluster = Cluster(step=60, restart=20 * MINUTE, mtbf=10 * MINUTE)
    with pytest.raises(Unavailable, match="a node died"):
        train(cluster, steps=40, save_every=2, attempts=1)
    assert train(cluster, steps=40, save_every=2).failures > 3


def test_equal_seeds_give_equal_runs() -> None:
    cluster = Cluster(step=120, restart=600, mtbf=HOUR)
    one, again = (train(cluster, steps=60, save_every=10, seed=3) for _ in range(2))
    assert one.failures > 1
    assert one.seconds == pytest.approx(again.seconds, rel=1e-12)
    assert train(cluster, steps=60, save_every=10, seed=4).seconds != one.seconds


def test_a_hub_with_a_quota_is_waited_for() -> None:
    assert start(nodes=20, files=10, requests=200).seconds < 1
    late = start(nodes=20, files=10, requests=50)
    assert late.failed == 0
    assert 900 < late.seconds < 901  # the fourth window of five minutes


def test_without_repetitions_nodes_give_up_at_a_quota() -> None:
    assert start(nodes=20, files=10, requests=50, attempts=1).failed == 20


def test_slots_are_busy_where_answers_are_alike() -> None:
    found = sample(Fleet(slots=2, seconds=1.5), nodes=10, per_slot=3)
    assert found.seconds == pytest.approx(4.5)
    assert found.busy == pytest.approx(1)


def test_one_driver_bounds_the_answers_of_all_nodes() -> None:
    fleet = Fleet(slots=4, seconds=1.0)
    assert sample(fleet, nodes=20, per_slot=4, rate=10).per_second == pytest.approx(10, rel=0.05)


def test_answers_that_differ_in_length_leave_slots_idle() -> None:
    assert sample(Fleet(slots=2, seconds=1.5, spread=1.0), nodes=10, per_slot=3).busy < 0.8


def test_failed_answers_are_asked_for_again() -> None:
    found = sample(Fleet(slots=2, seconds=1.0, failure_rate=0.2), nodes=10, per_slot=3)
    assert found.seconds == pytest.approx(3)  # a refusal takes no time


def test_what_reaches_the_ports_is_in_proportion_to_the_runs() -> None:
    few, many = (load(runs, steps=2, step=12.0, save_every=2) for runs in (2, 4))
    for port in ("training_client", "metrics_store"):
        assert many.requests[port] == 2 * few.requests[port]
    assert few.busiest["metrics_store"] <= few.requests["metrics_store"]
