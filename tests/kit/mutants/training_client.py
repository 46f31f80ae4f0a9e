"""Training clients with one fault each.

Those with wrong numbers are made of the one in docs/examples, whose numbers are right.
"""

from __future__ import annotations

import atexit
import contextlib
import shutil
import tempfile
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import bigram_training_client
import numpy as np
from crucible_kitchen import (
    AdamParams,
    AdapterOptions,
    AdapterTimeout,
    Datum,
    ForwardBackwardResult,
    InvalidInput,
    ModelInput,
    NotFound,
    SessionClosed,
    SessionConfig,
    SessionFailed,
    TrainingClient,
    hookimpl,
)

from . import Mutant


class Options(AdapterOptions):
    inner: TrainingClient


class Faulty:
    """The base of the mutants: an adapter that leaves everything to `inner`."""

    Options = Options


class FaultyPass(Faulty):
    """The base of those that change what they are given before they pass it on."""

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


class FaultyResult(Faulty):
    """The base of those that change the results that they pass on."""

    def change(self, result: Any) -> Any:
        return result

    @hookimpl
    def await_(self, opts: Options, future: Any, timeout: float | None) -> Any:
        return self.change(opts.inner.await_(future, timeout))


class FaultyStep(Faulty):
    """The base of those that make a step of their own of the arguments of one."""

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


class Delayed(Faulty):
    """The base of those that keep the passes until there is a step, and answer by `forward`."""

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


def drain(session: bigram_training_client.Session) -> None:
    session.worker.submit(lambda: None).result()


# --- futures ---


class WorksWhenAwaited(Faulty):
    @hookimpl
    def forward(
        self, opts: Options, session: Any, datums: Any, loss_fn: str, loss_fn_config: Any
    ) -> Any:
        return lambda: opts.inner.forward(session, datums, loss_fn, loss_fn_config)

    @hookimpl
    def await_(self, opts: Options, future: Any, timeout: float | None) -> Any:
        return opts.inner.await_(future() if callable(future) else future, timeout)


class StepsWhenAwaited(WorksWhenAwaited):
    @hookimpl
    def optim_step(
        self, opts: Options, session: Any, learning_rate: float, adam: AdamParams
    ) -> Any:
        return lambda: opts.inner.optim_step(session, learning_rate, adam)


ZERO = {"target_tokens": np.zeros(1, np.int64), "weights": np.zeros(1, np.float32)}


class AnswersOnce(Faulty):
    def __init__(self) -> None:
        self.answered: set[int] = set()
        self.kept: list[Any] = []  # so that no id is used again

    @hookimpl
    def await_(self, opts: Options, future: Any, timeout: float | None) -> Any:
        result = opts.inner.await_(future, timeout)
        if id(future) in self.answered:
            raise AdapterTimeout("nothing comes any more")
        self.answered.add(id(future))
        self.kept.append(future)
        return result


class AnswersInTurn(Faulty):
    def __init__(self) -> None:
        self.submitted: list[Any] = []
        self.answers: dict[int, Any] = {}

    @hookimpl
    def forward_backward(
        self, opts: Options, session: Any, datums: Any, loss_fn: str, loss_fn_config: Any
    ) -> Any:
        future = opts.inner.forward_backward(session, datums, loss_fn, loss_fn_config)
        self.submitted.append(future)
        return future

    @hookimpl
    def await_(self, opts: Options, future: Any, timeout: float | None) -> Any:
        if future in self.submitted:
            turn = self.answers.setdefault(id(future), self.submitted[len(self.answers)])
            return opts.inner.await_(turn, timeout)
        return opts.inner.await_(future, timeout)


class CancelsAtATimeout(Faulty):
    def __init__(self) -> None:
        self.cancelled: list[Any] = []

    @hookimpl
    def await_(self, opts: Options, future: Any, timeout: float | None) -> Any:
        if any(future is each for each in self.cancelled):
            raise SessionClosed("the operation was cancelled")
        try:
            return opts.inner.await_(future, timeout)
        except AdapterTimeout:
            self.cancelled.append(future)
            raise


# --- results ---


class ReportsAMean(FaultyResult):
    def change(self, result: Any) -> Any:
        if isinstance(result, ForwardBackwardResult):
            tokens = sum(len(output["logprobs"]) for output in result.outputs)
            return replace(result, loss=result.loss / tokens)
        return result


class LosesTheFirstLogprob(FaultyResult):
    def change(self, result: Any) -> Any:
        if isinstance(result, ForwardBackwardResult):
            cut = [{"logprobs": output["logprobs"][1:]} for output in result.outputs]
            return replace(result, outputs=cut)
        return result


class ReturnsFloat64(FaultyResult):
    def change(self, result: Any) -> Any:
        if isinstance(result, ForwardBackwardResult):
            wide = [{"logprobs": o["logprobs"].astype(np.float64)} for o in result.outputs]
            return replace(result, outputs=wide)
        return result


class SortsByLength(Faulty):
    @hookimpl
    def forward(
        self, opts: Options, session: Any, datums: Any, loss_fn: str, loss_fn_config: Any
    ) -> Any:
        ordered = sorted(datums, key=lambda datum: datum.model_input.length)
        return opts.inner.forward(session, ordered, loss_fn, loss_fn_config)


