"""How sequences are cut into pieces, and put together again."""

from __future__ import annotations

import numpy as np
from crucible_adapter_torch.passes.batches import by_row, datum_pieces, pieces, plan
from hypothesis import given
from hypothesis import strategies as st
from tiny_torch import datum

LENGTHS = st.lists(st.integers(1, 40), min_size=1, max_size=30)


def cost(lengths: list[int], groups: list[list[int]], overhead: int) -> int:
    return sum(max(lengths[row] for row in rows) * len(rows) + overhead for rows in groups)


@given(LENGTHS, st.integers(1, 100), st.none() | st.integers(1, 40))
def test_each_row_is_in_one_piece_within_the_budget(
    lengths: list[int], budget: int, steady: int | None
) -> None:
    groups = [rows.tolist() for rows in plan(np.array(lengths), budget, steady)]
    assert sorted(row for rows in groups for row in rows) == list(range(len(lengths)))
    for rows in groups:
        longest = max(lengths[row] for row in rows)
        assert len(rows) == 1 or longest * len(rows) <= budget
        assert len(rows) == 1 or steady is None or longest <= steady


@given(st.integers(1, 40), st.integers(1, 30), st.none() | st.integers(1, 40))
def test_rows_of_one_length_are_one_piece_in_order_if_they_may(
    length: int, count: int, steady: int | None
) -> None:
    groups = [rows.tolist() for rows in plan(np.full(count, length), length * count, steady)]
    alone = steady is not None and length > steady
    assert groups == ([[row] for row in range(count)] if alone else [[*range(count)]])
    if count > 1:
        assert len(plan(np.full(count, length), length * count - 1)) == 2


@given(LENGTHS, st.integers(0, 60))
def test_no_cut_of_the_sorted_rows_costs_less(lengths: list[int], overhead: int) -> None:
    found = [rows.tolist() for rows in plan(np.array(lengths), 10**6, overhead=overhead)]
    sizes = sorted(lengths, reverse=True)
    least = [0] * (len(sizes) + 1)
    for stop in range(1, len(sizes) + 1):
        least[stop] = min(
            least[start] + sizes[start] * (stop - start) + overhead for start in range(stop)
        )
    assert cost(lengths, found, overhead) == least[-1]


@given(LENGTHS, st.integers(1, 100), st.integers(0, 60))
def test_filling_each_piece_costs_no_less(lengths: list[int], budget: int, overhead: int) -> None:
    found = [rows.tolist() for rows in plan(np.array(lengths), budget, overhead=overhead)]
    order, filled = sorted(range(len(lengths)), key=lambda row: -lengths[row]), []
    while order:
        count = max(1, budget // lengths[order[0]])
        filled.append(order[:count])
        order = order[count:]
    assert cost(lengths, found, overhead) <= cost(lengths, filled, overhead)


@given(LENGTHS, st.integers(1, 100), st.integers(0, 9))
def test_values_come_back_by_row_with_zeros_where_nothing_counts(
    lengths: list[int], budget: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    weights = [rng.integers(-1, 2, length) for length in lengths]
    targets = [rng.integers(0, 99, length + 1) for length in lengths]
    datums = [datum(ids, weights=w) for ids, w in zip(targets, weights, strict=True)]
    batch = datum_pieces(datums, ["weights"], budget)
    found = by_row(batch, [piece.targets.astype(np.float32) + 1 for piece in batch])
    for ids, w, values in zip(targets, weights, found, strict=True):
        np.testing.assert_array_equal(values, np.where(w == 0, 0, ids[1:] + 1))


def test_a_caller_may_reuse_its_arrays_at_once() -> None:
    row = datum([1, 2, 3], weights=[1, 1])
    for batch in ([row], [row, datum([1, 2], weights=[1])]):
        [piece] = datum_pieces(batch, ["weights"], 4096)
        kept = piece.input_ids.copy(), piece.targets.copy(), piece.loss_inputs["weights"].copy()
        row.model_input.chunks[0].tokens[:] = 0  # type: ignore[union-attr]
        for values in row.loss_fn_inputs.values():
            values[:] = 0
        for now, before in zip(
            (piece.input_ids, piece.targets, piece.loss_inputs["weights"]), kept, strict=True
        ):
            np.testing.assert_array_equal(now, before)
        row = datum([1, 2, 3], weights=[1, 1])


def test_without_loss_inputs_every_target_counts() -> None:
    [piece] = pieces([np.array([1, 2])], [np.array([2, 3])], 4096)
    assert piece.places is None
