"""The conformance kit has teeth: it finds the fault of every mutant."""

from __future__ import annotations

import gc
import importlib.util
from collections import ChainMap
from collections.abc import Iterator
from typing import Any

import hypothesis
import pytest
from crucible_kitchen import PORTS
from crucible_kitchen.settings import Settings, in_code
from crucible_kitchen.testing import LEVEL, Conformance
from crucible_kitchen.testing.check import check
from mutants import Mutant

pytestmark = pytest.mark.slow

WITH_MUTANTS = [port for port in PORTS if importlib.util.find_spec(f"mutants.{port}")]
FURTHER = ("blob_store_files", "dataset_store_values", "hub_client_trees", "processes")
MUTANTS: list[Mutant] = [
    mutant
    for module in (*WITH_MUTANTS, *FURTHER)
    for mutant in importlib.import_module(f"mutants.{module}").MUTANTS
]

KILLED: set[str] = set()


@pytest.fixture(scope="module", autouse=True)
def _little_garbage() -> Iterator[None]:
    """Exempt all that exists from collection: every run of pytest collects at its end, five times,
    which took a third of the time.
    """
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture(autouse=True)
def _without_shrinking(monkeypatch: pytest.MonkeyPatch) -> None:
    """That an example fails is enough; the smallest that does takes minutes to find."""
    whole = Conformance.hypothesis_settings.__func__  # type: ignore[attr-defined]
    phases = (hypothesis.Phase.explicit, hypothesis.Phase.generate)

    def without(cls: type[Conformance], /, **others: Any) -> hypothesis.settings:
        return hypothesis.settings(whole(cls, **others), phases=phases)

    monkeypatch.setattr(Conformance, "hypothesis_settings", classmethod(without))


def settings(port: str, adapter: Any) -> Settings:
    return in_code({"adapters": {port: adapter}})


@pytest.mark.parametrize("mutant", MUTANTS, ids=str)
def test_the_kit_kills_the_mutant(mutant: Mutant) -> None:
    adapter = {"use": mutant.adapter, "inner": dict(mutant.inner)}
    port = PORTS[mutant.port]
    card = check(
        settings(mutant.port, adapter),
        port,
        fixtures=mutant.fixtures,
        only=[mutant.killed_by],
        fail_fast=True,
        level=LEVEL,
    )
    [verdict] = card.verdicts
    assert verdict.outcome == "failed", verdict.reason
    KILLED.add(str(mutant))


@pytest.mark.parametrize("port", WITH_MUTANTS)
def test_the_kit_passes_what_the_mutants_were_made_of(port: str) -> None:
    mine = [mutant for mutant in MUTANTS if mutant.port == port]
    for inner in {str(m.inner): m.inner for m in mine}.values():
        promises = {m.killed_by for m in mine if m.inner == inner}
        fixtures = dict(ChainMap(*(dict(m.fixtures) for m in mine if m.inner == inner)))
        card = check(
            settings(port, dict(inner)),
            PORTS[port],
            fixtures=fixtures,
            only=promises,
            level=LEVEL,
        )
        assert {v.test for v in card.verdicts} == promises
        assert [v for v in card.verdicts if v.outcome != "passed"] == []


@pytest.mark.parametrize("port", WITH_MUTANTS)
def test_each_port_has_at_least_ten_mutants(port: str) -> None:
    assert len({str(mutant) for mutant in MUTANTS if mutant.port == port}) >= 10


def test_the_kit_kills_all_of_them(
    request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str]
) -> None:
    """Says how many there are; the tests above say which survives."""
    if len(KILLED) + request.session.testsfailed < len(MUTANTS):
        pytest.skip("not all of the tests above were run")
    with capsys.disabled():
        print(f"\n{len(KILLED)} of {len(MUTANTS)} mutants killed")
    assert {str(mutant) for mutant in MUTANTS} == KILLED