class TrainsOnTheLastPiece(FaultyPass):
    def change(self, datums: Sequence[Datum]) -> list[Datum]:
        early = [replace_weights(datum, np.zeros_like) for datum in datums[:-100]]
        return [*early, *datums[-100:]]


class PadsOnTheLeft(Faulty):
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


class TakesTheFirstChunk(FaultyPass):
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


# --- weights and losses ---


def replace_weights(datum: Datum, change: Callable[[Any], Any]) -> Datum:
    weights = np.asarray(change(datum.loss_fn_inputs["weights"]), np.float32)
    return Datum(datum.model_input, {**datum.loss_fn_inputs, "weights": weights})


class AveragesTheGradient(FaultyPass):
    def change(self, datums: Sequence[Datum]) -> list[Datum]:
        return [replace_weights(datum, lambda w: w / len(datums)) for datum in datums]


class DividesByTheWeights(FaultyPass):
    def weights(self, values: Any) -> Any:
        return (values / (values.sum() or 1)).astype(np.float32)


class IgnoresWeights(FaultyPass):
    def weights(self, values: Any) -> Any:
        return np.ones_like(values)


class TakesWeightsForAMask(FaultyPass):
    def weights(self, values: Any) -> Any:
        return (values > 0).astype(np.float32)


class AcceptsNaN(FaultyPass):
    def change_input(self, name: str, values: Any) -> Any:
        return np.nan_to_num(values) if getattr(values, "dtype", None) == np.float32 else values


class ConvertsIntegers(FaultyPass):
    def weights(self, values: Any) -> Any:
        return np.asarray(values, np.float32)


class WrapsNegativeTokens(FaultyPass):
    def change_input(self, name: str, values: Any) -> Any:
        return values % 40 if name == "target_tokens" and values.dtype.kind == "i" else values


class FaultyLoss(Faulty):
    """The base of those that are wrong about one loss."""

    loss_fn = ""

    @hookimpl
    def forward_backward(
        self, opts: Options, session: Any, datums: Any, loss_fn: str, loss_fn_config: Any
    ) -> Any:
        if loss_fn == self.loss_fn:
            return self.run(opts.inner, session, datums, loss_fn_config)
        return opts.inner.forward_backward(session, datums, loss_fn, loss_fn_config)

    def run(self, client: TrainingClient, session: Any, datums: Any, config: Any) -> Any: ...


class NegatesTheAdvantage(FaultyLoss):
    loss_fn = "importance_sampling"

    def run(self, client: TrainingClient, session: Any, datums: Any, config: Any) -> Any:
        negated = []
        for datum in datums:
            inputs = datum.loss_fn_inputs
            inputs = {**inputs, "advantages": -inputs["advantages"]}
            negated.append(Datum(datum.model_input, inputs))
        return client.forward_backward(session, negated, self.loss_fn, config)


class DoesNotClip(FaultyLoss):
    loss_fn = "ppo"

    def run(self, client: TrainingClient, session: Any, datums: Any, config: Any) -> Any:
        return client.forward_backward(session, datums, "importance_sampling")


class HasAGradientWhereItClips(FaultyLoss):
    loss_fn = "ppo"

    def run(self, client: TrainingClient, session: Any, datums: Any, config: Any) -> Any:
        client.forward_backward(session, datums, "importance_sampling")
        return client.forward(session, datums, "ppo", config)


class HasThresholdsOfItsOwn(FaultyLoss):
    loss_fn = "ppo"

    def run(self, client: TrainingClient, session: Any, datums: Any, config: Any) -> Any:
        return client.forward_backward(session, datums, "ppo")


class DifferentiatesTheRatio(FaultyLoss):
    loss_fn = "cispo"

    def run(self, client: TrainingClient, session: Any, datums: Any, config: Any) -> Any:
        future = client.forward(session, datums, "cispo", config)
        low, high = {
            "clip_low_threshold": 0.0,
            "clip_high_threshold": 4.0,
            **(config or {}),
        }.values()
        weighted = []
        for datum, output in zip(datums, client.await_(future).outputs, strict=True):
            inputs, p = datum.loss_fn_inputs, output["logprobs"]
            ratio = np.exp(p - inputs["logprobs"])
            inside = (ratio > low) & (ratio < high)
            slope = (ratio.clip(low, high) + inside * ratio * p) * inputs["advantages"]
            targets = {"target_tokens": inputs["target_tokens"]}
            weighted.append(Datum(datum.model_input, {**targets, "weights": slope}))
        client.forward_backward(session, weighted)
        return future


# --- gradients and steps ---


class ReplacesTheGradient(Delayed):
    def due(self, session: Any) -> list[tuple[Any, ...]]:
        return super().due(session)[-1:]


class NeverClearsTheGradient(Delayed):
    @hookimpl
    def optim_step(
        self, opts: Options, session: Any, learning_rate: float, adam: AdamParams
    ) -> Any:
        for each in self.passes[session]:
            opts.inner.forward_backward(session, *each)
        return opts.inner.optim_step(session, learning_rate, adam)


