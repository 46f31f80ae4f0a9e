"""What the mutants of a training client are made of.

Those with wrong numbers are made of the client in docs/examples, whose numbers are right.
"""

from __future__ import annotations

import atexit
import shutil
import tempfile
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import bigram_training_client
import numpy as np
from crucible_kitchen import AdamParams, AdapterOptions, Array, Datum, TrainingClient, hookimpl

from .. import Mutant

ZERO: dict[str, Array] = {
    "target_tokens": np.zeros(1, np.int64),
    "weights": np.zeros(1, np.float32),
}
FOLDER = tempfile.mkdtemp(prefix="mutants-")
atexit.register(shutil.rmtree, FOLDER, ignore_errors=True)
BIGRAM = {"use": bigram_training_client, "checkpoint_dir": FOLDER, "models": {"any": 40}}
NOOP = {"use": "noop", "latency_scale": 0}
SLOW = {"use": "noop", "latency_scale": 1}
"""Its operations take a while."""


class Options(AdapterOptions):
    inner: TrainingClient


class Delegate:
    """Base of the mutants: an adapter that leaves everything to `inner`."""

    Options = Options


class ChangedPass(Delegate):
    """Base of mutants that change what they are given before they pass it on."""

    def change(self, datums: Sequence[Datum]) -> list[Datum]:
        return [self.change_one(datum) for datum in datums]

    def change_one(self, datum: Datum) -> Datum:
        inputs = {
            name: self.change_input(name, values) for name, values in datum.loss_fn_inputs.items()
        }
        return Datum(datum.model_input, inputs)

    def change_input(self, name: str, values: Any) -> Any:
        return self.weights(values) if name == "weights" else values

    def weights(self, values: Any) -> Any:
        return values

    @hookimpl
    def forward_backward(
        self, opts: Options, session: Any, datums: Any, loss_fn: str, loss_fn_config: Any
    ) -> Any:
        if datums and all(isinstance(datum, Datum) for datum in datums):
            datums = self.change(datums)
        return opts.inner.forward_backward(session, datums, loss_fn, loss_fn_config)


class ChangedResult(Delegate):
    """Base of mutants that change the results that they pass on."""

    def change(self, result: Any) -> Any:
        return result

    @hookimpl
    def await_(self, opts: Options, future: Any, timeout: float | None) -> Any:
        return self.change(opts.inner.await_(future, timeout))


class ChangedStep(Delegate):
    """Base of mutants that change the arguments of a step."""

    def change(self, session: Any, rate: float, adam: AdamParams) -> tuple[float, AdamParams]:
        return rate, adam

    @hookimpl
    def optim_step(
        self, opts: Options, session: Any, learning_rate: float, adam: AdamParams
    ) -> Any:
        if session.accumulated:
            drain(session)
            learning_rate, adam = self.change(session, learning_rate, adam)
        return opts.inner.optim_step(session, learning_rate, adam)


class Delayed(Delegate):
    """Base of mutants that delay passes until the next step, and answer with `forward`."""

    def __init__(self) -> None:
        self.passes: dict[Any, list[tuple[Any, ...]]] = defaultdict(list)

    @hookimpl
    def forward_backward(
        self, opts: Options, session: Any, datums: Any, loss_fn: str, loss_fn_config: Any
    ) -> Any:
        future = opts.inner.forward(session, datums, loss_fn, loss_fn_config)
        self.passes[session].append((datums, loss_fn, loss_fn_config))
        return future

    def due(self, session: Any) -> list[tuple[Any, ...]]:
        return self.passes.pop(session, [])

    @hookimpl
    def optim_step(
        self, opts: Options, session: Any, learning_rate: float, adam: AdamParams
    ) -> Any:
        for each in self.due(session):
            opts.inner.forward_backward(session, *each)
        return opts.inner.optim_step(session, learning_rate, adam)


def replace_weights(datum: Datum, change: Callable[[Any], Any]) -> Datum:
    weights = np.asarray(change(datum.loss_fn_inputs["weights"]), np.float32)
    return Datum(datum.model_input, {**datum.loss_fn_inputs, "weights": weights})


def drain(session: bigram_training_client.Session) -> None:
    session.worker.submit(lambda: None).result()


def mutants(inner: Mapping[str, Any], *faults: tuple[Any, str]) -> list[Mutant]:
    """Return mutants of an adapter: each with the promise that finds it, without `test_`."""
    return [
        Mutant("training_client", each, f"test_{killed_by}", inner) for each, killed_by in faults
    ]
