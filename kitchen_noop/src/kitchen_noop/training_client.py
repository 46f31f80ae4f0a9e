"""Train nothing, with a loss that falls.

Sessions use the formula of `kitchen_noop.language_model`. They check their input, keep the order of
operations, and fail, close and resume as a real backend's do. The outcome of an operation is
computed when it is submitted, and available when its time has come.
"""

from __future__ import annotations

import copy
import math
import threading
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias
from urllib.parse import quote

import numpy as np
from crucible_kitchen import (
    LOSS_FUNCTIONS,
    AdamParams,
    AdapterError,
    AdapterTimeout,
    Array,
    Datum,
    ForwardBackwardResult,
    InvalidInput,
    NotFound,
    OptimStepResult,
    SessionClosed,
    SessionConfig,
    SessionFailed,
    Unavailable,
    helper,
    hookimpl,
    resource,
    validate_datums,
)
from pydantic import Field

from . import published
from .conditions import Conditions, fault, pause, synthetic  # noqa: F401
from .language_model import Weights, gradient_norm, logprobs
from .loss_formulas import loss_and_gradient
from .tokenizer import TOKENIZER, CharTokenizer

_START_LATENCY = 0.05
_FORWARD_LATENCY = 0.001
_FORWARD_BACKWARD_LATENCY = 0.003
_OPTIM_LATENCY = 0.001
_CHECKPOINT_LATENCY = 0.005
"""Seconds. Short, so that a thousand steps take seconds."""

_VOCABULARY = 2**63 - 1
"""Any model is accepted, so every token that is not negative is in its vocabulary."""

Result: TypeAlias = ForwardBackwardResult | OptimStepResult | str


class Options(Conditions):
    failure_rate: float = Field(default=0.0, ge=0, le=1)
    """Probability that a submitted operation fails, and its session with it."""


@dataclass(frozen=True, slots=True)
class State:
    """The content of a checkpoint: the weights, and the number of steps in Adam's moments."""

    weights: Weights
    moments: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class Operation:
    """A future: the outcome is available from `ready_at` on, in seconds of `time.monotonic`."""

    ready_at: float
    outcome: Result | AdapterError


@dataclass(slots=True, eq=False)
class Session:
    """A handle. Everything but `config` is read and changed under its lock."""

    config: SessionConfig
    state: State
    lock: threading.Lock = field(default_factory=threading.Lock)
    gradient: float | None = None
    """The sum of |d loss / d logprob| since the last step; None if nothing was accumulated."""
    idle_at: float = 0.0
    """When everything queued is done."""
    failed: Operation | None = None
    ephemeral: published.Published | None = None
    closed: bool = False

    def check(self) -> None:
        """Raise if the session can no longer be used, as far as is known by now."""
        if self.closed:
            raise SessionClosed(f"the session of {self.config.model!r} was closed; start another")
        if self.failed is not None and self.failed.ready_at <= time.monotonic():
            raise self.failure()

    def failure(self) -> SessionFailed:
        assert self.failed is not None
        return SessionFailed(
            f"an earlier operation of this session failed: {self.failed.outcome}; load a "
            "checkpoint to continue"
        )


# --- checkpoints: one memory for each options object ---


@dataclass(frozen=True, slots=True)
class Checkpoints:
    lock: threading.Lock = field(default_factory=threading.Lock)
    saved: dict[str, tuple[str, State]] = field(default_factory=dict)
    """Label and state by reference, oldest first."""
    named: dict[str, str] = field(default_factory=dict)
    """The names of published weights, by reference; the weights are in the reference."""

    def state(self, reference: str) -> State:
        with self.lock:
            try:
                return self.saved[reference][1]
            except KeyError:
                raise NotFound(
                    f"no checkpoint {reference!r}; noop keeps them in memory, for one kitchen"
                ) from None


@resource
def _checkpoints(opts: Options) -> Checkpoints:
    return Checkpoints()


# --- sessions ---


@hookimpl
def start_session(opts: Options, config: SessionConfig) -> Session:
    pause(opts, _START_LATENCY)
    if config.from_checkpoint is None:
        exported = published.exported(config.model)
        return Session(config, State(exported or Weights(config.model, config.seed)))
    state = _checkpoints(opts).state(config.from_checkpoint)
    return Session(config, state if config.with_optimizer else State(state.weights))


@hookimpl
def close_session(opts: Options, session: Session) -> None:
    with session.lock:
        session.closed = True
        session.ephemeral = None


@helper
def get_tokenizer(opts: Options, session: Session) -> CharTokenizer:
    """Return the tokenizer of every noop model."""
    return TOKENIZER