class StepsWithoutAGradient(Faulty):
    @hookimpl
    def optim_step(
        self, opts: Options, session: Any, learning_rate: float, adam: AdamParams
    ) -> Any:
        opts.inner.forward_backward(session, [Datum(ModelInput.from_ints([0]), ZERO)])
        return opts.inner.optim_step(session, learning_rate, adam)


class ClipsEachCall(Delayed):
    @hookimpl
    def optim_step(
        self, opts: Options, session: Any, learning_rate: float, adam: AdamParams
    ) -> Any:
        total = np.zeros_like(session.gradient)
        for each in self.due(session):
            opts.inner.await_(opts.inner.forward_backward(session, *each))
            scale = adam.grad_clip_norm / np.linalg.norm(session.gradient)
            total += session.gradient * (min(1, scale) if adam.grad_clip_norm else 1)
            session.gradient[:] = 0
        session.gradient[:] = total
        return opts.inner.optim_step(session, learning_rate, replace(adam, grad_clip_norm=0.0))


class ClipsEachNumber(FaultyStep):
    def change(self, session: Any, rate: float, adam: AdamParams) -> tuple[float, AdamParams]:
        if adam.grad_clip_norm:
            session.gradient.clip(-adam.grad_clip_norm, adam.grad_clip_norm, session.gradient)
        return rate, replace(adam, grad_clip_norm=0.0)


class MeasuresAfterClipping(FaultyStep):
    def change(self, session: Any, rate: float, adam: AdamParams) -> tuple[float, AdamParams]:
        if adam.grad_clip_norm:
            session.gradient *= min(1, adam.grad_clip_norm / np.linalg.norm(session.gradient))
        return rate, replace(adam, grad_clip_norm=0.0)


class DropsClipping(FaultyStep):
    def change(self, session: Any, rate: float, adam: AdamParams) -> tuple[float, AdamParams]:
        return rate, replace(adam, grad_clip_norm=0.0)


class SkipsStepsAtRateZero(Faulty):
    @hookimpl
    def optim_step(
        self, opts: Options, session: Any, learning_rate: float, adam: AdamParams
    ) -> Any:
        drain(session)
        state = session.state
        future = opts.inner.optim_step(session, learning_rate, adam)
        if learning_rate == 0:
            opts.inner.await_(future)
            session.state = state
        return future


class HasBetasOfItsOwn(FaultyStep):
    def change(self, session: Any, rate: float, adam: AdamParams) -> tuple[float, AdamParams]:
        return rate, replace(adam, beta1=0.9, beta2=0.999)


class DropsEps(FaultyStep):
    def change(self, session: Any, rate: float, adam: AdamParams) -> tuple[float, AdamParams]:
        return rate, replace(adam, eps=1e-8)


class CouplesWeightDecay(FaultyStep):
    def change(self, session: Any, rate: float, adam: AdamParams) -> tuple[float, AdamParams]:
        session.gradient += adam.weight_decay * session.state.weights
        return rate, replace(adam, weight_decay=0.0)


class DecaysAtRateZero(FaultyStep):
    def change(self, session: Any, rate: float, adam: AdamParams) -> tuple[float, AdamParams]:
        decay = 1 - 0.01 * adam.weight_decay
        session.state = replace(session.state, weights=session.state.weights * decay)
        return rate, replace(adam, weight_decay=0.0)


class CorrectsNoBias(FaultyStep):
    def change(self, session: Any, rate: float, adam: AdamParams) -> tuple[float, AdamParams]:
        session.state = replace(session.state, steps=1000)
        return rate, adam


class HalvesTheGradient(FaultyStep):
    """Adam does not notice."""

    def change(self, session: Any, rate: float, adam: AdamParams) -> tuple[float, AdamParams]:
        session.gradient[:, ::2] *= 0.5
        return rate, adam


class GoesUp(FaultyStep):
    def change(self, session: Any, rate: float, adam: AdamParams) -> tuple[float, AdamParams]:
        session.gradient *= -1
        return rate, adam


class AcceptsANegativeRate(FaultyStep):
    def change(self, session: Any, rate: float, adam: AdamParams) -> tuple[float, AdamParams]:
        return abs(rate), adam


# --- input and config ---


class TruncatesLongInput(Faulty):
    def __init__(self) -> None:
        self.max_length: dict[Any, int | None] = {}

    @hookimpl
    def start_session(self, opts: Options, config: SessionConfig) -> Any:
        session = opts.inner.start_session(replace(config, max_length=None))
        self.max_length[session] = config.max_length
        return session

    @hookimpl
    def forward_backward(
        self, opts: Options, session: Any, datums: Any, loss_fn: str, loss_fn_config: Any
    ) -> Any:
        end, cut = self.max_length[session], []
        for datum in datums:
            tokens = ModelInput.from_ints(datum.model_input.to_ints()[:end])
            cut.append(Datum(tokens, {k: v[:end] for k, v in datum.loss_fn_inputs.items()}))
        return opts.inner.forward_backward(session, cut, loss_fn, loss_fn_config)


class TakesOnlyGoodDatums(FaultyPass):
    def change(self, datums: Sequence[Datum]) -> list[Datum]:
        return [d for d in datums if d.model_input.length and "target_tokens" in d.loss_fn_inputs]


