"""A batch cut between ranks by tokens, and their results put together again.

The cut is a function of the lengths alone, so a resumed run repeats it.
"""

from __future__ import annotations

import heapq
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from crucible_kitchen import FloatArray, ForwardBackwardResult
from numpy.typing import NDArray

LOGPROBS = "logprobs"


def cut(lengths: Sequence[int], ranks: int) -> list[list[int]]:
    """Give each rank about as many tokens: the longest datum first, to who has the fewest so far.

    Args:
        lengths: tokens of each datum.
        ranks: how many there are.

    Returns:
        The datums of each rank, ascending; none for some, if there are fewer datums than ranks.
    """
    parts: list[list[int]] = [[] for _ in range(ranks)]
    loads = [(0, rank) for rank in range(ranks)]  # a heap as it is
    for index in sorted(range(len(lengths)), key=lambda index: (-lengths[index], index)):
        load, rank = loads[0]
        parts[rank].append(index)
        heapq.heapreplace(loads, (load + lengths[index], rank))
    return [sorted(part) for part in parts]


@dataclass(frozen=True, slots=True, eq=False)
class Packed:
    """A rank's result as it travels: one array rather than one for each datum.

    Args:
        loss: see `ForwardBackwardResult`.
        metrics: see `ForwardBackwardResult`.
        lengths: int64 `(B,)`, the targets of each of the rank's datums.
        logprobs: float32 `(sum(lengths),)`.
    """

    loss: float
    metrics: Mapping[str, float]
    lengths: NDArray[np.int64]
    logprobs: FloatArray


def pack(result: ForwardBackwardResult) -> Packed:
    """Pack what a rank returns."""
    rows = [output[LOGPROBS] for output in result.outputs]
    return Packed(
        result.loss,
        result.metrics,
        np.array([len(row) for row in rows], np.int64),
        np.concatenate([*rows, np.zeros(0, np.float32)], dtype=np.float32),
    )


def join(parts: Sequence[Sequence[int]], results: Sequence[Packed]) -> ForwardBackwardResult:
    """Put the results of the ranks together, in the order of the datums.

    Args:
        parts: what `cut` returned.
        results: of each rank. Losses and metrics are added up.
    """
    outputs: list[Mapping[str, FloatArray]] = [{}] * sum(map(len, parts))
    metrics: dict[str, float] = {}
    for part, result in zip(parts, results, strict=True):
        # A copy, which a caller may change, and which keeps nothing in Ray's memory.
        rows = np.split(result.logprobs.copy(), np.cumsum(result.lengths)[:-1])
        for index, row in zip(part, rows, strict=False):
            outputs[index] = {LOGPROBS: row}
        for name, value in result.metrics.items():
            metrics[name] = metrics.get(name, 0.0) + value
    return ForwardBackwardResult(sum(r.loss for r in results), outputs, metrics)
