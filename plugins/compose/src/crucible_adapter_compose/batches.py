"""The items of a `complete_batch` that failed, asked again one by one or together.

A batch returns an error in the place of a completion, so that one bad item does not lose the rest.
Result k was to be sampled with `seed + k`, and is when it is asked again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

from crucible_kitchen import AdapterError, Call, Completer, SamplingParams

Results = list[Any]
"""Completions, and errors in the places of others."""


def places(results: Results, wanted: Callable[[AdapterError], bool]) -> list[int]:
    """Return the places of the errors that are wanted."""
    return [k for k, r in enumerate(results) if isinstance(r, AdapterError) and wanted(r)]


def ask_again(call: Call, completer: Completer, results: Results, failed: Sequence[int]) -> Results:
    """Return the results with those of the failed places asked for again.

    Args:
        call: the call that gave the results.
        completer: whom to ask.
        results: they stay as they are.
        failed: their places, in order.
    """
    prompts, params = call.arguments["prompts"], call.arguments["params"]
    renewed = list(results)
    for run in _runs(failed, params):
        seed = None if params.seed is None else params.seed + run[0]
        try:
            answers = call.on(
                completer,
                prompts=[prompts[k // params.n] for k in run],
                params=replace(params, n=1, seed=seed),
            )
        except AdapterError as error:  # of these items alone, the others have their results
            answers = [error] * len(run)
        for k, answer in zip(run, answers, strict=True):
            renewed[k] = answer
    return renewed


def _runs(failed: Sequence[int], params: SamplingParams) -> Iterator[Sequence[int]]:
    """Cut places into those that one call can ask for: neighbours, if there is a seed."""
    if params.seed is None:
        yield failed
        return
    start = 0
    for end in range(1, len(failed) + 1):
        if end == len(failed) or failed[end] != failed[end - 1] + 1:
            yield failed[start:end]
            start = end