class IgnoresUnknownSettings(Faulty):
    @hookimpl
    def forward_backward(
        self, opts: Options, session: Any, datums: Any, loss_fn: str, loss_fn_config: Any
    ) -> Any:
        known = {k: v for k, v in (loss_fn_config or {}).items() if k != "clip_range"}
        return opts.inner.forward_backward(session, datums, loss_fn, known)


class TakesAnyModel(Faulty):
    @hookimpl
    def start_session(self, opts: Options, config: SessionConfig) -> Any:
        return opts.inner.start_session(replace(config, model="any"))


class DropsWhatItDoesNotKnow(Faulty):
    @hookimpl
    def start_session(self, opts: Options, config: SessionConfig) -> Any:
        return opts.inner.start_session(replace(config, revision=None, lora=None))


class TrainsWhatIsNotTrainable(Faulty):
    @hookimpl
    def start_session(self, opts: Options, config: SessionConfig) -> Any:
        return opts.inner.start_session(replace(config, trainable=True))


class DrawsASeed(Faulty):
    @hookimpl
    def start_session(self, opts: Options, config: SessionConfig) -> Any:
        seed = int(np.random.default_rng().integers(2**31))
        return opts.inner.start_session(replace(config, seed=seed))


class SharesOneModel(Faulty):
    def __init__(self) -> None:
        self.sessions: dict[SessionConfig, Any] = {}

    @hookimpl
    def start_session(self, opts: Options, config: SessionConfig) -> Any:
        if config not in self.sessions:
            self.sessions[config] = opts.inner.start_session(config)
        return self.sessions[config]


# --- forward ---


class ForwardLeavesAGradient(Faulty):
    @hookimpl
    def forward(
        self, opts: Options, session: Any, datums: Any, loss_fn: str, loss_fn_config: Any
    ) -> Any:
        return opts.inner.forward_backward(session, datums, loss_fn, loss_fn_config)


class MissingWeightsAreZeros(Faulty):
    @hookimpl
    def forward(
        self, opts: Options, session: Any, datums: Any, loss_fn: str, loss_fn_config: Any
    ) -> Any:
        filled = []
        for datum in datums:
            weights = {"weights": np.zeros(datum.model_input.length, np.float32)}
            filled.append(Datum(datum.model_input, {**weights, **datum.loss_fn_inputs}))
        return opts.inner.forward(session, filled, loss_fn, loss_fn_config)


# --- checkpoints ---


class ForgetsTheOptimizer(Faulty):
    @hookimpl
    def load_checkpoint(self, opts: Options, session: Any, path: str, with_optimizer: bool) -> None:
        opts.inner.load_checkpoint(session, path, with_optimizer=False)


class RestoresTheOptimizerAnyway(Faulty):
    @hookimpl
    def load_checkpoint(self, opts: Options, session: Any, path: str, with_optimizer: bool) -> None:
        opts.inner.load_checkpoint(session, path, with_optimizer=True)


class ClearsTheMomentsButNotTheSteps(Faulty):
    @hookimpl
    def load_checkpoint(self, opts: Options, session: Any, path: str, with_optimizer: bool) -> None:
        opts.inner.load_checkpoint(session, path, with_optimizer=True)
        if not with_optimizer:
            zeros = np.zeros_like(session.state.mean)
            session.state = replace(session.state, mean=zeros, variance=zeros)


class StartsWithTheOptimizer(Faulty):
    @hookimpl
    def start_session(self, opts: Options, config: SessionConfig) -> Any:
        return opts.inner.start_session(replace(config, with_optimizer=True))


class SavesInHalfPrecision(Faulty):
    @hookimpl
    def load_checkpoint(self, opts: Options, session: Any, path: str, with_optimizer: bool) -> None:
        opts.inner.load_checkpoint(session, path, with_optimizer)
        half = session.state.weights.astype(np.float16).astype(np.float64)
        session.state = replace(session.state, weights=half)


class KeepsTheGradientWhenItLoads(Delayed):
    pass


class SavesPendingGradients(Faulty):
    @hookimpl
    def save_checkpoint(self, opts: Options, session: Any, path: str) -> str:
        try:
            return opts.inner.save_checkpoint(session, path)
        except InvalidInput:
            opts.inner.optim_step(session, 0.0)
            return opts.inner.save_checkpoint(session, path)


class SavesUnderItsLabel(Faulty):
    def __init__(self) -> None:
        self.saved: dict[str, str] = {}

    @hookimpl
    def save_checkpoint(self, opts: Options, session: Any, path: str) -> str:
        self.saved[path] = opts.inner.save_checkpoint(session, path)
        return path

    @hookimpl
    def load_checkpoint(self, opts: Options, session: Any, path: str, with_optimizer: bool) -> None:
        opts.inner.load_checkpoint(session, self.saved.get(path, path), with_optimizer)


class TakesSimpleLabelsOnly(Faulty):
    @hookimpl
    def save_checkpoint(self, opts: Options, session: Any, path: str) -> str:
        if ".." in path:
            raise InvalidInput("use letters and digits")
        return opts.inner.save_checkpoint(session, path)


