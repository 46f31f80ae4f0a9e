"""Faults in what a pass returns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from crucible_kitchen import Datum, ForwardBackwardResult, ModelInput, hookimpl

from .bases import (
    BIGRAM,
    NOOP,
    ChangedPass,
    ChangedResult,
    Delegate,
    Options,
    mutants,
    replace_weights,
)


class ReportsAMean(ChangedResult):
    def change(self, result: Any) -> Any:
        if isinstance(result, ForwardBackwardResult):
            tokens = sum(len(output["logprobs"]) for output in result.outputs)
            return replace(result, loss=result.loss / tokens)
        return result


class LosesTheFirstLogprob(ChangedResult):
    def change(self, result: Any) -> Any:
        if isinstance(result, ForwardBackwardResult):
            cut = [{"logprobs": output["logprobs"][1:]} for output in result.outputs]
            return replace(result, outputs=cut)
        return result


class ReturnsFloat64(ChangedResult):
    def change(self, result: Any) -> Any:
        if isinstance(result, ForwardBackwardResult):
            wide = [{"logprobs": o["logprobs"].astype(np.float64)} for o in result.outputs]
            return replace(result, outputs=wide)
        return result


class SortsByLength(Delegate):
    @hookimpl
    def forward(
        self, opts: Options, session: Any, datums: Any, loss_fn: str, loss_fn_config: Any
    ) -> Any:
        ordered = sorted(datums, key=lambda datum: datum.model_input.length)
        return opts.inner.forward(session, ordered, loss_fn, loss_fn_config)


class TrainsOnTheLastPiece(ChangedPass):
    def change(self, datums: Sequence[Datum]) -> list[Datum]:
        early = [replace_weights(datum, np.zeros_like) for datum in datums[:-100]]
        return [*early, *datums[-100:]]


class PadsOnTheLeft(Delegate):
    """Noop's logprobs depend on the place of a token."""

    def __init__(self) -> None:
        self.lengths: dict[int, list[int]] = {}
        self.kept: list[Any] = []

    @hookimpl
    def forward(
        self, opts: Options, session: Any, datums: Any, loss_fn: str, loss_fn_config: Any
    ) -> Any:
        lengths = [datum.model_input.length for datum in datums]
        padded = []
        for datum in datums:
            pad = max(lengths) - datum.model_input.length
            inputs = {k: np.pad(v, (pad, 0)) for k, v in datum.loss_fn_inputs.items()}
            tokens = [0] * pad + datum.model_input.to_ints()
            padded.append(Datum(ModelInput.from_ints(tokens), inputs))
        future = opts.inner.forward(session, padded, loss_fn, loss_fn_config)
        self.lengths[id(future)] = lengths
        self.kept.append(future)
        return future

    @hookimpl
    def await_(self, opts: Options, future: Any, timeout: float | None) -> Any:
        result: Any = opts.inner.await_(future, timeout)
        if id(future) not in self.lengths:
            return result
        pairs = zip(result.outputs, self.lengths[id(future)], strict=True)
        return replace(result, outputs=[{"logprobs": o["logprobs"][-n:]} for o, n in pairs])


class LeavesOldMemory(Delegate):
    """Where a target does not count, its logprob is whatever lay there."""

    def __init__(self) -> None:
        self.weights: dict[int, list[Any]] = {}
        self.kept: list[Any] = []

    def remember(self, future: Any, datums: Any) -> Any:
        weights = [datum.loss_fn_inputs.get("weights") for datum in datums]
        self.weights[id(future)] = weights
        self.kept.append(future)
        return future

    @hookimpl
    def forward(
        self, opts: Options, session: Any, datums: Any, loss_fn: str, loss_fn_config: Any
    ) -> Any:
        return self.remember(opts.inner.forward(session, datums, loss_fn, loss_fn_config), datums)

    @hookimpl
    def forward_backward(
        self, opts: Options, session: Any, datums: Any, loss_fn: str, loss_fn_config: Any
    ) -> Any:
        return self.remember(
            opts.inner.forward_backward(session, datums, loss_fn, loss_fn_config), datums
        )

    @hookimpl
    def await_(self, opts: Options, future: Any, timeout: float | None) -> Any:
        result: Any = opts.inner.await_(future, timeout)
        if id(future) not in self.weights:
            return result
        outputs = [
            output
            if weights is None
            else {"logprobs": np.where(weights == 0, np.float32(-1.5), output["logprobs"])}
            for output, weights in zip(result.outputs, self.weights[id(future)], strict=True)
        ]
        return replace(result, outputs=outputs)


class TakesTheFirstChunk(ChangedPass):
    @hookimpl
    def forward(
        self, opts: Options, session: Any, datums: Any, loss_fn: str, loss_fn_config: Any
    ) -> Any:
        read = []
        for datum in datums:
            first = datum.model_input.chunks[0]
            rest = datum.model_input.length - first.length
            tokens = [*ModelInput((first,)).to_ints(), *[0] * rest]
            read.append(replace(datum, model_input=ModelInput.from_ints(tokens)))
        return opts.inner.forward(session, read, loss_fn, loss_fn_config)


MUTANTS = [
    *mutants(
        BIGRAM,
        (ReportsAMean(), "the_loss_is_the_sum_over_tokens"),
        (LosesTheFirstLogprob(), "logprobs_are_one_float32_for_each_target"),
        (ReturnsFloat64(), "logprobs_are_one_float32_for_each_target"),
        (SortsByLength(), "how_a_batch_is_cut_is_invisible"),
        (TrainsOnTheLastPiece(), "a_large_batch_is_one_batch"),
        (LeavesOldMemory(), "a_logprob_that_does_not_count_is_right_or_zero"),
        (TakesTheFirstChunk(), "tokens_in_several_chunks_are_one_text"),
    ),
    *mutants(
        NOOP,
        (PadsOnTheLeft(), "a_logprob_does_not_depend_on_what_follows"),
    ),
]
