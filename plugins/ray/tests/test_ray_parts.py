"""A batch is cut into a part for each actor: all of it, in order, and evenly."""

from __future__ import annotations

import numpy as np
from crucible_adapter_ray.sampling.parts import parts, size
from crucible_kitchen import ModelInput
from hypothesis import given
from hypothesis import strategies as st

COSTS = st.lists(st.integers(1, 50), max_size=40)
COUNTS = st.integers(1, 8)


@given(COSTS, COUNTS)
def test_parts_hold_every_item_once_and_in_order(costs: list[int], count: int) -> None:
    assert [i for part in parts(costs, count) for i in part] == [*range(len(costs))]


@given(COSTS, COUNTS)
def test_there_are_at_most_as_many_parts_as_asked_for_and_none_is_empty(
    costs: list[int], count: int
) -> None:
    cut = parts(costs, count)
    assert len(cut) <= count
    assert all(cut)


@given(COSTS.filter(bool), COUNTS)
def test_no_part_costs_more_than_its_share_and_one_item(costs: list[int], count: int) -> None:
    share = sum(costs) / count
    for part in parts(costs, count):
        assert sum(costs[i] for i in part) <= share + max(costs)


@given(st.integers(1, 40), COUNTS)
def test_items_of_equal_cost_are_cut_into_parts_that_differ_by_one_item(
    items: int, count: int
) -> None:
    lengths = [len(part) for part in parts([1] * items, count)]
    assert max(lengths) - min(lengths) <= 1
    assert len(lengths) == min(items, count)


def test_a_prompt_is_as_large_as_what_there_is_to_read() -> None:
    assert size([1, 2, 3]) == 3
    assert size(np.arange(5)) == 5
    assert size(ModelInput.from_ints([1, 2, 3, 4])) == 4
    assert size([{"role": "user", "content": "seven.."}]) == 7
    assert size([]) == 1
    assert size(None) == 1