class DoesNotMissWhatIsMissing(Faulty):
    @hookimpl
    def load_checkpoint(self, opts: Options, session: Any, path: str, with_optimizer: bool) -> None:
        try:
            opts.inner.load_checkpoint(session, path, with_optimizer)
        except NotFound:
            return


class ClearsBeforeItLooks(Faulty):
    @hookimpl
    def load_checkpoint(self, opts: Options, session: Any, path: str, with_optimizer: bool) -> None:
        session.check(revives=True)
        session.accumulated = False
        opts.inner.load_checkpoint(session, path, with_optimizer)


class ListsNewestFirst(Faulty):
    @hookimpl
    def list_checkpoints(self, opts: Options, prefix: str) -> list[str]:
        return list(opts.inner.list_checkpoints(prefix))[::-1]


class ListsWhatContains(Faulty):
    def __init__(self) -> None:
        self.labels: dict[str, str] = {}

    @hookimpl
    def save_checkpoint(self, opts: Options, session: Any, path: str) -> str:
        reference = opts.inner.save_checkpoint(session, path)
        self.labels[reference] = path
        return reference

    @hookimpl
    def list_checkpoints(self, opts: Options, prefix: str) -> list[str]:
        return [r for r in opts.inner.list_checkpoints() if prefix in self.labels.get(r, "")]


class SavesAroundTheQueue(StepsWhenAwaited):
    pass


class KeepsReferencesInMemory(Faulty):
    def __init__(self) -> None:
        self.known: set[tuple[int, str]] = set()
        self.kept: list[Options] = []  # so that no id is used again

    @hookimpl
    def save_checkpoint(self, opts: Options, session: Any, path: str) -> str:
        reference = opts.inner.save_checkpoint(session, path)
        self.known.add((id(opts), reference))
        self.kept.append(opts)
        return reference

    @hookimpl
    def start_session(self, opts: Options, config: SessionConfig) -> Any:
        if config.from_checkpoint and (id(opts), config.from_checkpoint) not in self.known:
            raise NotFound(config.from_checkpoint)
        return opts.inner.start_session(config)


class DeletesCheckpointsWithTheirSession(Faulty):
    def __init__(self) -> None:
        self.saved: dict[Any, list[str]] = defaultdict(list)

    @hookimpl
    def save_checkpoint(self, opts: Options, session: Any, path: str) -> str:
        reference = opts.inner.save_checkpoint(session, path)
        self.saved[session].append(reference)
        return reference

    @hookimpl
    def close_session(self, opts: Options, session: Any) -> None:
        for reference in self.saved.pop(session, []):
            opts.inner.delete_checkpoint(reference)
        opts.inner.close_session(session)


class DeletesTwiceWithAnError(Faulty):
    @hookimpl
    def delete_checkpoint(self, opts: Options, path: str) -> None:
        if path not in opts.inner.list_checkpoints():
            raise NotFound(path)
        opts.inner.delete_checkpoint(path)


# --- sessions and failures ---


class GoesOnAfterAFailure(Faulty):
    def __init__(self) -> None:
        self.beginnings: dict[Any, str] = {}

    @hookimpl
    def start_session(self, opts: Options, config: SessionConfig) -> Any:
        session = opts.inner.start_session(config)
        self.beginnings[session] = opts.inner.save_checkpoint(session, "beginning")
        return session

    @hookimpl
    def forward_backward(
        self, opts: Options, session: Any, datums: Any, loss_fn: str, loss_fn_config: Any
    ) -> Any:
        try:
            return opts.inner.forward_backward(session, datums, loss_fn, loss_fn_config)
        except SessionFailed:
            opts.inner.load_checkpoint(session, self.beginnings[session])
            return opts.inner.forward_backward(session, datums, loss_fn, loss_fn_config)


class RunsWhatIsBehindAFailure(Faulty):
    """It fails, and forgets at once."""

    @hookimpl
    def optim_step(
        self, opts: Options, session: Any, learning_rate: float, adam: AdamParams
    ) -> Any:
        future = opts.inner.optim_step(session, learning_rate, adam)

        def forget() -> None:
            session.failure = None

        session.worker.submit(forget)
        return future


class RevivesBeforeItLooks(Faulty):
    @hookimpl
    def load_checkpoint(self, opts: Options, session: Any, path: str, with_optimizer: bool) -> None:
        drain(session)
        session.failure = None
        opts.inner.load_checkpoint(session, path, with_optimizer)


class FailsAllSessions(Faulty):
    def __init__(self) -> None:
        self.sessions: list[Any] = []

    @hookimpl
    def start_session(self, opts: Options, config: SessionConfig) -> Any:
        session = opts.inner.start_session(config)
        self.sessions.append(session)
        return session

    @hookimpl
    def forward_backward(
        self, opts: Options, session: Any, datums: Any, loss_fn: str, loss_fn_config: Any
    ) -> Any:
        for other in self.sessions:
            if not other.closed:
                drain(other)
                session.failure = session.failure or other.failure
        return opts.inner.forward_backward(session, datums, loss_fn, loss_fn_config)


