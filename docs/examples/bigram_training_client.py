"""Train a bigram language model with NumPy: a complete training client, and an exact one.

The logits of the token after token i are row i of the weights, a matrix `(V, V)` for a vocabulary
of V tokens. So every loss, its gradient and AdamW fit on this page.
"""

from __future__ import annotations

import concurrent.futures
import math
import os
import re
import threading
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from crucible_kitchen import (
    LOSS_FUNCTIONS,
    AdamParams,
    AdapterError,
    AdapterOptions,
    AdapterTimeout,
    Datum,
    ForwardBackwardResult,
    InvalidInput,
    LocalPath,
    NotFound,
    OptimStepResult,
    SessionClosed,
    SessionConfig,
    SessionFailed,
    Unsupported,
    hookimpl,
    resource,
    validate_datums,
)
from numpy.typing import NDArray

Floats = NDArray[np.float64]
T = TypeVar("T")


class Options(AdapterOptions):
    checkpoint_dir: LocalPath = Path("checkpoints")
    """Folder of the checkpoints."""
    models: Mapping[str, int] = {"bigram": 256}
    """Models by name, and how many tokens the vocabulary of each has."""


# --- what a session is ---


@dataclass(frozen=True, slots=True)
class State:
    """What a checkpoint holds. A step makes a new one, so an old one may still be read."""

    weights: Floats  # (V, V): the logit of token j after token i
    mean: Floats  # (V, V): AdamW's first moment
    variance: Floats  # (V, V): its second
    steps: int = 0


def untrained(weights: Floats) -> State:
    return State(weights, np.zeros_like(weights), np.zeros_like(weights))


class Session:
    """A handle: the state, and the one thread that changes it, in the order of submission."""

    def __init__(self, config: SessionConfig, state: State) -> None:
        self.config, self.state = config, state
        self.gradient = np.zeros_like(state.weights)
        self.accumulated = False  # is a forward_backward submitted that no step has used?
        self.failure: Exception | None = None
        self.closed = False
        self.lock = threading.Lock()  # held while something is submitted
        self.worker = ThreadPoolExecutor(1, "bigram-session")

    def check(self, revives: bool = False) -> None:
        if self.closed:
            raise SessionClosed("the session was closed; start another")
        if self.failure is not None and not revives:
            raise SessionFailed(f"an operation failed ({self.failure}); load a checkpoint")

    def submit(self, operation: Callable[[], T], revives: bool = False) -> Future[T]:
        """Queue an operation and return at once. The caller holds the lock."""
        self.check(revives)
        return self.worker.submit(self.run, operation, revives)

    def run(self, operation: Callable[[], T], revives: bool) -> T:
        self.check(revives)  # again: what is queued behind a failure must not run
        try:
            return operation()
        except Exception as error:
            self.failure = error
            raise

    def close(self) -> None:
        with self.lock:
            self.closed = True
        self.worker.shutdown()


@resource
def _sessions(opts: Options) -> set[Session]:
    return set()


@hookimpl
def close(opts: Options) -> None:
    for session in _sessions.pop(opts) or ():
        session.close()


@hookimpl
def start_session(opts: Options, config: SessionConfig) -> Session:
    if config.model not in opts.models:
        raise NotFound(f"no model {config.model!r}; there are {', '.join(opts.models)}")
    for name, only in (("revision", None), ("lora", None), ("trainable", True)):
        if getattr(config, name) != only:  # never ignore what is not supported
            raise Unsupported(f"a bigram model has no {name}={getattr(config, name)!r}")
    if config.from_checkpoint is not None:
        state = read(opts, config, config.from_checkpoint, config.with_optimizer)
    else:
        size = opts.models[config.model]
        state = untrained(np.random.default_rng(config.seed % 2**64).normal(size=(size, size)))
    session = Session(config, state)
    _sessions(opts).add(session)
    return session


@hookimpl
def close_session(opts: Options, session: Session) -> None:
    session.close()
    _sessions(opts).discard(session)


# --- operations: check now, run later ---


@hookimpl
def forward_backward(
    opts: Options,
    session: Session,
    datums: Sequence[Datum],
    loss_fn: str,
    loss_fn_config: Mapping[str, float] | None,
) -> Future[ForwardBackwardResult]:
    batch = prepare(session, datums, loss_fn, loss_fn_config)

    def operation() -> ForwardBackwardResult:
        result, gradient = evaluate(session.state.weights, batch)
        session.gradient += gradient
        return result

    with session.lock:
        future = session.submit(operation)
        session.accumulated = True
    return future