# --- operations ---


@hookimpl
def forward_backward(
    opts: Options,
    session: Session,
    datums: Sequence[Datum],
    loss_fn: str,
    loss_fn_config: Mapping[str, float] | None,
) -> Operation:
    config = _validate(session, datums, loss_fn, loss_fn_config)
    with session.lock:
        session.check()
        _check_trainable(session)

        def run() -> ForwardBackwardResult:
            result, gradient = _evaluate(session, datums, loss_fn, config)
            session.gradient = (session.gradient or 0.0) + gradient
            return result

        return _submit(opts, session, _FORWARD_BACKWARD_LATENCY, run)


@hookimpl
def forward(
    opts: Options,
    session: Session,
    datums: Sequence[Datum],
    loss_fn: str,
    loss_fn_config: Mapping[str, float] | None,
) -> Operation:
    config = _validate(session, datums, loss_fn, loss_fn_config, require_weights=False)
    with session.lock:
        session.check()
        return _submit(
            opts, session, _FORWARD_LATENCY, lambda: _evaluate(session, datums, loss_fn, config)[0]
        )


@hookimpl
def optim_step(
    opts: Options, session: Session, learning_rate: float, adam: AdamParams
) -> Operation:
    if not (math.isfinite(learning_rate) and learning_rate >= 0):
        raise InvalidInput(f"learning_rate must be a number from 0 on, not {learning_rate}")
    with session.lock:
        session.check()
        _check_trainable(session)
        if session.gradient is None and session.failed is None:
            raise InvalidInput("no gradient was accumulated; submit forward_backward first")

        def run() -> OptimStepResult:
            assert session.gradient is not None
            norm = session.gradient * gradient_norm(session.state.weights)
            if not math.isfinite(norm):
                raise AdapterError("the gradient is not finite; the weights were left alone")
            weights, moments = session.state.weights, session.state.moments + 1
            if learning_rate > 0:
                weights = replace(weights, steps=weights.steps + 1)
            session.state, session.gradient = State(weights, moments), None
            return OptimStepResult(norm, {"optimizer_steps": moments})

        return _submit(opts, session, _OPTIM_LATENCY, run)


@hookimpl
def await_(opts: Options, future: Operation, timeout: float | None) -> Result:
    remaining = max(future.ready_at - time.monotonic(), 0.0)
    if timeout is not None and remaining > timeout:
        time.sleep(max(timeout, 0.0))
        raise AdapterTimeout(f"the operation was not done within {timeout} s; it continues")
    time.sleep(remaining)
    if isinstance(future.outcome, AdapterError):
        raise copy.copy(future.outcome)  # each caller, in any thread, gets its own traceback
    return future.outcome


def _submit(
    opts: Options, session: Session, seconds: float, run: Callable[[], Result]
) -> Operation:
    """Queue an operation; the caller holds the session's lock."""
    session.idle_at = max(session.idle_at, time.monotonic()) + seconds * opts.latency_scale
    if session.failed is not None:
        return Operation(session.idle_at, session.failure())
    try:
        if failure := fault(opts):
            # Waiting for it again raises the same, and the session has failed.
            raise Unavailable(failure.reason, retryable=False)
        return Operation(session.idle_at, run())
    except AdapterError as error:
        session.failed = Operation(session.idle_at, error)
        return session.failed


def _evaluate(
    session: Session, datums: Sequence[Datum], loss_fn: str, config: Mapping[str, float]
) -> tuple[ForwardBackwardResult, float]:
    """Return the result and the sum of |d loss / d logprob|."""
    # All datums at once: with small batches, NumPy's overhead would dominate.
    lengths = [datum.model_input.length for datum in datums]
    positions = np.concatenate([np.arange(1, length + 1) for length in lengths])
    inputs = {
        name: np.concatenate([_input(datum, name) for datum in datums])
        for name in ("target_tokens", *LOSS_FUNCTIONS[loss_fn].inputs)
    }
    p = logprobs(session.state.weights, inputs["target_tokens"], positions)
    loss, slope = loss_and_gradient(loss_fn, config, p, inputs)
    outputs = [{"logprobs": part} for part in np.split(p, np.cumsum(lengths)[:-1])]
    return ForwardBackwardResult(loss, outputs), float(np.abs(slope).sum())


def _input(datum: Datum, name: str) -> Array:
    """Return a per-token input; missing weights are ones."""
    if name in datum.loss_fn_inputs:
        return datum.loss_fn_inputs[name]
    return np.ones(datum.model_input.length, np.float32)