class SavesAClosedSession(Faulty):
    @hookimpl
    def save_checkpoint(self, opts: Options, session: Any, path: str) -> str:
        try:
            return opts.inner.save_checkpoint(session, path)
        except SessionClosed:
            return "00000000000000000000-gone"


class NeverAnswersAfterItsEnd(Faulty):
    def __init__(self) -> None:
        self.closed: list[Any] = []
        self.sessions: dict[Any, Any] = {}

    @hookimpl
    def forward_backward(
        self, opts: Options, session: Any, datums: Any, loss_fn: str, loss_fn_config: Any
    ) -> Any:
        future = opts.inner.forward_backward(session, datums, loss_fn, loss_fn_config)
        self.sessions[future] = session
        return future

    @hookimpl
    def close_session(self, opts: Options, session: Any) -> None:
        self.closed.append(session)
        opts.inner.close_session(session)

    @hookimpl
    def await_(self, opts: Options, future: Any, timeout: float | None) -> Any:
        if self.sessions.get(future) in self.closed:
            raise AdapterTimeout("nothing came")
        return opts.inner.await_(future, timeout)


class ClosesOnce(Faulty):
    @hookimpl
    def close_session(self, opts: Options, session: Any) -> None:
        session.check(revives=True)
        opts.inner.close_session(session)


class RevivesWithItsOptimizerOnly(Faulty):
    @hookimpl
    def load_checkpoint(self, opts: Options, session: Any, path: str, with_optimizer: bool) -> None:
        failed = session.failed
        opts.inner.load_checkpoint(session, path, with_optimizer)
        if not with_optimizer:
            session.failed = failed


class ForgetsNothing(Faulty):
    """What ends something leaves it as it was. Three faults: hypothesis draws with the constants of
    the code around, so that a sequence which shows a single one may come or not."""

    @hookimpl
    def load_checkpoint(self, opts: Options, session: Any, path: str, with_optimizer: bool) -> None:
        failed, gradient = session.failed, session.gradient
        opts.inner.load_checkpoint(session, path, with_optimizer)
        session.failed, session.gradient = failed, gradient

    @hookimpl
    def optim_step(self, opts: Options, session: Any, learning_rate: float, adam: Any) -> Any:
        gradient = session.gradient
        future = opts.inner.optim_step(session, learning_rate, adam)
        session.gradient = gradient
        return future

    @hookimpl
    def close_session(self, opts: Options, session: Any) -> None: ...


class NamesWeightsForTheSampler(Faulty):
    @hookimpl
    def save_weights_for_sampler(self, opts: Options, session: Any, name: str | None) -> str:
        reference = opts.inner.save_weights_for_sampler(session, name)
        return name if name is not None else reference


FOLDER = tempfile.mkdtemp(prefix="mutants-")
atexit.register(shutil.rmtree, FOLDER, ignore_errors=True)
BIGRAM = {"use": bigram_training_client, "checkpoint_dir": FOLDER, "models": {"any": 40}}


# --- what killed processes leave, and what is known before training ---


class FaultyClean(Faulty):
    """The base of those that remove too much, before `inner` removes the rest."""

    def doomed(self, opts: Options, prefix: str, keep: Sequence[str]) -> Sequence[str]:
        return [ref for ref in opts.inner.list_checkpoints(prefix) if ref not in keep]

    @hookimpl
    def clean(
        self, opts: Options, prefix: str, keep: Sequence[str], dry_run: bool
    ) -> Sequence[str]:
        for reference in self.doomed(opts, prefix, keep):
            opts.inner.delete_checkpoint(reference)
        return []


class CleansWhatIsKept(FaultyClean):
    def doomed(self, opts: Options, prefix: str, keep: Sequence[str]) -> Sequence[str]:
        return opts.inner.list_checkpoints(prefix) if prefix else []


class CleansInADryRun(FaultyClean):
    @hookimpl
    def clean(
        self, opts: Options, prefix: str, keep: Sequence[str], dry_run: bool
    ) -> Sequence[str]:
        return opts.inner.clean(prefix, keep) if prefix and dry_run else []


class ComparesCutLabels(FaultyClean):
    def doomed(self, opts: Options, prefix: str, keep: Sequence[str]) -> Sequence[str]:
        found = opts.inner.list_checkpoints(prefix[:100])
        return [ref for ref in found if ref not in keep] if prefix else []


class ComparesEncodedLabels(FaultyClean):
    """As if `run/1` were a folder and its neighbours were named by its number."""

    def doomed(self, opts: Options, prefix: str, keep: Sequence[str]) -> Sequence[str]:
        found = opts.inner.list_checkpoints(prefix.rstrip("/"))
        return [ref for ref in found if ref not in keep] if prefix else []


class CleansAllWithoutAPrefix(FaultyClean):
    def doomed(self, opts: Options, prefix: str, keep: Sequence[str]) -> Sequence[str]:
        return [] if prefix else opts.inner.list_checkpoints()


class ForgetsTheNameOfWeights(Faulty):
    @hookimpl
    def save_weights_for_sampler(self, opts: Options, session: Any, name: str | None) -> str:
        return opts.inner.save_weights_for_sampler(session, name and "weights")


