"""A batch is cut by tokens, the same way each time, and results come back in its order."""

from __future__ import annotations

import random

import numpy as np
import pytest
from crucible_adapter_ray.training import partition
from crucible_kitchen import ForwardBackwardResult


def test_each_rank_gets_about_as_many_tokens_though_not_as_many_datums() -> None:
    assert partition.cut([100, 10, 10, 10, 10, 10, 10, 10, 10, 10, 10], 2) == [
        [0],
        [1, 2, 3, 4, 5, 6, 7, 8, 9, 10],
    ]


@pytest.mark.parametrize("ranks", [1, 2, 3, 7])
def test_every_datum_goes_to_one_rank_and_loads_differ_by_a_datum_at_most(ranks: int) -> None:
    draw = random.Random(ranks)
    lengths = [draw.randrange(1, 200) for _ in range(40)]
    parts = partition.cut(lengths, ranks)
    assert sorted(index for part in parts for index in part) == [*range(40)]
    assert all(part == sorted(part) for part in parts)
    loads = [sum(lengths[index] for index in part) for part in parts]
    assert max(loads) - min(loads) <= max(lengths)


def test_ranks_without_a_datum_have_an_empty_part() -> None:
    assert partition.cut([5], 3) == [[0], [], []]


def test_one_rank_has_the_batch_as_it_is() -> None:
    assert partition.cut([3, 9, 1, 9], 1) == [[0, 1, 2, 3]]


def test_results_come_back_in_the_order_of_the_datums() -> None:
    lengths = [3, 5, 1, 4]
    parts = partition.cut(lengths, 3)
    results = [
        partition.pack(
            ForwardBackwardResult(
                loss=1.5 + rank,
                outputs=[
                    {"logprobs": np.full(lengths[index], index, np.float32)} for index in part
                ],
                metrics={"seen": float(len(part))},
            )
        )
        for rank, part in enumerate(parts)
    ]
    joined = partition.join(parts, results)
    assert joined.loss == 1.5 + 2.5 + 3.5
    assert joined.metrics == {"seen": 4.0}
    for index, output in enumerate(joined.outputs):
        assert output["logprobs"].dtype == np.float32
        assert output["logprobs"].tolist() == [index] * lengths[index]


def test_a_rank_without_a_datum_adds_nothing() -> None:
    parts = partition.cut([2], 2)
    one = ForwardBackwardResult(loss=3.0, outputs=[{"logprobs": np.zeros(2, np.float32)}])
    none = ForwardBackwardResult(loss=0.0, outputs=[])
    joined = partition.join(parts, [partition.pack(one), partition.pack(none)])
    assert (joined.loss, len(joined.outputs)) == (3.0, 1)


def test_what_a_caller_gets_may_be_changed() -> None:
    read_only = np.zeros(2, np.float32)
    read_only.flags.writeable = False  # as what comes out of Ray's memory is
    packed = partition.Packed(0.0, {}, np.array([2]), read_only)
    partition.join([[0]], [packed]).outputs[0]["logprobs"][0] = 1
