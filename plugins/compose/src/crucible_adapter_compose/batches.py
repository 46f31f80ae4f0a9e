"""The items of a `complete_batch` that failed, asked for again.

A batch returns an error in the place of a completion, so that one bad item does not lose the rest.
Result k is sampled with `seed + k`, also when it is asked for again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any, TypeAlias

from crucible_kitchen import AdapterError, Call, Completer, SamplingParams

Results: TypeAlias = list[Any]
"""Completions, and an error in the place of each that failed."""


def places(results: Results, wanted: Callable[[AdapterError], bool]) -> list[int]:
    """Return the indices of the errors for which `wanted` is true."""
    return [k for k, r in enumerate(results) if isinstance(r, AdapterError) and wanted(r)]


def ask_again(call: Call, completer: Completer, results: Results, failed: Sequence[int]) -> Results:
    """Return the results with the failed ones replaced by new answers.

    Args:
        call: the call that returned the results.
        completer: where to ask again.
        results: not changed.
        failed: the indices of the failed results, ascending.
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
        except AdapterError as error:  # concerns these items alone
            answers = [error] * len(run)
        for k, answer in zip(run, answers, strict=True):
            renewed[k] = answer
    return renewed


def _runs(failed: Sequence[int], params: SamplingParams) -> Iterator[Sequence[int]]:
    """Split indices into groups that one call can ask for: consecutive ones, if there is a seed."""
    if params.seed is None:
        yield failed
        return
    start = 0
    for end in range(1, len(failed) + 1):
        if end == len(failed) or failed[end] != failed[end - 1] + 1:
            yield failed[start:end]
            start = end
