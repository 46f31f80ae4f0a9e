"""Cutting work into parts, one for each actor."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from itertools import accumulate

from crucible_kitchen import ModelInput


def parts(costs: Sequence[int], count: int) -> list[range]:
    """Cut a list into contiguous parts of similar cost: a function of the arguments alone.

    Args:
        costs: of each item, at least 1.
        count: the most parts.

    Returns:
        The indices of each part, in order; no part is empty.
    """
    if not costs:
        return []
    ends = [*accumulate(costs)]
    # An item belongs to the part that its middle lies in.
    places = [
        (2 * end - cost) * count // (2 * ends[-1]) for end, cost in zip(ends, costs, strict=True)
    ]
    starts = [i for i, place in enumerate(places) if i == 0 or place != places[i - 1]]
    return [range(*pair) for pair in zip(starts, [*starts[1:], len(costs)], strict=True)]


def size(prompt: object) -> int:
    """Return about how much there is to read in a prompt: tokens, or characters of messages. At
    least 1, and 1 for what is not a prompt, which an actor refuses.
    """
    if isinstance(prompt, ModelInput):
        return max(prompt.length, 1)
    if not isinstance(prompt, Collection):
        return 1
    if isinstance(next(iter(prompt), None), Mapping):
        messages = [each for each in prompt if isinstance(each, Mapping)]
        return max(sum(len(str(each.get("content"))) for each in messages), 1)
    return max(len(prompt), 1)
