"""`EnvironmentConformance` has teeth: it finds the fault of every mutant, and no other."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from crucible_kitchen.settings import in_code
from crucible_kitchen.testing import EnvironmentConformance, suite_of
from crucible_kitchen.testing.check import check
from mutants.environment import ALSO, BROAD, DETERMINISM, MUTANTS, Right

pytestmark = pytest.mark.slow

RARELY = {DETERMINISM["process"], "test_threads_share_nothing"}
"""Promises that take seconds, or that a mutant of something else breaks on some days only."""


def failed(environment: Callable[..., Right], only: set[str]) -> set[str]:
    card = check(in_code({"workflow": {"environment": {"use": environment}}}), None, only=only)
    assert {verdict.test for verdict in card.verdicts} == only
    return {verdict.test for verdict in card.verdicts if verdict.outcome != "passed"}


def test_the_environment_that_the_mutants_are_made_of_keeps_every_promise() -> None:
    assert failed(Right, set(suite_of("environment").promises)) == set()


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.__name__)
def test_the_kit_kills_the_mutant_by_the_promise_that_it_breaks(
    mutant: Callable[..., Right],
) -> None:
    promise = MUTANTS[mutant]
    only = set(EnvironmentConformance.promises) - RARELY | {promise}
    if mutant in BROAD:
        assert promise in failed(mutant, only)
    else:
        assert failed(mutant, only) == {promise} | ALSO.get(mutant, set())


def test_every_promise_has_a_mutant_that_breaks_it() -> None:
    assert set(MUTANTS.values()) == set(EnvironmentConformance.promises)
