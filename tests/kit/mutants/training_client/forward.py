"""Faults in evaluation."""

from __future__ import annotations

from typing import Any

import numpy as np
from crucible_kitchen import Datum, hookimpl

from .bases import BIGRAM, Delegate, Options, mutants


class ForwardLeavesAGradient(Delegate):
    @hookimpl
    def forward(
        self, opts: Options, session: Any, datums: Any, loss_fn: str, loss_fn_config: Any
    ) -> Any:
        return opts.inner.forward_backward(session, datums, loss_fn, loss_fn_config)


class MissingWeightsAreZeros(Delegate):
    @hookimpl
    def forward(
        self, opts: Options, session: Any, datums: Any, loss_fn: str, loss_fn_config: Any
    ) -> Any:
        filled = []
        for datum in datums:
            weights = {"weights": np.zeros(datum.model_input.length, np.float32)}
            filled.append(Datum(datum.model_input, {**weights, **datum.loss_fn_inputs}))
        return opts.inner.forward(session, filled, loss_fn, loss_fn_config)


MUTANTS = mutants(
    BIGRAM,
    (ForwardLeavesAGradient(), "forward_leaves_no_trace"),
    (MissingWeightsAreZeros(), "missing_weights_are_ones_in_forward"),
)