@hookimpl
def forward(
    opts: Options,
    session: Session,
    datums: Sequence[Datum],
    loss_fn: str,
    loss_fn_config: Mapping[str, float] | None,
) -> Future[ForwardBackwardResult]:
    batch = prepare(session, datums, loss_fn, loss_fn_config, require_weights=False)
    with session.lock:
        return session.submit(lambda: evaluate(session.state.weights, batch)[0])


@hookimpl
def optim_step(
    opts: Options, session: Session, learning_rate: float, adam: AdamParams
) -> Future[OptimStepResult]:
    if not (learning_rate >= 0 and math.isfinite(learning_rate)):
        raise InvalidInput(f"learning_rate must be finite and not negative, not {learning_rate}")

    def operation() -> OptimStepResult:
        norm = float(np.linalg.norm(session.gradient))
        if not math.isfinite(norm):
            raise AdapterError("the gradient is not finite; the weights were left alone")
        scale = adam.grad_clip_norm / norm if 0 < adam.grad_clip_norm < norm else 1.0
        session.state = adamw(session.state, session.gradient * scale, learning_rate, adam)
        session.gradient = np.zeros_like(session.gradient)
        return OptimStepResult(norm)  # before clipping

    with session.lock:
        session.check()
        if not session.accumulated:
            raise InvalidInput("no gradient was accumulated; submit forward_backward first")
        future = session.submit(operation)
        session.accumulated = False
    return future


@hookimpl
def await_(
    opts: Options, future: Future[Any], timeout: float | None
) -> ForwardBackwardResult | OptimStepResult:
    done, _ = concurrent.futures.wait([future], timeout)  # cancels nothing
    if not done:
        raise AdapterTimeout(f"the operation is still running after {timeout} s; ask again")
    result: ForwardBackwardResult | OptimStepResult = future.result()
    return result


# --- the arithmetic ---


@dataclass(frozen=True, slots=True)
class Batch:
    """The n tokens of all datums, one after the other."""

    tokens: NDArray[np.int64]  # (n,)
    inputs: Mapping[str, NDArray[Any]]  # (n,) each
    ends: NDArray[np.int64]  # where each datum but the last ends
    loss_fn: str
    config: Mapping[str, float]


def prepare(
    session: Session,
    datums: Sequence[Datum],
    loss_fn: str,
    loss_fn_config: Mapping[str, float] | None,
    require_weights: bool = True,
) -> Batch:
    """Refuse bad input; copy the rest, since the caller may change the arrays at once."""
    config = validate_datums(
        datums,
        loss_fn,
        loss_fn_config,
        vocab_size=len(session.state.weights),
        max_length=session.config.max_length,
        require_weights=require_weights,
    )
    lengths = [datum.model_input.length for datum in datums]
    inputs = {
        name: np.concatenate(
            [d.loss_fn_inputs.get(name, np.ones(n)) for d, n in zip(datums, lengths, strict=True)]
        )
        for name in ("target_tokens", *LOSS_FUNCTIONS[loss_fn].inputs)
    }
    tokens = np.concatenate([datum.model_input.to_ints() for datum in datums])
    return Batch(tokens, inputs, np.cumsum(lengths)[:-1], loss_fn, config)


@np.errstate(over="ignore", invalid="ignore")  # an infinite gradient fails the step, not this
def evaluate(weights: Floats, batch: Batch) -> tuple[ForwardBackwardResult, Floats]:
    """Return the loss, and its gradient by the weights, `(V, V)`."""
    logits = weights[batch.tokens]
    logits = logits - logits.max(axis=1, keepdims=True)
    logprobs = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    at_targets = (np.arange(len(logits)), batch.inputs["target_tokens"])
    loss, slope = loss_and_slope(batch, logprobs[at_targets])

    by_logits = -slope[:, None] * np.exp(logprobs)  # d p / d logits = one_hot(target) - softmax
    by_logits[at_targets] += slope
    gradient = np.zeros_like(weights)
    np.add.at(gradient, batch.tokens, by_logits)

    parts = np.split(logprobs[at_targets].astype(np.float32), batch.ends)
    return ForwardBackwardResult(loss, [{"logprobs": part} for part in parts]), gradient


def loss_and_slope(batch: Batch, p: Floats) -> tuple[float, Floats]:
    """Return the loss, a sum over tokens, and d loss / d p. p: `(n,)`, logprobs of the targets."""
    if batch.loss_fn == "cross_entropy":
        weights = batch.inputs["weights"]
        return -float(weights @ p), -weights
    advantages = batch.inputs["advantages"]
    ratio = np.exp(p - batch.inputs["logprobs"])
    if batch.loss_fn == "importance_sampling":
        return -float(ratio @ advantages), -ratio * advantages
    clipped = ratio.clip(batch.config["clip_low_threshold"], batch.config["clip_high_threshold"])
    if batch.loss_fn == "cispo":  # the ratio is a constant, by a stop-gradient
        return -float(clipped * p @ advantages), -clipped * advantages
    free, bound = ratio * advantages, clipped * advantages  # ppo
    return -float(np.minimum(free, bound).sum()), -np.where(free <= bound, free, 0.0)


