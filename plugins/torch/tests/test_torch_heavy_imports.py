"""Imports without garbage collection: what else of the process they leave as it was."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator

import pytest
from crucible_adapter_torch.heavy_imports import collection_paused


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    enabled, frozen = gc.isenabled(), gc.get_freeze_count()
    yield
    if not frozen:
        gc.unfreeze()
    if enabled:
        gc.enable()


class Cycle:
    def __init__(self) -> None:
        self.itself = self


def test_nothing_is_collected_meanwhile_and_again_afterwards_even_after_an_error() -> None:
    def fail() -> None:
        with collection_paused():
            assert not gc.isenabled()
            raise ImportError

    gc.enable()
    with pytest.raises(ImportError):
        fail()
    assert gc.isenabled()


def test_a_process_that_collects_nothing_stays_one() -> None:
    gc.disable()
    with collection_paused():
        pass
    assert not gc.isenabled()


def test_what_becomes_garbage_later_is_collected_as_ever() -> None:
    before = Cycle()
    with collection_paused():
        meanwhile = Cycle()
    left = [weakref.ref(each) for each in (before, meanwhile)]
    del before, meanwhile
    gc.collect()
    assert [each() for each in left] == [None, None]


def test_what_was_made_meanwhile_is_old_and_looked_at_no_more() -> None:
    gc.enable()
    with collection_paused():
        made = [[] for _ in range(1000)]  # type: ignore[var-annotated]
    young = {id(each) for each in (*gc.get_objects(0), *gc.get_objects(1))}
    assert not young.intersection(map(id, made))


def test_what_the_program_has_frozen_stays_frozen() -> None:
    gc.freeze()
    with collection_paused():
        pass
    assert gc.get_freeze_count() > 0  # not how many, since other threads may drop some meanwhile