class TellsANumberOfNumPy(Faulty):
    @hookimpl
    def get_info(self, opts: Options, session: Any) -> Any:
        return {**opts.inner.get_info(session), "tokens": np.int64(4096)}


class TellsTheNameOfTheSession(Faulty):
    @hookimpl
    def get_info(self, opts: Options, session: Any) -> Any:
        return {**opts.inner.get_info(session), "session": id(session)}


class TellsTheSteps(Faulty):
    def __init__(self) -> None:
        self.steps = 0

    @hookimpl
    def optim_step(
        self, opts: Options, session: Any, learning_rate: float, adam: AdamParams
    ) -> Any:
        self.steps += 1
        return opts.inner.optim_step(session, learning_rate, adam)

    @hookimpl
    def get_info(self, opts: Options, session: Any) -> Any:
        return {**opts.inner.get_info(session), "steps": self.steps}


class SavesToSeeWhetherItCan(Faulty):
    @hookimpl
    def check_storage(self, opts: Options, session: Any, checkpoints: int) -> None:
        with contextlib.suppress(InvalidInput):  # gradients are pending
            opts.inner.save_checkpoint(session, "trial")


class DropsGradientsToSeeWhetherItCan(Faulty):
    @hookimpl
    def check_storage(self, opts: Options, session: Any, checkpoints: int) -> None:
        with contextlib.suppress(InvalidInput):
            opts.inner.optim_step(session, 0.0)
        opts.inner.delete_checkpoint(opts.inner.save_checkpoint(session, "trial"))


class TellsOfAClosedSession(Faulty):
    @hookimpl
    def get_info(self, opts: Options, session: Any) -> Any:
        return {"device": "cpu"}


class TriesForAClosedSession(Faulty):
    @hookimpl
    def check_storage(self, opts: Options, session: Any, checkpoints: int) -> None:
        return None