def adamw(state: State, gradient: Floats, learning_rate: float, adam: AdamParams) -> State:
    steps = state.steps + 1
    mean = adam.beta1 * state.mean + (1 - adam.beta1) * gradient
    variance = adam.beta2 * state.variance + (1 - adam.beta2) * gradient**2
    size = np.sqrt(variance / (1 - adam.beta2**steps)) + adam.eps
    direction = mean / (1 - adam.beta1**steps) / np.where(size > 0, size, 1.0)
    weights = state.weights * (1 - learning_rate * adam.weight_decay) - learning_rate * direction
    return State(weights, mean, variance, steps)


# --- checkpoints ---


@hookimpl
def save_checkpoint(opts: Options, session: Session, path: str) -> str:
    with session.lock:
        session.check()
        if session.accumulated:
            raise InvalidInput("gradients are pending, and would be lost; run optim_step first")
        queued = session.submit(lambda: session.state)
    state = queued.result()

    # All or nothing: complete and on the disk before it gets its name, which is unique.
    reference = f"{time.time_ns():020d}-{uuid.uuid4().hex}"
    opts.checkpoint_dir.mkdir(parents=True, exist_ok=True)
    partial = opts.checkpoint_dir / f"{reference}.partial"
    try:
        with partial.open("wb") as file:
            label = np.frombuffer(path.encode(), np.uint8)  # inside, so that it may be any text
            np.savez(file, label=label, **asdict(state))
            file.flush()
            os.fsync(file.fileno())
        partial.rename(opts.checkpoint_dir / f"{reference}.npz")
    finally:
        partial.unlink(missing_ok=True)
    return reference


@hookimpl
def load_checkpoint(opts: Options, session: Session, path: str, with_optimizer: bool) -> None:
    session.check(revives=True)
    state = read(opts, session.config, path, with_optimizer)

    def operation() -> None:
        session.state, session.gradient = state, np.zeros_like(state.weights)
        session.failure = None

    with session.lock:
        restored = session.submit(operation, revives=True)
        session.accumulated = False
    restored.result()


def read(opts: Options, config: SessionConfig, reference: str, with_optimizer: bool) -> State:
    if not re.fullmatch(r"\d{20}-[0-9a-f]{32}", reference, re.ASCII):  # it becomes a path
        raise NotFound(f"no checkpoint {reference!r}")
    try:
        with np.load(opts.checkpoint_dir / f"{reference}.npz", allow_pickle=False) as saved:
            state = State(**{name: saved[name] for name in State.__slots__})
    except FileNotFoundError:
        raise NotFound(f"no checkpoint {reference!r} in {opts.checkpoint_dir}") from None
    if len(state.weights) != opts.models[config.model]:
        raise InvalidInput(f"checkpoint {reference!r} is of a model with another vocabulary")
    return state if with_optimizer else untrained(state.weights)


@hookimpl
def list_checkpoints(opts: Options, prefix: str) -> list[str]:
    found = []
    for file in sorted(opts.checkpoint_dir.glob("*.npz")):  # names begin with the time
        with np.load(file, allow_pickle=False) as saved:
            if saved["label"].tobytes().startswith(prefix.encode()):
                found.append(file.stem)
    return found


@hookimpl
def delete_checkpoint(opts: Options, path: str) -> None:
    if re.fullmatch(r"\d{20}-[0-9a-f]{32}", path, re.ASCII):
        (opts.checkpoint_dir / f"{path}.npz").unlink(missing_ok=True)


if TYPE_CHECKING:
    import bigram_training_client as this_module
    from crucible_kitchen.hookspecs import (
        AdapterSpec,
        TrainingClientOptionalSpec,
        TrainingClientSpec,
        implements,
    )

    _: TrainingClientSpec[Options, Session, Future[Any]] = this_module

    def optional_callbacks(
        optional: TrainingClientOptionalSpec[Options, Session, Future[Any]],
        general: AdapterSpec[Options],
    ) -> None:
        implements(optional.forward)(this_module.forward)
        implements(optional.list_checkpoints)(this_module.list_checkpoints)
        implements(optional.delete_checkpoint)(this_module.delete_checkpoint)
        implements(general.close)(this_module.close)