def _validate(
    session: Session,
    datums: Sequence[Datum],
    loss_fn: str,
    loss_fn_config: Mapping[str, float] | None,
    *,
    require_weights: bool = True,
) -> dict[str, float]:
    return validate_datums(
        datums,
        loss_fn,
        loss_fn_config,
        vocab_size=_VOCABULARY,
        max_length=session.config.max_length,
        require_weights=require_weights,
    )


def _check_trainable(session: Session) -> None:
    if not session.config.trainable:
        raise InvalidInput("this session was started with trainable=False: it only evaluates")


# --- checkpoints and published weights ---


@hookimpl
def save_checkpoint(opts: Options, session: Session, path: str) -> str:
    _drain(session)
    pause(opts, _CHECKPOINT_LATENCY)
    with session.lock:
        return _save(opts, session, path)


@hookimpl
def save_checkpoint_async(opts: Options, session: Session, path: str) -> Operation:
    with session.lock:
        # It takes its time beside the operations that are queued behind it.
        done = max(session.idle_at, time.monotonic()) + _CHECKPOINT_LATENCY * opts.latency_scale
        if session.failed is not None and not session.closed:
            return Operation(done, session.failure())
        return Operation(done, _save(opts, session, path))


def _save(opts: Options, session: Session, path: str) -> str:
    """Keep the state as it is now; the caller holds the session's lock."""
    session.check()
    if session.gradient is not None:
        raise InvalidInput(
            "gradients are pending, and a checkpoint would lose them; run optim_step first"
        )
    memory = _checkpoints(opts)
    reference = f"noop://checkpoint/{uuid.uuid4().hex}/{quote(path, safe='')}"
    with memory.lock:
        memory.saved[reference] = (path, session.state)
    return reference


@hookimpl
def load_checkpoint(opts: Options, session: Session, path: str, with_optimizer: bool) -> None:
    _drain(session)
    pause(opts, _CHECKPOINT_LATENCY)
    with session.lock:
        if session.closed:
            session.check()
        state = _checkpoints(opts).state(path)
        session.state = state if with_optimizer else State(state.weights)
        session.gradient = session.failed = None


@hookimpl
def save_weights_for_sampler(opts: Options, session: Session, name: str | None) -> str:
    _drain(session)
    pause(opts, _CHECKPOINT_LATENCY)
    with session.lock:
        session.check()
        weights = published.publish(session.state.weights, name)
        if name is None:
            session.ephemeral = weights
        else:
            _checkpoints(opts).named[weights.reference] = name
    return weights.reference


@hookimpl
def export_weights(opts: Options, session: Session, folder: Path, merge: bool) -> None:
    if not merge and session.config.lora is None:
        raise InvalidInput("there is no low-rank update: the session trains every weight")
    _drain(session)
    with session.lock:
        session.check()
        published.export(session.state.weights, folder)


@hookimpl
def list_checkpoints(opts: Options, prefix: str) -> list[str]:
    memory = _checkpoints(opts)
    with memory.lock:
        return [ref for ref, (label, _) in memory.saved.items() if label.startswith(prefix)]


@hookimpl
def delete_checkpoint(opts: Options, path: str) -> None:
    memory = _checkpoints(opts)
    with memory.lock:
        memory.saved.pop(path, None)


@hookimpl
def clean(opts: Options, prefix: str, keep: Sequence[str], dry_run: bool) -> list[str]:
    if not prefix:
        return []  # there are no unfinished writes
    memory = _checkpoints(opts)
    with memory.lock:
        labels = {ref: label for ref, (label, _) in memory.saved.items()} | memory.named
        doomed = [r for r, label in labels.items() if label.startswith(prefix) and r not in keep]
        for reference in () if dry_run else doomed:
            memory.saved.pop(reference, None)
            memory.named.pop(reference, None)
    return doomed


@hookimpl
def get_info(opts: Options, session: Session) -> dict[str, str]:
    with session.lock:
        session.check()
    return {"formula": "noop 1"}


@hookimpl
def check_storage(opts: Options, session: Session, checkpoints: int) -> None:
    with session.lock:
        session.check()  # the memory has room


def _drain(session: Session) -> None:
    """Wait until everything queued is done."""
    time.sleep(max(session.idle_at - time.monotonic(), 0.0))


if TYPE_CHECKING:
    from crucible_kitchen.hookspecs import TrainingClientOptionalSpec, TrainingClientSpec

    import kitchen_noop.training_client as this_module

    _: TrainingClientSpec[Options, Session, Operation] = this_module
    _optional: TrainingClientOptionalSpec[Options, Session, Operation] = this_module