MUTANTS = [
    Mutant("training_client", adapter, f"test_{killed_by}", BIGRAM)
    for adapter, killed_by in (
        (WorksWhenAwaited(), "a_forward_sees_the_weights_of_its_place_in_the_queue"),
        (StepsWhenAwaited(), "operations_run_in_the_order_of_submission"),
        (AnswersOnce(), "a_result_may_be_asked_for_again_from_any_thread"),
        (AnswersInTurn(), "results_are_those_of_their_futures"),
        (ReportsAMean(), "the_loss_is_the_sum_over_tokens"),
        (LosesTheFirstLogprob(), "logprobs_are_one_float32_for_each_target"),
        (ReturnsFloat64(), "logprobs_are_one_float32_for_each_target"),
        (SortsByLength(), "how_a_batch_is_cut_is_invisible"),
        (TrainsOnTheLastPiece(), "a_large_batch_is_one_batch"),
        (TakesTheFirstChunk(), "tokens_in_several_chunks_are_one_text"),
        (AveragesTheGradient(), "gradients_accumulate"),
        (DividesByTheWeights(), "weights_scale_the_loss_and_the_gradient"),
        (IgnoresWeights(), "a_token_of_weight_zero_does_not_count"),
        (TakesWeightsForAMask(), "a_negative_weight_takes_away"),
        (AcceptsNaN(), "bad_input_is_refused_at_submission"),
        (ConvertsIntegers(), "bad_input_is_refused_at_submission"),
        (WrapsNegativeTokens(), "bad_input_is_refused_at_submission"),
        (TakesOnlyGoodDatums(), "bad_input_is_refused_at_submission"),
        (IgnoresUnknownSettings(), "bad_input_is_refused_at_submission"),
        (TruncatesLongInput(), "an_input_beyond_max_length_is_refused"),
        (NegatesTheAdvantage(), "the_loss_is_that_of_its_formula"),
        (DoesNotClip(), "the_loss_is_that_of_its_formula"),
        (HasThresholdsOfItsOwn(), "the_loss_is_that_of_its_formula"),
        (HasAGradientWhereItClips(), "the_gradient_is_that_of_the_loss"),
        (DifferentiatesTheRatio(), "the_gradient_is_that_of_the_loss"),
        (HalvesTheGradient(), "a_step_goes_down_the_gradient_as_far_as_it_is_steep"),
        (GoesUp(), "training_lowers_the_loss"),
        (ReplacesTheGradient(), "gradients_accumulate"),
        (NeverClearsTheGradient(), "a_step_clears_the_gradient"),
        (StepsWithoutAGradient(), "a_step_without_a_gradient_is_refused"),
        (MeasuresAfterClipping(), "the_gradient_norm_is_that_before_clipping"),
        (ClipsEachCall(), "what_is_clipped_is_the_accumulated_gradient"),
        (ClipsEachNumber(), "clipping_bounds_the_whole_gradient"),
        (DropsClipping(), "clipping_bounds_the_whole_gradient"),
        (SkipsStepsAtRateZero(), "a_learning_rate_of_zero_moves_the_moments"),
        (HasBetasOfItsOwn(), "the_step_is_that_of_adam"),
        (CorrectsNoBias(), "the_step_is_that_of_adam"),
        (DropsEps(), "every_setting_of_adam_counts"),
        (CouplesWeightDecay(), "weight_decay_is_decoupled"),
        (DecaysAtRateZero(), "a_learning_rate_of_zero_leaves_the_weights"),
        (AcceptsANegativeRate(), "a_learning_rate_that_is_none_is_refused"),
        (TakesAnyModel(), "an_unknown_model_is_not_found"),
        (DropsWhatItDoesNotKnow(), "what_a_session_cannot_honour_is_refused"),
        (TrainsWhatIsNotTrainable(), "a_session_that_is_not_trainable_only_evaluates"),
        (DrawsASeed(), "a_seed_makes_one_session"),
        (SharesOneModel(), "two_sessions_do_not_disturb_each_other"),
        (ForwardLeavesAGradient(), "forward_leaves_no_trace"),
        (MissingWeightsAreZeros(), "missing_weights_are_ones_in_forward"),
        (ForgetsTheOptimizer(), "with_the_optimizer_its_state_is_kept"),
        (RestoresTheOptimizerAnyway(), "without_the_optimizer_its_state_starts_afresh"),
        (ClearsTheMomentsButNotTheSteps(), "without_the_optimizer_its_state_starts_afresh"),
        (StartsWithTheOptimizer(), "without_the_optimizer_its_state_starts_afresh"),
        (SavesInHalfPrecision(), "training_continues_from_a_checkpoint"),
        (KeepsTheGradientWhenItLoads(), "loading_drops_pending_gradients"),
        (SavesPendingGradients(), "saving_with_gradients_pending_is_refused"),
        (SavesUnderItsLabel(), "saving_never_replaces"),
        (TakesSimpleLabelsOnly(), "any_label_works"),
        (DoesNotMissWhatIsMissing(), "an_unknown_checkpoint_is_not_found"),
        (ClearsBeforeItLooks(), "an_unknown_checkpoint_is_not_found"),
        (ListsNewestFirst(), "checkpoints_are_listed_by_label_oldest_first"),
        (ListsWhatContains(), "checkpoints_are_listed_by_label_oldest_first"),
        (SavesAroundTheQueue(), "saving_waits_for_what_is_queued"),
        (KeepsReferencesInMemory(), "another_process_continues"),
        (DeletesCheckpointsWithTheirSession(), "a_checkpoint_outlives_its_session"),
        (NeverAnswersAfterItsEnd(), "closing_ends_what_is_queued"),
        (DeletesTwiceWithAnError(), "a_deleted_checkpoint_is_gone"),
        (GoesOnAfterAFailure(), "a_failed_operation_fails_its_session"),
        (RunsWhatIsBehindAFailure(), "what_is_queued_behind_a_failure_fails"),
        (RevivesBeforeItLooks(), "loading_revives_a_failed_session"),
        (FailsAllSessions(), "a_failure_stays_in_its_session"),
        (SavesAClosedSession(), "a_closed_session_is_refused_by_every_callback"),
        (ClosesOnce(), "a_closed_session_is_refused_by_every_callback"),
    )
]
MUTANTS += [
    Mutant("training_client", PadsOnTheLeft(), "test_a_logprob_does_not_depend_on_what_follows"),
    Mutant(
        "training_client",
        NamesWeightsForTheSampler(),
        "test_references_of_weights_are_never_reused",
    ),
    Mutant(
        "training_client",
        RevivesWithItsOptimizerOnly(),
        "test_loading_revives_a_failed_session",
    ),
    Mutant(
        "training_client",
        ForgetsNothing(),
        "test_any_sequence_of_calls_does_what_its_history_says",
    ),
    Mutant(
        "training_client",
        CancelsAtATimeout(),
        "test_a_timeout_leaves_the_operation_running",
        inner={"use": "noop", "latency_scale": 1},  # operations that take a while
    ),
]
MUTANTS += [
    Mutant("training_client", adapter, f"test_{killed_by}")
    for adapter, killed_by in (
        (CleansWhatIsKept(), "cleaning_removes_what_its_prefix_names_and_is_not_kept"),
        (CleansInADryRun(), "cleaning_removes_what_its_prefix_names_and_is_not_kept"),
        (ComparesCutLabels(), "cleaning_removes_what_its_prefix_names_and_is_not_kept"),
        (ComparesEncodedLabels(), "cleaning_removes_what_its_prefix_names_and_is_not_kept"),
        (ForgetsTheNameOfWeights(), "cleaning_removes_what_its_prefix_names_and_is_not_kept"),
        (CleansAllWithoutAPrefix(), "cleaning_without_a_prefix_leaves_what_is_complete"),
        (TellsANumberOfNumPy(), "what_results_depend_on_is_plain_and_does_not_change"),
        (TellsTheNameOfTheSession(), "what_results_depend_on_is_plain_and_does_not_change"),
        (TellsTheSteps(), "what_results_depend_on_is_plain_and_does_not_change"),
        (SavesToSeeWhetherItCan(), "trying_the_storage_leaves_nothing"),
        (DropsGradientsToSeeWhetherItCan(), "trying_the_storage_leaves_nothing"),
        (TellsOfAClosedSession(), "a_closed_session_tells_nothing"),
        (TriesForAClosedSession(), "a_closed_session_tells_nothing"),
    )
]
